#include "tensor/recode.h"

#include <string.h>

#include "tensor/codec.h"
#include "tensor/mxfp4.h"

/* All sixteen nibbles, with those whose magnitude is above `largest` set to 0. */
static void nibbles_up_to(uint8_t *packed, unsigned largest)
{
    for (unsigned i = 0; i < NVFP4_BLOCK / 2; i++) {
        unsigned low = 2 * i, high = 2 * i + 1;
        packed[i] =
            (uint8_t)(((low & 7) <= largest ? low : 0) | ((high & 7) <= largest ? high : 0) << 4);
    }
}

/* Quantizes one row that holds a block for each pair. */
void recode_init(struct recode *recode, const struct codec *codec, float scale_2)
{
    enum { COLS = RECODE_PAIRS * NVFP4_BLOCK, BYTES = NVFP4_BLOCK / 2 };
    uint8_t packed[COLS / 2], e8m0[COLS / MXFP4_BLOCK];
    uint16_t w[COLS];
    for (size_t pair = 0; pair < RECODE_PAIRS; pair++)
        nibbles_up_to(packed + pair * BYTES, pair % 8);
    for (size_t block = 0; block < COLS / MXFP4_BLOCK; block++)
        e8m0[block] = (uint8_t)(block / 4);
    codec->mxfp4_unpack_row(w, packed, e8m0, COLS);
    codec->nvfp4_scales_row(recode->scale, w, COLS, scale_2);
    codec->nvfp4_nibbles_row(packed, recode->scale, w, COLS, scale_2);
    for (size_t pair = 0; pair < RECODE_PAIRS; pair++)
        for (unsigned nibble = 0; nibble < 16; nibble++) {
            unsigned now = packed[pair * BYTES + nibble / 2] >> 4 * (nibble % 2) & 15;
            recode->map[pair].low[nibble] = (uint8_t)now;
            recode->map[pair].high[nibble] = (uint8_t)(now << 4);
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
    for (size_t half = 0; half < 2 * blocks; half++) { /* half of an MXFP4 block: one NVFP4 block */
        unsigned pair = 8U * e8m0[half / 2] + largest_code(packed);
        scale[half] = recode->scale[pair];
        for (size_t i = 0; i < NVFP4_BLOCK / 2; i++, packed++)
            *out++ = recode->map[pair].low[*packed & 15] | recode->map[pair].high[*packed >> 4];
    }
}
