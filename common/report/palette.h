/* palette.h: the colours of the heat maps: a scale from dark blue to yellow, whose steps look
 * equally large, and a mark that is in no way like it. */
#ifndef PALETTE_H
#define PALETTE_H

#include <stdint.h>

enum {
    PALETTE_STEPS = 253,             /* colours 0 ... 252 are the scale */
    PALETTE_MARK = PALETTE_STEPS,    /* magenta */
    PALETTE_NONE = PALETTE_MARK + 1, /* transparent */
    PALETTE_COUNT
};

/* Red, green and blue of a colour; those of PALETTE_NONE do not matter. */
void palette_colour(unsigned index, uint8_t rgb[3]);

/* The colour of a part of the scale, from 0 to 1. */
unsigned palette_step(double part);

#endif
