/* mxfp4-unpack: MXFP4 weights (packed E2M1 with an E8M0 scale per 32 columns) to BF16. */
#include "quantize/dequantize.h"

static const struct program program = {
    .about = "Turn MXFP4 weights (E2M1 with an E8M0 scale per 32 columns) into BF16; everything "
             "else passes unchanged. Reads a tensor stream from a file or standard input, "
             "or a checkpoint's folder.",
    .operands = {"[stream]"},
    .examples = {"st-read DeepSeek-V4 | fp8-dequant | mxfp4-unpack | st-write DeepSeek-V4-bf16",
                 "mxfp4-unpack <a.ts >b.ts"},
    .max_operands = 1,
    .in_place = true,
};

int main(int argc, char **argv)
{
    return dequantize_main(FORMAT_MXFP4, &program, argc, argv);
}
