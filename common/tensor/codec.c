#include "tensor/codec.h"

#include <string.h>

#include "base/die.h"
#include "tensor/codec_x86.h"
#include "tensor/fp8.h"
#include "tensor/hessian_search.h"
#include "tensor/mxfp4.h"
#include "tensor/scale_search.h"

static const struct codec portable = {
    .name = "portable",
    .fp8_dequant_row = fp8_dequant_row,
    .mxfp4_unpack_row = mxfp4_unpack_row,
    .nvfp4_unpack_row = nvfp4_unpack_row,
    .nvfp4_scales_row = nvfp4_scales_row,
    .nvfp4_scales_mse_row = nvfp4_scales_mse_row,
    .nvfp4_scales_four_over_six_row = nvfp4_scales_four_over_six_row,
    .nvfp4_scales_hessian_row = nvfp4_scales_hessian_row,
    .nvfp4_nibbles_row = nvfp4_nibbles_row,
    .nvfp4_cast_scales_row = nvfp4_cast_scales_row,
    .recode_row = recode_row,
};

const struct codec *codec_named(const char *name)
{
    if (!strcmp(name, portable.name))
        return &portable;
#ifdef __x86_64__
    if (!strcmp(name, codec_avx2.name) && __builtin_cpu_supports("avx2"))
        return &codec_avx2;
    if (!strcmp(name, codec_avx512.name) && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return &codec_avx512;
#endif
    return NULL;
}

const struct codec *codec_best(void)
{
    static const char *const best_first[] = {"avx512", "avx2"};
    for (size_t i = 0; i < sizeof best_first / sizeof *best_first; i++) {
        const struct codec *codec = codec_named(best_first[i]);
        if (codec)
            return codec;
    }
    return &portable;
}

struct arg codec_arg(const char **to)
{
    return (struct arg){.name = "cpu",
                        .kind = ARG_CHOICE,
                        .to = to,
                        .value = "which",
                        .choices = CODEC_NAMES,
                        .help =
                            "instructions to use (default: the fastest; all give the same bytes)",
                        .silent = true};
}

const struct codec *codec_chosen(const char *name)
{
    const struct codec *codec = name ? codec_named(name) : codec_best();
    if (!codec)
        die_usage("--cpu: this processor has no %s", name);
    return codec;
}
