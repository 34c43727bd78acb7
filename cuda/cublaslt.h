/* cublaslt.h: cuBLASLt, found when it is needed (see library.h). cublaslt.c has the functions of
 * cublasLt.h that this project calls, and passes them on to the library: nothing is linked with it,
 * so programs start where it is not. */
#ifndef CUBLASLT_H
#define CUBLASLT_H

#include <stdbool.h>

#include <cublasLt.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Load the library, of the version that this was built with, before any of its functions is called.
 * False if it is not here; then *why says where it was looked for (the caller frees it). */
bool cublaslt_load(char **why);

#ifdef __cplusplus
}
#endif

#endif
