/* The CUDA device and NCCL of a build without them: from a library of its own, which is installed
 * separately (make CUDA=library). It has this program's version in its name, for it calls functions
 * of the program that loads it (cuda/exports), and their types are of that version. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/library.h"
#include "base/version.h"
#include "forward/device.h"
#include "forward/gather.h"

static struct device *(*to_device_cuda)(unsigned gpu, const char **why);
static struct gather *(*to_gather_nccl)(struct ranks *ranks, struct device *device, char **why);

/* Of bin/program: lib/seekpipe/cuda-VERSION.so. The caller frees it. */
static char *library(void)
{
    char *program = realpath("/proc/self/exe", NULL);
    if (!program)
        die_errno("/proc/self/exe");
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(program, '/');
        if (slash)
            *slash = 0;
    }
    char *path = xprintf("%s/lib/seekpipe/cuda-" SEEKPIPE_VERSION ".so", program);
    free(program);
    return path;
}

struct device *device_cuda(unsigned gpu, const char **why)
{
    const struct library_function functions[] = {
        {"device_cuda", &to_device_cuda},
        {"gather_nccl", &to_gather_nccl},
        {NULL, NULL},
    };
    char *path = library(), *missing;
    bool there = !access(path, F_OK), loaded = there && library_load(path, functions, &missing);
    if (!there)
        *why = xprintf("this build has no CUDA, and %s is not installed; --device cpu needs none "
                       "(the package seekpipe-cuda has it; where nvcc is found, make builds it)",
                       path);
    else if (!loaded)
        *why = missing;
    free(path);
    return loaded ? to_device_cuda(gpu, why) : NULL; /* *why is never freed */
}

struct gather *gather_nccl(struct ranks *ranks, struct device *device, char **why)
{
    return to_gather_nccl(ranks, device, why);
}
