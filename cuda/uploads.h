/* uploads.h: the CUDA device's stream for uploads of weights, and what arrives of them by other
 * means. */
#ifndef UPLOADS_H
#define UPLOADS_H

#include <cuda_runtime.h>

#include "forward/device.h"

cudaStream_t gpu_upload_stream(struct device *device);

/* The matrix of U8 at `at` has all its bytes once `event` is complete: operations on it wait for
 * that, and so does its memory's next owner. Any thread may call it, once for a matrix. The event
 * may be recorded again only later in the same stream. */
void gpu_arrives(struct device *device, const void *at, cudaEvent_t event);

#endif
