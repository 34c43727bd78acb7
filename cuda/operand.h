/* operand.h: a weight on the GPU, ready for products. For the files of the CUDA device, and for the
 * test that checks what a kernel dequantized. */
#ifndef OPERAND_H
#define OPERAND_H

#include "forward/device.h"

struct operand {
    uint64_t rows, cols;
    enum dtype dtype; /* BF16 or F32 */
    uint64_t stride;  /* elements from row to row: cols; for F32, padded with zeros to a multiple of
                         OPERAND_STEP */
    void *at; /* BF16. F32 as three matrices one after the other, whose sum it is: the highest
                 bits of each value, the middle ones, the lowest (see split.h) */
};

enum { OPERAND_PARTS = 3, OPERAND_STEP = 64 };

#endif
