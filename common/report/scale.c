#include "report/scale.h"

#include <math.h>
#include <stdio.h>

struct scale scale_of(double low, double high, bool logarithmic)
{
    struct scale scale = {logarithmic ? low : 0, high, logarithmic};
    if (logarithmic && !(low > 0))
        scale.low = high > 0 ? high / 10 : 0.1;
    if (!(scale.high > scale.low))
        scale.high = scale.low > 0 ? 2 * scale.low : 1;
    return scale;
}

double scale_part(const struct scale *scale, double value)
{
    double part = scale->logarithmic ? log(value / scale->low) / log(scale->high / scale->low)
                                     : (value - scale->low) / (scale->high - scale->low);
    return fmin(1, fmax(0, part));
}

/* Multiples of a power of ten within a scale: all of `digit`, which ends with 0. */
static size_t ticks_of(const struct scale *scale, const int *digit, double tick[SCALE_TICKS])
{
    size_t count = 0;
    int first = (int)floor(log10(scale->low)), last = (int)ceil(log10(scale->high));
    for (int power = first; power <= last; power++)
        for (const int *d = digit; *d; d++) {
            double value = *d * pow(10, power);
            if (value < scale->low * (1 - 1e-9) || value > scale->high * (1 + 1e-9))
                continue;
            if (count < SCALE_TICKS)
                tick[count] = value;
            count++;
        }
    return count;
}

/* Multiples of a step of 1, 2 or 5 times a power of ten, of which three to seven fit. */
static size_t even_ticks(const struct scale *scale, double tick[SCALE_TICKS])
{
    double range = scale->high - scale->low, step = pow(10, floor(log10(range)));
    size_t count = 0;
    if (range / step < 3)
        step /= range / step < 1.5 ? 5 : 2;
    else if (range / step > 6)
        step *= 2;
    double first = fmax(0, ceil(scale->low / step - 1e-9));
    while (count < SCALE_TICKS && (first + (double)count) * step <= scale->high * (1 + 1e-9)) {
        tick[count] = (first + (double)count) * step;
        count++;
    }
    return count;
}

size_t scale_ticks(const struct scale *scale, double tick[SCALE_TICKS])
{
    static const int some[] = {1, 2, 5, 0}, few[] = {1, 0};
    if (!scale->logarithmic || scale->high < 4 * scale->low)
        return even_ticks(scale, tick);
    size_t count = ticks_of(scale, some, tick);
    if (count > 8)
        count = ticks_of(scale, few, tick);
    return count < SCALE_TICKS ? count : SCALE_TICKS; /* the lowest ones, if there are more */
}

char *number_text(double number, char text[NUMBER_TEXT])
{
    static const char *const unit[] = {"", "k", "M", "G", "T"};
    size_t i = 0;
    for (; number >= (i ? 1000 : 10000) && i < sizeof unit / sizeof *unit - 1; i++)
        number /= 1000;
    snprintf(text, NUMBER_TEXT, number >= 1000 && number < 1e15 ? "%.0f%s" : "%.3g%s", number,
             unit[i]);
    return text;
}
