/* dequantize.h: the stage behind fp8-dequant, mxfp4-unpack and nvfp4-unpack: converts all matrices
 * of one format to BF16, or those that a recipe names, and passes everything else. */
#ifndef DEQUANTIZE_H
#define DEQUANTIZE_H

#include "base/args.h"
#include "tensor/weight.h"

/* The whole program: X.weight of `format` becomes BF16 [rows, cols] under the same name, its scales
 * are dropped. Counts weights and FP8 NaNs. `program` is for --help. Returns main's exit code. */
int dequantize_main(enum format format, const struct program *program, int argc, char **argv);

#endif
