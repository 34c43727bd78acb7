/* uploads.h: the CUDA device's stream for uploads of weights, for code that uploads some by other
 * means. */
#ifndef UPLOADS_H
#define UPLOADS_H

#include <cuda_runtime.h>

#include "forward/device.h"

cudaStream_t gpu_upload_stream(struct device *device);

#endif
