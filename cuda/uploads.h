/* uploads.h: the CUDA device's stream for uploads of weights, and what arrives of them by other
 * means, beside its operations. */
#ifndef UPLOADS_H
#define UPLOADS_H

#include <cuda_runtime.h>

#include "forward/device.h"

cudaStream_t gpu_upload_stream(struct device *device);

/* The matrix of U8 at `at` has all its bytes once `event` is complete: operations on it wait for
 * that, and so does its memory's next owner. Any thread may call it, after what is submitted of the
 * matrix. The event may be recorded again only later in the same stream. */
void gpu_arrives(struct device *device, const void *at, cudaEvent_t event);

/* From now on, leave so many multiprocessors to kernels that are not the device's. Operations with
 * a block for each multiprocessor, which stays there to the end, have that many blocks fewer: one
 * block that had to wait for its turn would double an operation's time. Their results are the same.
 */
void gpu_reserve(struct device *device, unsigned multiprocessors);

#endif
