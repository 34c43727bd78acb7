/* cpu.h: internals that the files of the CPU device share. */
#ifndef DEVICE_CPU_H
#define DEVICE_CPU_H

#include "base/blocks.h"
#include "base/parallel.h"
#include "base/vectors.h"
#include "cpu/gemm.h"
#include "forward/device.h"
#include "tensor/bf16.h"

struct cpu {
    struct device device; /* first: a struct device * is a struct cpu *, too */
    struct parallel *threads;
    unsigned thread_count;
    struct blocks *blocks;
    struct gemms *gemms;
    enum gemm_type type; /* type in which BF16 operands are multiplied */
};

static inline struct cpu *cpu_of(struct device *d)
{
    return (struct cpu *)d;
}

static inline uint16_t *bf16_row(struct mat m, uint64_t i)
{
    return (uint16_t *)m.at + i * m.stride;
}

static inline float *f32_row(struct mat m, uint64_t i)
{
    return (float *)m.at + i * m.stride;
}

static inline int32_t *i32_row(struct mat m, uint64_t i)
{
    return (int32_t *)m.at + i * m.stride;
}

/* One step in BF16: the value rounded. */
INLINE float to_bf16(float value)
{
    return bf16_to_f32(bf16_from_f32(value));
}

/* The grain for parallel_for() of rows worth `elements` elements each: together they take some
 * microseconds. */
static inline uint64_t cpu_grain(uint64_t elements)
{
    enum { WORTH = 4096 };
    return elements < WORTH ? WORTH / (elements + 1) + 1 : 1;
}

/* Convert `count` BF16 elements to operand elements of `type`, from element `at` of `to` on. */
void cpu_fill(enum gemm_type type, void *to, uint64_t at, const uint16_t *from, uint64_t count);

/* The n <= count largest of count numbers, in order, ties to the first. */
void cpu_largest(const float *x, uint64_t count, int32_t *index, uint64_t n);

/* The largest magnitudes of x, if `seen` is given. */
static inline void cpu_see(struct device *d, struct mat seen, struct mat x)
{
    if (seen.rows)
        d->max_abs(d, seen, x);
}

/* Set a file's operations in the table. */
void cpu_rows(struct device *d);
void cpu_norms(struct device *d);
void cpu_rotations(struct device *d);
void cpu_swiglu(struct device *d);
void cpu_hyper_connections(struct device *d);
void cpu_routing(struct device *d);
void cpu_losses(struct device *d);
void cpu_attention(struct device *d);
void cpu_causal(struct device *d);
void cpu_inputs(struct device *d);

#endif
