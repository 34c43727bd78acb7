/* cublaslt.h: cuBLASLt, loaded at run time (see library.h). cublaslt.c defines the functions of
 * cublasLt.h that this project calls, and forwards them to the library. Nothing is linked with it,
 * so programs start on machines without it. */
#ifndef CUBLASLT_H
#define CUBLASLT_H

#include <stdbool.h>

#include <cublasLt.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Load the library, in the version that this was built with. Call it before any cuBLASLt function.
 * False if it is not found; then *why says where it was searched (the caller frees it). */
bool cublaslt_load(char **why);

#ifdef __cplusplus
}
#endif

#endif
