/* nvfp4-unpack: NVFP4 weights (packed E2M1, E4M3 scales per 16 columns, an F32 scale) to BF16. */
#include "quantize/dequantize.h"

static const struct program program = {
    .about = "Turn NVFP4 weights into BF16; their scales and input scales are dropped, everything "
             "else passes unchanged. Reads a tensor stream from a file or standard input, or a "
             "checkpoint's folder.",
    .operands = {"[stream]"},
    .examples = {"st-read DeepSeek-V4-NVFP4 | nvfp4-unpack | st-write experts-bf16",
                 "nvfp4-unpack <a.ts >b.ts"},
    .max_operands = 1,
    .in_place = true,
};

int main(int argc, char **argv)
{
    return dequantize_main(FORMAT_NVFP4, &program, argc, argv);
}
