/* operand.h: a weight on the GPU, ready for products. For the files of the CUDA device, and for the
 * test that looks at what a kernel has dequantized. */
#ifndef OPERAND_H
#define OPERAND_H

#include "forward/device.h"

struct operand {
    uint64_t rows, cols;
    enum dtype dtype; /* BF16 or F32 */
    uint64_t stride;  /* elements from row to row: cols, but for F32 a multiple of 4, with zeros */
    void *at;
};

#endif
