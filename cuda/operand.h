/* operand.h: a weight on the GPU, ready for products. For the files of the CUDA device, and for the
 * test that checks what a kernel dequantized. */
#ifndef OPERAND_H
#define OPERAND_H

#include "forward/device.h"

struct operand {
    uint64_t rows, cols;
    enum dtype dtype; /* BF16 or F32 */
    uint64_t stride;  /* elements from row to row: cols; for F32, padded with zeros to a multiple of
                         4 */
    void *at;
};

#endif
