/* png.h: a picture in a page, as a PNG in a data: URI. */
#ifndef PNG_H
#define PNG_H

#include <stdint.h>
#include <stdio.h>

/* Write a picture of colours of palette.h, row by row, from the top. It is not compressed: a byte
 * a pixel, 4/3 in the page. */
void png_write(FILE *out, const uint8_t *pixel, uint32_t width, uint32_t height);

#endif
