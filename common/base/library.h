/* library.h: shared libraries that a machine may have or not. They are looked for when they are
 * needed, so that programs start where they are not. */
#ifndef LIBRARY_H
#define LIBRARY_H

#include <stdbool.h>

/* A function of a library by its name, and the pointer to a function that it goes into. */
struct library_function {
    const char *name; /* NULL ends an array */
    void *pointer;    /* of any type of function pointer */
};

/* Load `file` (as "libnccl.so.2") for the rest of the process and fill in the functions. Looked for
 * where the system looks ($LD_LIBRARY_PATH first), in CUDA's folders ($CUDA_HOME, $CUDA_PATH,
 * /usr/local/cuda), and in PyPI's wheels (nvidia/.../lib) of the user and of the Pythons whose
 * folders are in $PATH. False if it is nowhere, or cannot be loaded; then *why says it, if why is
 * not NULL (the caller frees it). A library that lacks a function ends the process. */
bool library_load(const char *file, const struct library_function *functions, char **why);

/* Where a library lies that was loaded, or would be: its path, which the caller frees; or NULL. */
char *library_path(const char *file);

#endif
