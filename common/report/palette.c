#include "report/palette.h"

#include <math.h>

/* In Oklab (Ottosson, 2020), the distance of two colours is how different they look. So a straight
 * line in it is an even scale. This one has lightness L and goes from blue to yellow (b) without
 * green or red (a = 0): both are what people see who lack red or green receptors; to those who lack
 * blue ones, the lightness remains. The ends are as far apart as sRGB has all colours between. */
static const double low_l = 0.25, high_l = 0.88, low_b = -0.11, high_b = 0.15;

/* Of all colours tried, magenta is the furthest from the scale to any of these people: at least 18
 * of its hundredths in Oklab, by Machado's simulation (2009); red is 6. */
static const uint8_t mark[3] = {255, 0, 255};

static uint8_t to_srgb(double linear)
{
    double x = linear <= 0.0031308 ? 12.92 * linear : 1.055 * pow(linear, 1 / 2.4) - 0.055;
    return (uint8_t)lround(255 * fmin(1, fmax(0, x)));
}

void palette_colour(unsigned index, uint8_t rgb[3])
{
    double part = index / (PALETTE_STEPS - 1.0);
    double lightness = low_l + (high_l - low_l) * part, b = low_b + (high_b - low_b) * part;
    double l = pow(lightness + 0.2158037573 * b, 3), m = pow(lightness - 0.0638541728 * b, 3),
           s = pow(lightness - 1.2914855480 * b, 3);
    rgb[0] = to_srgb(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s);
    rgb[1] = to_srgb(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s);
    rgb[2] = to_srgb(-0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s);
    for (unsigned i = 0; i < 3 && index >= PALETTE_STEPS; i++)
        rgb[i] = mark[i];
}

unsigned palette_step(double part)
{
    return (unsigned)lround((PALETTE_STEPS - 1) * fmin(1, fmax(0, part)));
}
