/* nvfp4-unpack: NVFP4 weights (packed E2M1, E4M3 scales per 16 columns, an F32 scale) become BF16.
 */
#include "quantize/dequantize.h"

static const char usage[] =
    "usage: nvfp4-unpack [-hnqv] [--cpu portable | avx2 | avx512] [-j N] [-o file] [--progress]\n"
    "                    [stream]\n"
    "\n"
    "Turn NVFP4 weights into BF16; their scales and input scales are dropped, all else passes.\n"
    "Reads a tensor stream from a file or standard input, or a checkpoint's folder.\n"
    "\n"
    "      --cpu WHICH  instructions to use (default: the fastest; all give the same bytes)\n"
    "  -j, --threads N  threads (default: as many as there are processors)\n"
    "  -n, --plan       write the table only, no tensors\n"
    "  -o, --output F   write to F instead of standard output\n"
    "      --progress   show bytes, rate and time left\n"
    "  -q, --quiet      no messages but errors\n"
    "  -v, --verbose    say how many weights were converted\n"
    "  -h, --help       this text\n"
    "      --version    the version\n"
    "\n"
    "Examples:\n"
    "  st-read DeepSeek-V4-NVFP4 | nvfp4-unpack | st-write experts-bf16\n"
    "  nvfp4-unpack <a.ts >b.ts\n";

int main(int argc, char **argv)
{
    return dequantize_main(FORMAT_NVFP4, usage, argc, argv);
}
