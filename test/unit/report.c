/* The parts of a report that can be checked by numbers: escaping, colours, pictures, axes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "report/html.h"
#include "report/palette.h"
#include "report/png.h"
#include "report/scale.h"

/* ---- escaping ---- */

static void expect_html(const char *text, size_t length, const char *wanted)
{
    char *got;
    size_t size;
    FILE *out = open_memstream(&got, &size);
    html_text(out, text, length);
    fclose(out);
    assert_string_equal(got, wanted);
    free(got);
}

static void text_is_escaped(void **state)
{
    (void)state;
    static const struct {
        const char *text, *wanted;
    } cases[] = {
        {"plain text, Ü, 語", "plain text, Ü, 語"},
        {"<script>alert('1')</script>", "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"},
        {"\" onload=\"x&", "&quot; onload=&quot;x&amp;"},
        {"a\nb\tc", "a\nb\tc"},
        {"\x1b[31m\r\x7f", "\xEF\xBF\xBD[31m\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xe2\x80\xaegnp\xe2\x80\xac.exe",
         "\xEF\xBF\xBDgnp\xEF\xBF\xBD.exe"}, /* right-to-left override */
        {"\xff<\xc3", "\xEF\xBF\xBD&lt;\xEF\xBF\xBD"},
        {"\xc0\xbcscript>", "\xEF\xBF\xBD\xEF\xBF\xBDscript&gt;"}, /* an overlong '<' */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_html(cases[i].text, strlen(cases[i].text), cases[i].wanted);
    expect_html("a\0b", 3,
                "a\xEF\xBF\xBD"
                "b");
}

/* ---- colours ---- */

static double linear(uint8_t channel)
{
    double x = channel / 255.0;
    return x <= 0.04045 ? x / 12.92 : pow((x + 0.055) / 1.055, 2.4);
}

/* A colour in Oklab, as somebody sees it: by one of Machado's matrices (2009). */
static void seen(unsigned index, const double by[3][3], double lab[3])
{
    static const double lms[3][3] = {{0.4122214708, 0.5363325363, 0.0514459929},
                                     {0.2119034982, 0.6806995451, 0.1073969566},
                                     {0.0883024619, 0.2817188376, 0.6299787005}};
    static const double to_lab[3][3] = {{0.2104542553, 0.7936177850, -0.0040720468},
                                        {1.9779984951, -2.4285922050, 0.4505937099},
                                        {0.0259040371, 0.7827717662, -0.8086757660}};
    uint8_t rgb[3];
    double light[3] = {0}, cone[3] = {0};
    palette_colour(index, rgb);
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++)
            light[i] += by[i][j] * linear(rgb[j]);
        light[i] = fmin(1, fmax(0, light[i]));
    }
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++)
            cone[i] += lms[i][j] * light[j];
        cone[i] = cbrt(cone[i]);
    }
    for (int i = 0; i < 3; i++) {
        lab[i] = 0;
        for (int j = 0; j < 3; j++)
            lab[i] += to_lab[i][j] * cone[j];
    }
}

static double distance(unsigned a, unsigned b, const double by[3][3])
{
    double x[3], y[3];
    seen(a, by, x);
    seen(b, by, y);
    return sqrt(pow(x[0] - y[0], 2) + pow(x[1] - y[1], 2) + pow(x[2] - y[2], 2));
}

/* To people with all receptors, and without red, green or blue ones: each step of the scale is
 * seen, as large as any other but for rounding to 8 bits, or up to twice for lack of receptors; and
 * the mark is like none of its colours. */
static void everybody_sees_the_scale_and_the_mark(void **state)
{
    (void)state;
    static const double sight[][3][3] = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
                                         {{0.152286, 1.052583, -0.204868},
                                          {0.114503, 0.786281, 0.099216},
                                          {-0.003882, -0.048116, 1.051998}},
                                         {{0.367322, 0.860646, -0.227968},
                                          {0.280085, 0.672501, 0.047413},
                                          {-0.011820, 0.042940, 0.968881}},
                                         {{1.255528, -0.076749, -0.178779},
                                          {-0.078411, 0.930809, 0.147602},
                                          {0.004733, 0.691367, 0.303900}}};
    enum { STEPS = 14, STEP = (PALETTE_STEPS - 1) / STEPS };
    for (size_t i = 0; i < sizeof sight / sizeof *sight; i++) {
        double least = 1, most = 0;
        for (unsigned j = 0; j < STEPS; j++) {
            double step = distance(j * STEP, (j + 1) * STEP, sight[i]);
            least = fmin(least, step);
            most = fmax(most, step);
        }
        assert_true(least > 0.02);
        assert_true(most / least < (i == 0 ? 1.25 : 2.2));
        for (unsigned j = 0; j < PALETTE_STEPS; j++)
            assert_true(distance(j, PALETTE_MARK, sight[i]) > 0.17);
    }
}

/* ---- pictures ---- */

/* Two rows of three pixels, which another program reads as the colours of the palette. */
static void a_picture_has_its_bytes(void **state)
{
    (void)state;
    static const uint8_t pixel[] = {0, 126, 252, PALETTE_MARK, PALETTE_NONE, 1};
    char *got;
    size_t size;
    FILE *out = open_memstream(&got, &size);
    png_write(out, pixel, 3, 2);
    fclose(out);
    static const char begins[] =
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAMAAACqqpYo";
    assert_memory_equal(got, begins, sizeof begins - 1);
    static const char ends[] = "AAAAE0lEQVR4AQEIAPf/AAB+/AD9/gEM3AN3dQplDgAAAABJRU5ErkJggg==";
    assert_string_equal(got + size - (sizeof ends - 1), ends);
    free(got);
}

/* ---- axes ---- */

static void expect_ticks(double low, double high, bool logarithmic, const double *wanted)
{
    struct scale scale = scale_of(low, high, logarithmic);
    double tick[SCALE_TICKS];
    size_t count = scale_ticks(&scale, tick), i;
    for (i = 0; wanted[i] >= 0; i++) {
        assert_true(i < count);
        assert_true(fabs(tick[i] - wanted[i]) < 1e-9 * fmax(1, wanted[i]));
    }
    assert_int_equal(i, count);
}

static void ticks_are_round(void **state)
{
    (void)state;
    expect_ticks(0.5, 60, true, (const double[]){0.5, 1, 2, 5, 10, 20, 50, -1});
    expect_ticks(3, 6, true, (const double[]){3, 4, 5, 6, -1});
    expect_ticks(1e-6, 1e3, true,
                 (const double[]){1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100, 1000, -1});
    expect_ticks(7, 9.5, false, (const double[]){0, 2, 4, 6, 8, -1});
    for (int power = -300; power < 300; power += 50) { /* whatever the values are */
        double tick[SCALE_TICKS];
        struct scale odd[] = {scale_of(0, 0, true), scale_of(0, pow(10, power), true),
                              scale_of(pow(10, power), pow(10, power), true),
                              scale_of(pow(10, power), 1e300, true),
                              scale_of(0, pow(10, power), false)};
        for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
            assert_in_range(scale_ticks(&odd[i], tick), 1, SCALE_TICKS);
    }
}

static void parts_lie_within(void **state)
{
    (void)state;
    struct scale scale = scale_of(1, 100, true);
    assert_true(fabs(scale_part(&scale, 10) - 0.5) < 1e-12);
    assert_true(scale_part(&scale, 0) == 0 && scale_part(&scale, 1e9) == 1);
}

static void numbers_are_short(void **state)
{
    (void)state;
    static const struct {
        double number;
        const char *wanted;
    } cases[] = {{0, "0"},         {0.00133, "0.00133"}, {12.5, "12.5"},    {1186, "1186"},
                 {12345, "12.3k"}, {2.5e6, "2.5M"},      {9999.6, "10000"}, {1e300, "1e+288T"}};
    char text[NUMBER_TEXT];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(number_text(cases[i].number, text), cases[i].wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_escaped),
        cmocka_unit_test(everybody_sees_the_scale_and_the_mark),
        cmocka_unit_test(a_picture_has_its_bytes),
        cmocka_unit_test(ticks_are_round),
        cmocka_unit_test(parts_lie_within),
        cmocka_unit_test(numbers_are_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
