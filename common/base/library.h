/* library.h: optional shared libraries. They are loaded when they are needed, so that programs
 * start on machines without them. */
#ifndef LIBRARY_H
#define LIBRARY_H

#include <stdbool.h>

/* The name of a function of a library, and the function pointer to set. */
struct library_function {
    const char *name; /* NULL ends an array */
    void *pointer;    /* of any type of function pointer */
};

/* Load `file` ("libnccl.so.2") for the rest of the process and fill in the functions. It searches
 * the system's directories ($LD_LIBRARY_PATH first), CUDA's ($CUDA_HOME, $CUDA_PATH,
 * /usr/local/cuda), and PyPI wheels (nvidia/.../lib) of the user and of each Python in $PATH. A
 * name with a slash is of that file.
 * Returns false if the library is not found or cannot be loaded, with the reason in *why (the
 * caller frees it) unless why is NULL. A library that lacks a function ends the process. */
bool library_load(const char *file, const struct library_function *functions, char **why);

/* The path of a library that is loaded or would be, which the caller frees; NULL if there is none.
 */
char *library_path(const char *file);

/* Let what cuBLAS, cuBLASLt and NCCL log, if the user's environment asks for it, go to standard
 * error: standard output may be a tensor stream. Call it before other threads start. */
void library_log_to_standard_error(void);

#endif
