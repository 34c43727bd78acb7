/* uploads.h: the stream of the CUDA device in which weights come, for those who bring some of them
 * on a way of their own. */
#ifndef ARRIVING_H
#define ARRIVING_H

#include <cuda_runtime.h>

#include "forward/device.h"

cudaStream_t gpu_arriving(struct device *device);

#endif
