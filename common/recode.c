#include "recode.h"

#include <string.h>

#include "codec.h"
#include "mxfp4.h"

/* All sixteen nibbles, but those whose magnitude is above `largest` are 0. */
static void nibbles_up_to(uint8_t *packed, unsigned largest)
{
    for (unsigned i = 0; i < NVFP4_BLOCK / 2; i++) {
        unsigned low = 2 * i, high = 2 * i + 1;
        packed[i] =
            (uint8_t)(((low & 7) <= largest ? low : 0) | ((high & 7) <= largest ? high : 0) << 4);
    }
}

void recode_init(struct recode *recode, const struct codec *codec, float scale_2)
{
    enum { COLS = 8 * NVFP4_BLOCK }; /* all there is under one scale byte */
    for (size_t e8m0 = 0; e8m0 < 255; e8m0++) {
        uint8_t in[COLS / 2], out[COLS / 2], scales[COLS / MXFP4_BLOCK];
        uint8_t *scale = recode->scale + 8 * e8m0;
        uint16_t w[COLS];
        memset(scales, (int)e8m0, sizeof scales);
        for (size_t largest = 0; largest < 8; largest++)
            nibbles_up_to(in + largest * NVFP4_BLOCK / 2, (unsigned)largest);
        codec->mxfp4_unpack_row(w, in, scales, COLS);
        codec->nvfp4_scales_row(scale, w, COLS, scale_2);
        codec->nvfp4_nibbles_row(out, scale, w, COLS, scale_2);
        for (size_t largest = 0; largest < 8; largest++) {
            const uint8_t *block = out + largest * NVFP4_BLOCK / 2;
            for (unsigned nibble = 0; nibble < 16; nibble++) {
                unsigned now = block[nibble / 2] >> 4 * (nibble % 2) & 15;
                recode->map[8 * e8m0 + largest].low[nibble] = (uint8_t)now;
                recode->map[8 * e8m0 + largest].high[nibble] = (uint8_t)(now << 4);
            }
        }
    }
}

static unsigned largest_code(const uint8_t *packed)
{
    unsigned largest = 0;
    for (size_t i = 0; i < NVFP4_BLOCK / 2; i++) {
        unsigned low = packed[i] & 7, high = packed[i] >> 4 & 7;
        largest = low > largest ? low : largest;
        largest = high > largest ? high : largest;
    }
    return largest;
}

void recode_row(uint8_t *out, uint8_t *scale, const struct recode *recode, const uint8_t *packed,
                const uint8_t *e8m0, size_t blocks)
{
    for (size_t half = 0; half < 2 * blocks; half++) { /* of an MXFP4 block: a block of NVFP4 */
        unsigned pair = 8U * e8m0[half / 2] + largest_code(packed);
        scale[half] = recode->scale[pair];
        for (size_t i = 0; i < NVFP4_BLOCK / 2; i++, packed++)
            *out++ = recode->map[pair].low[*packed & 15] | recode->map[pair].high[*packed >> 4];
    }
}
