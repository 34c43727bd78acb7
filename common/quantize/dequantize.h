/* dequantize.h: what fp8-dequant, mxfp4-unpack and nvfp4-unpack are: a stage that turns all
 * matrices of one format into BF16 and lets everything else pass. */
#ifndef DEQUANTIZE_H
#define DEQUANTIZE_H

#include "base/args.h"
#include "tensor/weight.h"

/* The whole program: X.weight of `format` becomes BF16 [rows, cols] under the same name, its scales
 * are dropped. Counts weights and FP8 NaNs. `program` says what --help says. Returns main's exit
 * code. */
int dequantize_main(enum format format, const struct program *program, int argc, char **argv);

#endif
