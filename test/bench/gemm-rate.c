/* gemm-rate [-j N] [ROWS]: how fast the CPU device multiplies activations with a routed expert's
 * matrices of V4-Flash, beside one bare product of oneDNN of the same shape on as many threads.
 * Prints a line for each shape: rows, outputs, inputs, and GFLOP/s of both, of the best run. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <omp.h>

#include "base/die.h"
#include "base/number.h"
#include "base/progress.h"
#include "cpu/cpu.h"

/* Turns of both, in alternation, so that whatever else the machine does meets both. */
enum { TURNS = 7 };

struct shape {
    uint64_t rows, out, in;
};

/* Numbers of magnitude 1 or so. */
static uint16_t *numbers(uint64_t count)
{
    uint16_t *code = xaligned((size_t)count, sizeof *code);
    for (uint64_t i = 0; i < count; i++)
        code[i] = bf16_from_f32((float)(i * 2654435761U % 2001) / 1000 - 1);
    return code;
}

/* ---- ours ---- */

struct ours {
    struct device *device;
    struct operand *weight;
    struct mat x, y;
};

static void ours_begin(struct ours *o, unsigned threads, struct shape s, const uint16_t *a,
                       const uint16_t *b)
{
    struct device *d = o->device = device_cpu(threads);
    const struct weight weight = {.format = FORMAT_PLAIN, .rows = s.out, .cols = s.in};
    const struct tensor tensor = {.name = "w.weight",
                                  .size = s.out * s.in * sizeof *b,
                                  .dim = {s.out, s.in},
                                  .rank = 2,
                                  .dtype = DTYPE_BF16};
    const struct scales none = {0};
    struct mat amax = d->make(d, DTYPE_F32, 1, 1);
    struct mat bytes = d->make(d, DTYPE_U8, 1, tensor.size);
    d->write(d, bytes, b);
    o->weight = d->operand(d, &weight, &tensor, &none, bytes, bytes,
                           (struct operand_part){.rows = s.out}, amax);
    d->drop(d, bytes);
    d->drop(d, amax);
    o->x = d->make(d, DTYPE_BF16, s.rows, s.in);
    o->y = d->make(d, DTYPE_BF16, s.rows, s.out);
    d->write(d, o->x, a);
    /* Makes oneDNN's products, too: for one thread each, before bare_begin() wants all. */
    d->product(d, o->y, o->x, o->weight);
}

static void ours_end(struct ours *o)
{
    struct device *d = o->device;
    d->drop_operand(d, o->weight);
    d->drop(d, o->x);
    d->drop(d, o->y);
    d->close(d);
}

/* ---- oneDNN's ---- */

/* One product for all rows, which oneDNN divides among threads itself. */
struct bare {
    struct gemms *gemms;
    const struct gemm *gemm;
    void *a, *b;
    float *c;
};

static void bare_begin(struct bare *bare, unsigned threads, struct shape s, const uint16_t *a,
                       const uint16_t *b)
{
    enum gemm_type type = gemm_bf16() ? GEMM_BF16 : GEMM_F32;
    bare->gemms = gemms_new(1);
    omp_set_num_threads((int)threads);
    bare->gemm = gemm_get(bare->gemms, type, GEMM_PACKED, s.rows, s.out, s.in);
    void *plain = xaligned((size_t)(s.out * s.in), sizeof(float));
    bare->a = xaligned((size_t)(s.rows * s.in), sizeof(float));
    bare->b = xaligned(gemm_packed_size(bare->gemm), 1);
    bare->c = xaligned((size_t)(s.rows * s.out), sizeof *bare->c);
    cpu_fill(type, bare->a, 0, a, s.rows * s.in);
    cpu_fill(type, plain, 0, b, s.out * s.in);
    gemm_pack(bare->gemm, 0, plain, bare->b);
    free(plain);
}

static void bare_end(struct bare *bare)
{
    gemms_free(bare->gemms);
    free(bare->a);
    free(bare->b);
    free(bare->c);
}

/* ---- both ---- */

static void measure(unsigned threads, struct shape s)
{
    uint16_t *a = numbers(s.rows * s.in), *b = numbers(s.out * s.in);
    double ours_best = 1e30, bare_best = 1e30;
    struct ours ours;
    struct bare bare;
    ours_begin(&ours, threads, s, a, b);
    bare_begin(&bare, threads, s, a, b);
    for (int i = 0; i < TURNS; i++) {
        double start = now();
        ours.device->product(ours.device, ours.y, ours.x, ours.weight);
        double middle = now();
        gemm_run(bare.gemm, 0, bare.a, bare.b, bare.c);
        double end = now();
        ours_best = middle - start < ours_best ? middle - start : ours_best;
        bare_best = end - middle < bare_best ? end - middle : bare_best;
    }
    double operations = 2e-9 * (double)s.rows * (double)s.out * (double)s.in;
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %.1f %.1f\n", s.rows, s.out, s.in,
           operations / ours_best, operations / bare_best);
    ours_end(&ours);
    bare_end(&bare);
    free(a);
    free(b);
}

/* A number of its own, at least 1. */
static uint64_t number(const char *text)
{
    uint64_t value;
    if (!number_parse(&text, 1 << 20, &value) || *text || !value)
        die_usage("usage: gemm-rate [-j N] [ROWS]");
    return value;
}

int main(int argc, char **argv)
{
    enum { FLASH_DIM = 4096, FLASH_EXPERT = 2048 };
    uint64_t threads = (uint64_t)omp_get_num_procs(), rows = 1024;
    for (int letter; (letter = getopt(argc, argv, "j:")) != -1;)
        threads = number(letter == 'j' ? optarg : "");
    if (optind < argc)
        rows = number(argv[optind++]);
    if (optind < argc)
        number("");
    measure((unsigned)threads, (struct shape){rows, FLASH_EXPERT, FLASH_DIM}); /* w1, w3 */
    measure((unsigned)threads, (struct shape){rows, FLASH_DIM, FLASH_EXPERT}); /* w2 */
    return 0;
}
