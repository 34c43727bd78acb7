#include "base/library.h"

#include <dlfcn.h>
#include <glob.h>
#include <limits.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"

/* Open the first file matching a glob(7) pattern that loads. Frees the pattern. */
static void *open_first(char *pattern)
{
    glob_t found;
    void *library = NULL;
    if (!glob(pattern, 0, NULL, &found))
        for (size_t i = 0; i < found.gl_pathc && !library; i++)
            library = dlopen(found.gl_pathv[i], RTLD_NOW | RTLD_LOCAL);
    globfree(&found);
    free(pattern);
    return library;
}

static void *open_in_cuda(const char *file)
{
    const char *const places[] = {getenv("CUDA_HOME"), getenv("CUDA_PATH"), "/usr/local/cuda"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof places / sizeof *places && !library; i++)
        if (places[i])
            library = open_first(xprintf("%s/lib*/%s", places[i], file));
    return library;
}

/* Debian has dist-packages, others site-packages. */
static void *open_in_python(const char *prefix, size_t length, const char *file)
{
    return open_first(xprintf("%.*s/lib/python3*/*-packages/nvidia/*/lib/%s",
                              length < PATH_MAX ? (int)length : 0, prefix, file));
}

static void *open_in_wheels(const char *file)
{
    const char *home = getenv("HOME"), *path = getenv("PATH");
    void *library = NULL;
    if (home) {
        char *local = xprintf("%s/.local", home);
        library = open_in_python(local, strlen(local), file);
        free(local);
    }
    while (path && *path && !library) {
        size_t length = strcspn(path, ":");
        if (length > 4 && !strncmp(path + length - 4, "/bin", 4))
            library = open_in_python(path, length - 4, file);
        path += length + (path[length] == ':');
    }
    return library;
}

/* NULL if it is not found; why: see library_load(). */
static void *open_library(const char *file, char **why)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library)
        return library;
    char *error = xstrdup(dlerror());
    if (strchr(file, '/')) {
        if (why)
            *why = xstrdup(error);
        free(error);
        return NULL;
    }
    library = open_in_cuda(file);
    if (!library)
        library = open_in_wheels(file);
    if (!library && why)
        *why = xprintf("%s; also searched CUDA's folders and the wheels of the Pythons in $PATH; "
                       "name its folder in $LD_LIBRARY_PATH",
                       error);
    free(error);
    return library;
}

void library_log_to_standard_error(void)
{
    setenv("CUBLAS_LOGDEST_DBG", "stderr", true);
    setenv("CUBLASLT_LOG_FILE", "/dev/stderr", true);
    setenv("NCCL_DEBUG_FILE", "/dev/stderr", false);
}

bool library_load(const char *file, const struct library_function *functions, char **why)
{
    void *library = open_library(file, why);
    if (!library)
        return false;
    for (const struct library_function *f = functions; f->name; f++) {
        void *function = dlsym(library, f->name);
        if (!function)
            die("%s: has no function %s; is it another version?", file, f->name);
        memcpy(f->pointer, &function, sizeof function);
    }
    return true;
}

char *library_path(const char *file)
{
    void *library = open_library(file, NULL);
    struct link_map *map;
    if (!library)
        return NULL;
    char *path = dlinfo(library, RTLD_DI_LINKMAP, &map) ? NULL : xstrdup(map->l_name);
    dlclose(library);
    return path;
}
