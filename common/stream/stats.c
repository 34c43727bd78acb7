#include "stream/stats.h"

#include <math.h>
#include <string.h>

#include "base/die.h"
#include "base/vectors.h"
#include "stream/elements.h"
#include "tensor/bf16.h"

/* E4M3's smallest subnormal as a power of two; as many codes as have a sum in 32 bits of it. */
enum { E4M3_UNIT = -9, CODES_CHUNK = 1 << 13 };

enum { WIDE = 1024, CHUNK = 1 << 14, BYTES = 256, TABLES = 8, LANES = 8, INFINITE = 0x7f80 };

void stats_clear(struct stats *stats)
{
    *stats = (struct stats){.min = INFINITY, .max = -INFINITY};
}

static void widen(struct stats *stats, double least, double most)
{
    stats->min = least < stats->min ? least : stats->min;
    stats->max = most > stats->max ? most : stats->max;
}

void stats_join(struct stats *stats, const struct stats *other)
{
    stats->count += other->count;
    stats->zeros += other->zeros;
    stats->nan += other->nan;
    stats->infinite += other->infinite;
    widen(stats, other->min, other->max);
    stats->sum += other->sum;
    for (size_t i = 0; i < STATS_EXPONENTS; i++)
        stats->exponent[i] += other->exponent[i];
    for (size_t i = 0; i < STATS_CODES; i++)
        stats->code[i] += other->code[i];
}

static void add_exponent(struct stats *stats, double value, uint64_t times)
{
    if (value != 0 && isfinite(value))
        stats->exponent[ilogb(value) - STATS_EXPONENT_MIN] += times;
}

/* ---- any dtype ---- */

static void add_value(struct stats *stats, double value, uint64_t times)
{
    double x = value + 0.0; /* -0 becomes 0 */
    stats->zeros += x == 0 ? times : 0;
    stats->nan += isnan(x) ? times : 0;
    stats->infinite += isinf(x) ? times : 0;
    if (!isfinite(x))
        return;
    widen(stats, x, x);
    stats->sum += (double)times * x;
}

static void add_wide(struct stats *stats, enum dtype dtype, const char *data, size_t count,
                     bool exponents)
{
    double value[WIDE];
    for (size_t n; count; count -= n, data += n * dtype_size(dtype)) {
        n = (size_t)at_most(count, WIDE);
        elements_widen(dtype, data, n, value);
        for (size_t i = 0; i < n; i++) {
            add_value(stats, value[i], 1);
            if (exponents)
                add_exponent(stats, value[i], 1);
        }
    }
}

/* ---- bytes: counted by value ---- */

/* Uses several tables, so that equal consecutive bytes do not wait for each other. */
static void count_bytes(const uint8_t *byte, size_t count, uint64_t *times)
{
    uint64_t table[TABLES][BYTES] = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        uint64_t word;
        memcpy(&word, byte + i, sizeof word);
        for (size_t j = 0; j < LANES; j++)
            table[j % TABLES][word >> 8 * j & 0xff]++;
    }
    for (; i < count; i++)
        table[0][byte[i]]++;
    for (i = 0; i < BYTES; i++) {
        times[i] = 0;
        for (size_t j = 0; j < TABLES; j++)
            times[i] += table[j][i];
    }
}

static void add_bytes(struct stats *stats, enum dtype dtype, const uint8_t *data, size_t count,
                      enum stats_histogram histogram)
{
    uint64_t times[BYTES];
    count_bytes(data, count, times);
    for (unsigned code = 0; code < BYTES; code++) {
        if (!times[code])
            continue;
        double value = dtype_value(dtype, &(uint8_t){(uint8_t)code}, 0);
        add_value(stats, value, times[code]);
        if (histogram == STATS_BY_EXPONENT)
            add_exponent(stats, value, times[code]);
        if (histogram == STATS_BY_CODE) {
            stats->code[code & 15] += times[code];
            stats->code[code >> 4] += times[code];
        }
    }
}

/* ---- bytes without a histogram: their sums are exact, so their order does not matter ---- */

/* The bytes among at most CODES_MOST that are 0 but for other bits than `mask`; counts of every
 * STEP-th one fit a byte. */
enum { STEP = 64, CODES_MOST = STEP * UINT8_MAX };
INLINE uint64_t zeros_of(const uint8_t *code, size_t count, uint8_t mask)
{
    uint8_t lane[STEP] = {0};
    uint64_t zeros = 0;
    size_t i = 0;
    for (; i + STEP <= count; i += STEP)
        for (size_t j = 0; j < STEP; j++)
            lane[j] += (code[i + j] & mask) == 0;
    for (; i < count; i++)
        zeros += (code[i] & mask) == 0;
    for (size_t j = 0; j < STEP; j++)
        zeros += lane[j];
    return zeros;
}

/* At most CODES_MOST bytes. `flip` makes the order of I8 that of unsigned bytes; 0 for U8. */
VECTORS(void, add_integers, (struct stats * stats, const uint8_t *data, size_t count, uint8_t flip),
        (stats, data, count, flip))
{
    uint8_t least = UINT8_MAX, most = 0;
    uint32_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        uint8_t byte = data[i] ^ flip;
        least = byte < least ? byte : least;
        most = byte > most ? byte : most;
    }
    for (size_t i = 0; i < count; i++)
        sum += data[i] ^ flip;
    stats->zeros += zeros_of(data, count, UINT8_MAX);
    widen(stats, least - flip, most - flip);
    stats->sum += (double)sum - (double)flip * (double)count;
}

/* The sum of E4M3 numbers in units of the smallest subnormal. */
INLINE int32_t sum_e4m3(const uint8_t *code, size_t count)
{
    int32_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t exponent = code[i] >> 3 & 15, normal = exponent > 0;
        int32_t magnitude = ((code[i] & 7) | normal << 3) << (exponent - normal);
        sum += code[i] & 0x80 ? -magnitude : magnitude;
    }
    return sum;
}

static double e4m3_value(uint8_t code)
{
    return dtype_value(DTYPE_F8_E4M3, &code, 0) + 0.0;
}

/* False, and nothing added, if there is a NaN. */
VECTORS(bool, add_e4m3, (struct stats * stats, const uint8_t *code, size_t count),
        (stats, code, count))
{
    int8_t least = INT8_MAX, most = INT8_MIN;
    for (size_t i = 0; i < count; i++) {
        int8_t place = (int8_t)(code[i] & 0x80 ? code[i] ^ 0x7f : code[i]);
        least = (int8_t)(place < least ? place : least);
        most = (int8_t)(place > most ? place : most);
    }
    if (least == INT8_MIN || most == INT8_MAX) /* the NaN with and without a sign */
        return false;
    stats->zeros += zeros_of(code, count, 0x7f);
    widen(stats, e4m3_value((uint8_t)(least < 0 ? least ^ 0x7f : least)),
          e4m3_value((uint8_t)(most < 0 ? most ^ 0x7f : most)));
    stats->sum += ldexp(sum_e4m3(code, count), E4M3_UNIT);
    return true;
}

static void add_bytes_quickly(struct stats *stats, enum dtype dtype, const uint8_t *data,
                              size_t count)
{
    for (size_t n; count; count -= n, data += n) {
        n = (size_t)at_most(count, CODES_CHUNK);
        if (dtype != DTYPE_F8_E4M3)
            add_integers(stats, data, n, dtype == DTYPE_I8 ? 0x80 : 0);
        else if (!add_e4m3(stats, data, n))
            add_bytes(stats, dtype, data, n, STATS_NO_HISTOGRAM);
    }
}

/* ---- BF16, the result of dequantizing ---- */

static bool is_finite(uint16_t bits)
{
    return (bits & 0x7fff) < INFINITE;
}

/* Of at most CHUNK elements: counts fit 16 bits. */
INLINE void count_kinds(struct stats *stats, const uint16_t *bits, size_t count)
{
    uint16_t zeros = 0, nan = 0, infinite = 0;
    for (size_t i = 0; i < count; i++) {
        uint16_t magnitude = bits[i] & 0x7fff;
        zeros += magnitude == 0;
        nan += magnitude > INFINITE;
        infinite += magnitude == INFINITE;
    }
    stats->zeros += zeros;
    stats->nan += nan;
    stats->infinite += infinite;
}

/* BF16 bits as an integer of the same order, and back: negative ones are inverted. */
static int16_t ordered(uint16_t bits)
{
    int16_t x = (int16_t)bits;
    return (int16_t)(x < 0 ? x ^ 0x7fff : x);
}

static double value_of(int16_t place)
{
    return (double)bf16_to_f32((uint16_t)ordered((uint16_t)place)) + 0.0;
}

/* Widen the range by `count` finite elements. */
INLINE void find_ends(struct stats *stats, const uint16_t *bits, size_t count)
{
    int16_t least = INT16_MAX, most = INT16_MIN;
    for (size_t i = 0; i < count; i++) {
        int16_t place = ordered(bits[i]);
        least = (int16_t)(place < least ? place : least);
        most = (int16_t)(place > most ? place : most);
    }
    widen(stats, value_of(least), value_of(most));
}

/* In LANES partial sums, whatever the instruction set. */
INLINE double sum_of(const uint16_t *bits, size_t count)
{
    double lane[LANES] = {0}, value[WIDE], sum = 0;
    size_t n, tail = count % LANES;
    for (size_t done = 0; done < count - tail; done += n) {
        n = (size_t)at_most(count - tail - done, WIDE);
        for (size_t i = 0; i < n; i++) {
            uint16_t finite = (uint16_t)-is_finite(bits[done + i]);
            value[i] = (double)bf16_to_f32(bits[done + i] & finite);
        }
        for (size_t i = 0; i < n; i += LANES)
            for (size_t j = 0; j < LANES; j++)
                lane[j] += value[i + j];
    }
    for (size_t j = 0; j < LANES; j++)
        sum += lane[j];
    for (size_t i = count - tail; i < count; i++)
        sum += (double)bf16_to_f32(is_finite(bits[i]) ? bits[i] : 0);
    return sum;
}

/* Of at most CHUNK elements, `zeros` of which are 0. */
static void add_exponents(struct stats *stats, const uint16_t *bits, size_t count, uint64_t zeros)
{
    enum { BIAS = 127, NOT_FINITE = 255 };
    uint8_t exponent[CHUNK];
    uint64_t times[BYTES];
    for (size_t i = 0; i < count; i++)
        exponent[i] = (uint8_t)(bits[i] >> 7);
    count_bytes(exponent, count, times);
    for (int i = 1; i < NOT_FINITE; i++)
        stats->exponent[i - BIAS - STATS_EXPONENT_MIN] += times[i];
    for (size_t i = 0; i < count && times[0] > zeros; i++) /* there are subnormals */
        if (!exponent[i])
            add_exponent(stats, (double)bf16_to_f32(bits[i]), 1);
}

/* Range, kinds and sum of at most CHUNK elements. */
VECTORS(void, add_chunk, (struct stats * stats, const uint16_t *bits, size_t count),
        (stats, bits, count))
{
    uint64_t others = stats->nan + stats->infinite;
    count_kinds(stats, bits, count);
    stats->sum += sum_of(bits, count);
    if (stats->nan + stats->infinite == others)
        find_ends(stats, bits, count);
    else
        for (size_t i = 0; i < count; i++)
            if (is_finite(bits[i]))
                find_ends(stats, &bits[i], 1);
}

static void add_bf16(struct stats *stats, const uint16_t *bits, size_t count, bool exponents)
{
    for (size_t n; count; count -= n, bits += n) {
        uint64_t zeros = stats->zeros;
        n = (size_t)at_most(count, CHUNK);
        add_chunk(stats, bits, n);
        if (exponents)
            add_exponents(stats, bits, n, stats->zeros - zeros);
    }
}

/* ---- F32 without a histogram ---- */

/* The bits of F32 as an integer of the same order, and back. */
INLINE int32_t ordered_f32(int32_t bits)
{
    return bits < 0 ? bits ^ INT32_MAX : bits;
}

static double f32_of(int32_t place)
{
    int32_t bits = ordered_f32(place);
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value + 0.0;
}

/* False, and nothing added, if one of at most WIDE elements is not finite. */
VECTORS(bool, add_finite_f32, (struct stats * stats, const char *data, size_t count),
        (stats, data, count))
{
    const int32_t infinity = 0x7f800000;
    int32_t bits[WIDE], least = INT32_MAX, most = INT32_MIN, zeros = 0;
    float value[WIDE];
    double lane[LANES] = {0};
    memcpy(bits, data, count * sizeof *bits);
    memcpy(value, data, count * sizeof *value);
    for (size_t i = 0; i < count; i++) {
        int32_t place = ordered_f32(bits[i]);
        least = place < least ? place : least;
        most = place > most ? place : most;
        zeros += (bits[i] & INT32_MAX) == 0;
    }
    if (most >= infinity || least <= ordered_f32((int32_t)((uint32_t)infinity | 1U << 31)))
        return false;
    stats->zeros += (uint64_t)zeros;
    widen(stats, f32_of(least), f32_of(most));
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lane[j] += (double)value[i + j];
    for (; i < count; i++)
        lane[0] += (double)value[i];
    for (size_t j = 0; j < LANES; j++)
        stats->sum += lane[j];
    return true;
}

static void add_f32(struct stats *stats, const char *data, size_t count)
{
    for (size_t n; count; count -= n, data += n * sizeof(float)) {
        n = (size_t)at_most(count, WIDE);
        if (!add_finite_f32(stats, data, n))
            add_wide(stats, DTYPE_F32, data, n, false);
    }
}

/* Bytes for which add_bytes_quickly() is. */
static bool is_quick(enum dtype dtype)
{
    return dtype == DTYPE_I8 || dtype == DTYPE_U8 || dtype == DTYPE_F8_E4M3;
}

void stats_add(struct stats *stats, enum dtype dtype, const void *data, size_t count,
               enum stats_histogram histogram)
{
    stats->count += count;
    if (count && is_quick(dtype) && histogram == STATS_NO_HISTOGRAM && has_wide_vectors())
        add_bytes_quickly(stats, dtype, data, count);
    else if (dtype_size(dtype) == 1)
        add_bytes(stats, dtype, data, count, histogram);
    else if (dtype == DTYPE_BF16)
        add_bf16(stats, data, count, histogram != STATS_NO_HISTOGRAM);
    else if (dtype == DTYPE_F32 && histogram == STATS_NO_HISTOGRAM)
        add_f32(stats, data, count);
    else
        add_wide(stats, dtype, data, count, histogram != STATS_NO_HISTOGRAM);
}
