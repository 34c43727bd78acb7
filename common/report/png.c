#include "report/png.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "report/palette.h"

/* The formats: W3C's PNG specification; RFC 1950 and 1951 for zlib and deflate; RFC 4648. */

static void put_base64(FILE *out, const uint8_t *data, size_t size)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        uint32_t bits = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                        (left > 2 ? data[i + 2] : 0);
        fputc(digit[bits >> 18], out);
        fputc(digit[bits >> 12 & 63], out);
        fputc(left > 1 ? digit[bits >> 6 & 63] : '=', out);
        fputc(left > 2 ? digit[bits & 63] : '=', out);
    }
}

static void put32(FILE *out, uint32_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        fputc((int)(value >> shift & 0xff), out);
}

static uint32_t crc(uint32_t sum, const void *data, size_t size)
{
    const uint8_t *byte = data;
    for (size_t i = 0; i < size; i++) {
        sum ^= byte[i];
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? 0xedb88320 : 0);
    }
    return sum;
}

static void put_chunk(FILE *out, const char *type, const void *data, size_t size)
{
    put32(out, (uint32_t)size);
    fwrite(type, 1, 4, out);
    fwrite(data, 1, size, out);
    put32(out, ~crc(crc(UINT32_MAX, type, 4), data, size));
}

/* A memory stream's content, which the caller frees. */
static FILE *memory(char **data, size_t *size)
{
    FILE *out = open_memstream(data, size);
    if (!out)
        die("out of memory");
    return out;
}

static void memory_end(FILE *out)
{
    if (fclose(out))
        die("out of memory");
}

static void put_header(FILE *out, uint32_t width, uint32_t height)
{
    char *data;
    size_t size;
    FILE *header = memory(&data, &size);
    put32(header, width);
    put32(header, height);
    fwrite("\x08\x03\0\0", 1, 5, header); /* 8 bits, a palette; one method of each kind */
    memory_end(header);
    put_chunk(out, "IHDR", data, size);
    free(data);
}

static void put_palette(FILE *out)
{
    uint8_t colour[PALETTE_COUNT][3], opaque[PALETTE_COUNT];
    memset(opaque, 0xff, sizeof opaque);
    opaque[PALETTE_NONE] = 0;
    for (unsigned i = 0; i < PALETTE_COUNT; i++)
        palette_colour(i, colour[i]);
    put_chunk(out, "PLTE", colour, sizeof colour);
    put_chunk(out, "tRNS", opaque, sizeof opaque);
}

/* zlib's form of deflate, in stored blocks. */
static void put_pixels(FILE *out, const uint8_t *line, size_t size)
{
    enum { BLOCK = 0xffff };
    char *data;
    size_t length;
    uint32_t a = 1, b = 0;
    FILE *stored = memory(&data, &length);
    fwrite("\x78\x01", 1, 2, stored);
    for (size_t at = 0; at < size; at += BLOCK) {
        size_t part = size - at < BLOCK ? size - at : BLOCK;
        fputc(at + part == size, stored);
        fputc((int)(part & 0xff), stored);
        fputc((int)(part >> 8), stored);
        fputc((int)(~part & 0xff), stored);
        fputc((int)(~part >> 8 & 0xff), stored);
        fwrite(line + at, 1, part, stored);
    }
    for (size_t i = 0; i < size; i++) { /* Adler-32 */
        a = (a + line[i]) % 65521;
        b = (b + a) % 65521;
    }
    put32(stored, b << 16 | a);
    memory_end(stored);
    put_chunk(out, "IDAT", data, length);
    free(data);
}

void png_write(FILE *out, const uint8_t *pixel, uint32_t width, uint32_t height)
{
    char *data;
    size_t size, row = (size_t)width + 1; /* a row begins with its filter: 0, none */
    uint8_t *line = xalloc(height, row);
    FILE *png = memory(&data, &size);
    for (uint32_t i = 0; i < height; i++)
        memcpy(line + i * row + 1, pixel + (size_t)i * width, width);
    fwrite("\x89PNG\r\n\x1a\n", 1, 8, png);
    put_header(png, width, height);
    put_palette(png);
    put_pixels(png, line, height * row);
    put_chunk(png, "IEND", "", 0);
    memory_end(png);
    fputs("data:image/png;base64,", out);
    put_base64(out, (uint8_t *)data, size);
    free(data);
    free(line);
}
