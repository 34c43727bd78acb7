#include "cublaslt.h"

#include "base/library.h"

#define TEXT(x) #x
#define FILE_OF(version) "libcublasLt.so." TEXT(version)

/* Define a cuBLASLt function that calls the library's through the pointer to_<name>. */
#define PASS_ON(result, name, parameters, arguments)                                               \
    static result(*to_##name) parameters;                                                          \
    result name parameters                                                                         \
    {                                                                                              \
        return to_##name arguments;                                                                \
    }

PASS_ON(cublasStatus_t, cublasLtCreate, (cublasLtHandle_t * handle), (handle))
PASS_ON(cublasStatus_t, cublasLtDestroy, (cublasLtHandle_t handle), (handle))
PASS_ON(const char *, cublasLtGetStatusString, (cublasStatus_t status), (status))
PASS_ON(cublasStatus_t, cublasLtMatmul,
        (cublasLtHandle_t handle, cublasLtMatmulDesc_t how, const void *alpha, const void *a,
         cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
         const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
         cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,
         size_t workspace_size, cudaStream_t stream),
        (handle, how, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algorithm,
         workspace, workspace_size, stream))
PASS_ON(cublasStatus_t, cublasLtMatmulAlgoGetHeuristic,
        (cublasLtHandle_t handle, cublasLtMatmulDesc_t how, cublasLtMatrixLayout_t a,
         cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
         cublasLtMatmulPreference_t preference, int most, cublasLtMatmulHeuristicResult_t result[],
         int *count),
        (handle, how, a, b, c, d, preference, most, result, count))
PASS_ON(cublasStatus_t, cublasLtMatmulDescCreate,
        (cublasLtMatmulDesc_t * how, cublasComputeType_t compute, cudaDataType_t scale),
        (how, compute, scale))
PASS_ON(cublasStatus_t, cublasLtMatmulDescDestroy, (cublasLtMatmulDesc_t how), (how))
PASS_ON(cublasStatus_t, cublasLtMatmulDescSetAttribute,
        (cublasLtMatmulDesc_t how, cublasLtMatmulDescAttributes_t which, const void *value,
         size_t size),
        (how, which, value, size))
PASS_ON(cublasStatus_t, cublasLtMatmulPreferenceCreate, (cublasLtMatmulPreference_t * preference),
        (preference))
PASS_ON(cublasStatus_t, cublasLtMatmulPreferenceDestroy, (cublasLtMatmulPreference_t preference),
        (preference))
PASS_ON(cublasStatus_t, cublasLtMatmulPreferenceSetAttribute,
        (cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t which,
         const void *value, size_t size),
        (preference, which, value, size))
PASS_ON(cublasStatus_t, cublasLtMatrixLayoutCreate,
        (cublasLtMatrixLayout_t * layout, cudaDataType type, uint64_t rows, uint64_t cols,
         int64_t stride),
        (layout, type, rows, cols, stride))
PASS_ON(cublasStatus_t, cublasLtMatrixLayoutDestroy, (cublasLtMatrixLayout_t layout), (layout))
PASS_ON(cublasStatus_t, cublasLtMatrixLayoutSetAttribute,
        (cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t which, const void *value,
         size_t size),
        (layout, which, value, size))

#define FUNCTION(name)                                                                             \
    {                                                                                              \
#name, &to_##name                                                                          \
    }

bool cublaslt_load(char **why)
{
    const struct library_function functions[] = {
        FUNCTION(cublasLtCreate),
        FUNCTION(cublasLtDestroy),
        FUNCTION(cublasLtGetStatusString),
        FUNCTION(cublasLtMatmul),
        FUNCTION(cublasLtMatmulAlgoGetHeuristic),
        FUNCTION(cublasLtMatmulDescCreate),
        FUNCTION(cublasLtMatmulDescDestroy),
        FUNCTION(cublasLtMatmulDescSetAttribute),
        FUNCTION(cublasLtMatmulPreferenceCreate),
        FUNCTION(cublasLtMatmulPreferenceDestroy),
        FUNCTION(cublasLtMatmulPreferenceSetAttribute),
        FUNCTION(cublasLtMatrixLayoutCreate),
        FUNCTION(cublasLtMatrixLayoutDestroy),
        FUNCTION(cublasLtMatrixLayoutSetAttribute),
        {NULL, NULL},
    };
    return library_load(FILE_OF(CUBLAS_VER_MAJOR), functions, why);
}
