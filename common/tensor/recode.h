/* recode.h: MXFP4 weights quantized again as NVFP4, without converting each element to BF16.
 *
 * In a block of 16, the NVFP4 code of an element depends on its nibble, on the block's E8M0 scale,
 * and on the block's largest magnitude (through the block scale). The latter two have only 255 * 8
 * combinations. So for a given scale_2, all of them are quantized once with mxfp4.h and nvfp4.h,
 * and a weight is recoded by lookup. Pure functions. */
#ifndef RECODE_H
#define RECODE_H

#include <stddef.h>
#include <stdint.h>

enum { RECODE_PAIRS = 255 * 8 }; /* scale byte * 8 + largest magnitude code */

struct codec;

struct recode {
    uint8_t scale[RECODE_PAIRS];
    struct {
        uint8_t low[16], high[16]; /* by nibble: the new one, in the low or high half of a byte */
    } map[RECODE_PAIRS];
};

/* Fill the table for scale_2 > 0, using any codec. */
void recode_init(struct recode *recode, const struct codec *codec, float scale_2);

/* One row. packed: 16 bytes for each of `blocks` MXFP4 blocks; e8m0: their scales, none 255. scale:
 * 2 * blocks E4M3 codes out, NVFP4_NOT_FINITE where the block holds an element that is infinite in
 * BF16. out: the new nibbles, 16 bytes a block; may be equal to packed. */
void recode_row(uint8_t *out, uint8_t *scale, const struct recode *recode, const uint8_t *packed,
                const uint8_t *e8m0, size_t blocks);

#endif
