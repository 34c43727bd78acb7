/* fp8-dequant: FP8 E4M3 weights with scales per 128 x 128 block (V4: .scale E8M0; V3:
 * .weight_scale_inv F32) to BF16. */
#include "quantize/dequantize.h"

static const struct program program = {
    .about = "Turn FP8 (E4M3) weights with scales per 128 x 128 block into BF16; everything else "
             "passes unchanged. Reads a tensor stream from a file or standard input, "
             "or a checkpoint's folder.",
    .operands = {"[stream]"},
    .examples = {"st-read DeepSeek-V4 | fp8-dequant | mxfp4-unpack | st-write DeepSeek-V4-bf16",
                 "fp8-dequant <a.ts >b.ts"},
    .max_operands = 1,
    .in_place = true,
};

int main(int argc, char **argv)
{
    return dequantize_main(FORMAT_FP8, &program, argc, argv);
}
