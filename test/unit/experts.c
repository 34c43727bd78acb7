/* Routed experts in NVFP4, by the forward pass and by plain loops: in the arithmetic of serving
 * engines, in the model's own, and in a calibration's. */
#include "forward/experts.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/die.h"
#include "expert_layer.h"
#include "on_device.h"
#include "tensor/bf16.h"

enum { EXPERTS = 3, USED = 2, DIM = 32, INNER = 48, ROWS = 9, BLOCK = 16, MOST = 48 };
static const double limit = 2; /* of the SwiGLU; some values are beyond it */

static struct device *device;

/* ---- a layer ---- */

/* One matrix: as stored, and as values. */
struct matrix {
    unsigned rows, cols;
    uint8_t code[MOST * MOST / 2], scale[MOST * MOST / BLOCK];
    float scale_2, input_scale;
    double value[MOST][MOST];
};

static struct {
    struct matrix matrix[EXPERTS][EXPERT_MATRICES];
    double x[ROWS][DIM];
    int32_t expert[ROWS][USED];
    float weight[ROWS][USED];
} layer;

static uint32_t seed;

static unsigned below(unsigned count)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % count;
}

static const double e2m1[] = {0, .5, 1, 1.5, 2, 3, 4, 6};

static void make_matrix(struct matrix *m, unsigned rows, unsigned cols)
{
    m->rows = rows;
    m->cols = cols;
    m->scale_2 = 0x1p-4F;
    for (unsigned i = 0; i < rows; i++)
        for (unsigned j = 0; j < cols; j++) {
            unsigned code = below(16), at = i * cols + j;
            if (j % BLOCK == 0)
                m->scale[at / BLOCK] = (uint8_t)(0x28 + 8 * below(4)); /* 0.25, 0.5, 1 or 2 */
            m->code[at / 2] |= (uint8_t)(code << 4 * (j % 2));
            m->value[i][j] = (code & 8 ? -1 : 1) * e2m1[code & 7] *
                             ldexp((double)m->scale_2, m->scale[at / BLOCK] / 8 - 7);
        }
}

/* Expert 1 has the largest input scales, and of its gate and up, up. */
static void make_layer(void)
{
    static const float scale[EXPERTS][EXPERT_MATRICES] = {{0x1p-11F, 0x1p-11F, 0x1p-12F},
                                                          {0x1.2p-9F, 0x1.6p-9F, 0x1.8p-10F},
                                                          {0x1p-12F, 0x1p-12F, 0x1p-11F}};
    memset(&layer, 0, sizeof layer);
    seed = 1;
    for (unsigned e = 0; e < EXPERTS; e++)
        for (unsigned i = 0; i < EXPERT_MATRICES; i++) {
            struct matrix *m = &layer.matrix[e][i];
            make_matrix(m, i == EXPERT_DOWN ? DIM : INNER, i == EXPERT_DOWN ? INNER : DIM);
            m->input_scale = scale[e][i];
        }
    for (unsigned i = 0; i < ROWS; i++) {
        for (unsigned j = 0; j < DIM; j++)
            layer.x[i][j] = ((double)below(256) - 128) / 64;
        for (unsigned k = 0; k < USED; k++) {
            layer.expert[i][k] = (int32_t)((i + k) % EXPERTS);
            layer.weight[i][k] = (float)(below(90) + 10) / 128;
        }
    }
}

/* ---- by plain loops ---- */

static double bf16(double value)
{
    return (double)bf16_to_f32(bf16_from_f32((float)value));
}

/* The nearest of the values of E2M1 or E4M3 that are not negative; ties to the even code. */
static double nearest(double x, bool e4m3)
{
    double found = 0;
    unsigned codes = e4m3 ? 0x7f : 8, best = 0;
    for (unsigned i = 0; i < codes; i++) {
        double fine = i < 8 ? ldexp(i, -9) : ldexp(8 + i % 8, (int)(i / 8) - 10);
        double value = e4m3 ? fine : e2m1[i], nearer = fabs(x - value) - fabs(x - found);
        if (nearer < 0 || (nearer == 0 && i % 2 == 0 && best % 2 == 1)) {
            found = value;
            best = i;
        }
    }
    return found;
}

/* NVFP4 and back. */
static void quantize(double *x, unsigned count, float scale_2)
{
    for (unsigned first = 0; first < count; first += BLOCK) {
        double amax = 0;
        for (unsigned j = first; j < first + BLOCK; j++)
            amax = fmax(amax, fabs(x[j]));
        float s = amax > 0 ? (float)amax / (6 * scale_2) : 1;
        float scale = (float)nearest(fmin(fmax((double)s, 0x1p-9), 448), true) * scale_2;
        for (unsigned j = first; j < first + BLOCK; j++)
            x[j] = copysign(bf16(nearest(fabs(x[j]) / (double)scale, false) * (double)scale), x[j]);
    }
}

static void multiply(double *y, const struct matrix *m, const double *x)
{
    for (unsigned i = 0; i < m->rows; i++) {
        y[i] = 0;
        for (unsigned j = 0; j < m->cols; j++)
            y[i] += m->value[i][j] * x[j];
        y[i] = bf16(y[i]);
    }
}

/* Under which scale an input is quantized. */
static float scale_of(unsigned expert, unsigned matrix, enum arithmetic arithmetic)
{
    float scale = layer.matrix[expert][matrix].input_scale;
    for (unsigned e = 0; e < EXPERTS && arithmetic == ARITHMETIC_ENGINE; e++)
        for (unsigned i = 0; i < EXPERT_MATRICES; i++)
            if ((i == EXPERT_DOWN) == (matrix == EXPERT_DOWN))
                scale = fmaxf(scale, layer.matrix[e][i].input_scale);
    return scale;
}

/* The largest magnitudes of w2's input, with the router's weight and without. */
static double most_weighted[EXPERTS], most_plain[EXPERTS];

/* y += expert e's output for x. */
static void run_expert(double *y, unsigned e, const double *x, double weight,
                       enum arithmetic arithmetic)
{
    const struct matrix *m = layer.matrix[e];
    double gate[INNER] = {0}, up[INNER] = {0}, a[2][DIM], out[DIM];
    for (unsigned i = 0; i < 2; i++) {
        memcpy(a[i], x, sizeof a[i]);
        if (arithmetic != ARITHMETIC_CALIBRATION)
            quantize(a[i], DIM, scale_of(e, i, arithmetic));
    }
    multiply(gate, &m[EXPERT_GATE], a[EXPERT_GATE]);
    multiply(up, &m[EXPERT_UP], a[EXPERT_UP]);
    for (unsigned j = 0; j < INNER; j++) {
        double g = fmin(gate[j], limit), u = fmin(fmax(up[j], -limit), limit);
        double plain = g / (1 + exp(-g)) * u;
        most_plain[e] = fmax(most_plain[e], fabs(bf16(plain)));
        most_weighted[e] = fmax(most_weighted[e], fabs(bf16(weight * plain)));
        gate[j] = bf16(arithmetic == ARITHMETIC_ENGINE ? plain : weight * plain);
    }
    if (arithmetic != ARITHMETIC_CALIBRATION)
        quantize(gate, INNER, scale_of(e, EXPERT_DOWN, arithmetic));
    multiply(out, &m[EXPERT_DOWN], gate);
    for (unsigned i = 0; i < DIM; i++)
        y[i] += arithmetic == ARITHMETIC_ENGINE ? bf16(weight * out[i]) : out[i];
}

static void run_plainly(double y[ROWS][DIM], enum arithmetic arithmetic)
{
    memset(y, 0, sizeof(double[ROWS][DIM]));
    memset(most_plain, 0, sizeof most_plain);
    memset(most_weighted, 0, sizeof most_weighted);
    for (unsigned i = 0; i < ROWS; i++)
        for (unsigned k = 0; k < USED; k++)
            run_expert(y[i], (unsigned)layer.expert[i][k], layer.x[i], (double)layer.weight[i][k],
                       arithmetic);
}

/* ---- by the forward pass ---- */

static void put_tensor(char **header, FILE *data, const char *name, const char *dtype,
                       const char *shape, const void *bytes, size_t size)
{
    long at = ftell(data);
    char *more = xprintf("%s%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%ld,%ld]}",
                         *header, **header ? "," : "{", name, dtype, shape, at, at + (long)size);
    assert_int_equal(fwrite(bytes, 1, size, data), size);
    free(*header);
    *header = more;
}

static void put_matrix(char **header, FILE *data, const char *module, const struct matrix *m)
{
    const struct {
        const char *suffix, *dtype;
        unsigned cols;
        const void *bytes;
    } part[] = {{"input_scale", "F32", 0, &m->input_scale},
                {"weight_scale", "F8_E4M3", m->cols / BLOCK, m->scale},
                {"weight_scale_2", "F32", 0, &m->scale_2},
                {"weight", "U8", m->cols / 2, m->code}};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        unsigned cols = part[i].cols;
        char *name = xprintf("%s.%s", module, part[i].suffix);
        char *shape = cols ? xprintf("[%u,%u]", m->rows, cols) : xstrdup("[]");
        put_tensor(header, data, name, part[i].dtype, shape, part[i].bytes,
                   cols ? (size_t)(m->rows * cols) : sizeof(float));
        free(name);
        free(shape);
    }
}

/* The layer as a file, which the caller removes. */
static char *write_layer(const struct layer *names)
{
    char *header = xstrdup(""), *path = xstrdup("/tmp/experts-XXXXXX.safetensors"), byte;
    FILE *data = tmpfile(), *file = fdopen(mkstemps(path, (int)strlen(".safetensors")), "wb");
    assert_non_null(data);
    assert_non_null(file);
    for (unsigned e = 0; e < EXPERTS; e++)
        for (unsigned i = 0; i < EXPERT_MATRICES; i++) {
            char *module = layer_expert_module(names, e, i);
            put_matrix(&header, data, module, &layer.matrix[e][i]);
            free(module);
        }
    uint64_t length = strlen(header) + 1;
    assert_int_equal(fwrite(&length, sizeof length, 1, file), 1);
    assert_true(fprintf(file, "%s}", header) > 0);
    rewind(data);
    while (fread(&byte, 1, 1, data))
        assert_int_equal(fputc(byte, file), (unsigned char)byte);
    assert_int_equal(fclose(data), 0);
    assert_int_equal(fclose(file), 0);
    free(header);
    return path;
}

static void run_forward(float y[ROWS][DIM], float seen[EXPERTS][EXPERT_MATRICES][SEEN],
                        enum arithmetic arithmetic)
{
    char prefix[] = "";
    uint16_t x[ROWS][DIM];
    struct layer names = {.prefix = prefix};
    names.experts = (struct expert_pieces){.count = EXPERTS,
                                           .used = USED,
                                           .name = "expert.",
                                           .matrix = {"a", "b", "c"}, /* the order in a file */
                                           .dim = DIM,
                                           .inner = INNER,
                                           .limit = (float)limit};
    for (unsigned i = 0; i < ROWS; i++)
        for (unsigned j = 0; j < DIM; j++)
            x[i][j] = bf16_from_f32((float)layer.x[i][j]);
    char *path = write_layer(&names);
    const struct expert_layer l = {.path = path,
                                   .pieces = names.experts,
                                   .dim = DIM,
                                   .rows = ROWS,
                                   .x = x[0],
                                   .expert = layer.expert[0],
                                   .weight = layer.weight[0]};
    expert_layer_run(&l, device, arithmetic, y[0], seen[0][0]);
    unlink(path);
    free(path);
}

/* ---- both ---- */

/* Squared error over squared size. Only a BF16 value on an edge may differ: exp() does. */
static double difference(double a[ROWS][DIM], float b[ROWS][DIM])
{
    double error = 0, size = 0;
    for (unsigned i = 0; i < ROWS; i++)
        for (unsigned j = 0; j < DIM; j++) {
            double d = a[i][j] - (double)b[i][j];
            error += d * d;
            size += a[i][j] * a[i][j];
        }
    return error / size;
}

static void as_by_plain_loops(void **state)
{
    (void)state;
    need_device(device);
    static const enum arithmetic all[] = {ARITHMETIC_ENGINE, ARITHMETIC_SERVED,
                                          ARITHMETIC_CALIBRATION};
    enum { COUNT = sizeof all / sizeof *all };
    static double want[COUNT][ROWS][DIM];
    float got[COUNT][ROWS][DIM], seen[EXPERTS][EXPERT_MATRICES][SEEN];
    make_layer();
    for (unsigned i = 0; i < COUNT; i++) {
        run_plainly(want[i], all[i]);
        run_forward(got[i], seen, all[i]);
    }
    for (unsigned i = 0; i < COUNT; i++)
        for (unsigned j = 0; j < COUNT; j++) {
            double error = difference(want[i], got[j]);
            print_message("%u as %u: %.2g\n", j, i, error);
            assert_true(i == j ? error <= 1e-6 : error >= 1e-3);
        }
    for (unsigned e = 0; e < EXPERTS; e++) { /* the last is a calibration */
        const float *down = seen[e][EXPERT_DOWN];
        assert_true(fabs((double)down[SEEN_INPUT] / most_weighted[e] - 1) <= 0x1p-7);
        assert_true(fabs((double)down[SEEN_UNWEIGHTED] / most_plain[e] - 1) <= 0x1p-7);
        assert_true(down[SEEN_UNWEIGHTED] > down[SEEN_INPUT]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_by_plain_loops)};
    return run_on_devices(&device, tests, NULL, NULL);
}
