/* codec.h: the codecs for a checkpoint's weights, in one version per instruction set. All versions
 * produce the same bytes. The portable one consists of the plain C functions of fp8.h, mxfp4.h,
 * nvfp4.h, scale_search.h, hessian_search.h and recode.h; the others are tested against it on every
 * code there is. */
#ifndef CODEC_H
#define CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "base/args.h"
#include "tensor/hessian_search.h"
#include "tensor/nvfp4.h"
#include "tensor/recode.h"

/* Each function does what the one of its name in those headers does; nvfp4_cast_scales_row() only
 * where no block is above the range. */
struct codec {
    const char *name;
    size_t (*fp8_dequant_row)(uint16_t *out, const uint8_t *w, const float *scale, size_t cols,
                              size_t block);
    void (*mxfp4_unpack_row)(uint16_t *out, const uint8_t *packed, const uint8_t *scale,
                             size_t cols);
    void (*nvfp4_unpack_row)(uint16_t *out, const uint8_t *packed, const uint8_t *scale,
                             size_t cols, float scale_2);
    void (*nvfp4_scales_row)(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2);
    void (*nvfp4_scales_mse_row)(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2);
    void (*nvfp4_scales_four_over_six_row)(uint8_t *scale, const uint16_t *w, size_t cols,
                                           float scale_2);
    void (*nvfp4_scales_hessian_row)(uint8_t *scale, const uint16_t *w, size_t cols, float scale_2,
                                     const struct block_moments *moments);
    void (*nvfp4_nibbles_row)(uint8_t *packed, const uint8_t *scale, const uint16_t *w, size_t cols,
                              float scale_2);
    void (*nvfp4_cast_scales_row)(uint8_t *scale, const uint8_t *e8m0, size_t blocks, int k,
                                  struct nvfp4_cast_count *count);
    void (*recode_row)(uint8_t *out, uint8_t *scale, const struct recode *recode,
                       const uint8_t *packed, const uint8_t *e8m0, size_t blocks);
};

/* The names of the codecs, as --cpu takes them. */
#define CODEC_NAMES "portable|avx2|avx512"

/* The entry of --cpu, which stores one of these names in *to, for codec_chosen(). */
struct arg codec_arg(const char **to);

/* The codec of that name, or NULL if this processor or this build lacks the instructions. Static,
 * as all codecs. */
const struct codec *codec_named(const char *name);

/* The fastest codec that this processor can run. */
const struct codec *codec_best(void);

/* The codec that --cpu names, or the fastest for NULL. One that cannot run here is a usage error.
 */
const struct codec *codec_chosen(const char *name);

#endif
