#include "base/utf8.h"

#include <string.h>

#include "base/die.h"

static const char replacement[] = "\xef\xbf\xbd";

size_t utf8_step(const char *text, size_t left, bool *valid)
{
    const uint8_t *p = (const uint8_t *)text;
    uint8_t first = *p;
    *valid = first < 0x80;
    size_t more = first >= 0xf0 && first <= 0xf4   ? 3
                  : (first & 0xf0) == 0xe0         ? 2
                  : first >= 0xc2 && first <= 0xdf ? 1
                                                   : 0;
    /* the range of the second byte excludes overlong forms, surrogates and code points above
     * U+10FFFF */
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (!more)
        return 1;
    for (size_t i = 1; i <= more; i++, low = 0x80, high = 0xbf)
        if (i >= left || p[i] < low || p[i] > high)
            return i;
    *valid = true;
    return more + 1;
}

size_t utf8_valid(const char *text, size_t length)
{
    size_t at = 0;
    while (at < length) {
        uint64_t eight;
        if (length - at >= sizeof eight) {
            memcpy(&eight, text + at, sizeof eight);
            if (!(eight & 0x8080808080808080)) {
                at += sizeof eight;
                continue;
            }
        }
        bool valid;
        size_t size = utf8_step(text + at, length - at, &valid);
        if (!valid)
            break;
        at += size;
    }
    return at;
}

uint32_t utf8_decode(const char *text)
{
    const uint8_t *p = (const uint8_t *)text;
    if (p[0] < 0x80)
        return p[0];
    if (p[0] < 0xe0)
        return (p[0] & 0x1fU) << 6 | (p[1] & 0x3fU);
    if (p[0] < 0xf0)
        return (p[0] & 0x0fU) << 12 | (p[1] & 0x3fU) << 6 | (p[2] & 0x3fU);
    return (p[0] & 0x07U) << 18 | (p[1] & 0x3fU) << 12 | (p[2] & 0x3fU) << 6 | (p[3] & 0x3fU);
}

size_t utf8_put(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const uint8_t lead[4] = {0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(lead[more] | code >> 6 * more);
    for (size_t i = 1; i <= more; i++)
        out[i] = (char)(0x80 | (code >> 6 * (more - i) & 0x3f));
    return more + 1;
}

size_t utf8_repair(const char *text, size_t length, char **out)
{
    /* an ill-formed sequence has at least one byte, its replacement three */
    char *to = *out = xgrow(NULL, length + 1, sizeof replacement - 1);
    for (size_t at = 0; at < length;) {
        bool valid;
        size_t size = utf8_step(text + at, length - at, &valid);
        to = mempcpy(to, valid ? text + at : replacement, valid ? size : sizeof replacement - 1);
        at += size;
    }
    *to = 0;
    return (size_t)(to - *out);
}
