/* Stands in for the CUDA device in a build without CUDA. */
#include "device.h"

struct device *device_cuda(const char **why)
{
    *why = "this build has no CUDA; build where nvcc is found (see make's line `cuda: …`)";
    return NULL;
}
