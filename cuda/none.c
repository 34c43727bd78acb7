/* Replaces the CUDA device and NCCL in a build without CUDA. */
#include "base/die.h"
#include "forward/device.h"
#include "forward/gather.h"

static const char none[] =
    "this build has no CUDA; --device cpu needs none (where nvcc is found, make builds with it)";

struct device *device_cuda(unsigned gpu, const char **why)
{
    (void)gpu;
    *why = none;
    return NULL;
}

struct gather *gather_nccl(struct ranks *ranks, struct device *device, char **why)
{
    (void)ranks;
    (void)device;
    *why = xstrdup(none);
    return NULL;
}
