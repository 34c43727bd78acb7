/* cpu.h: internals that the files of the CPU device share. */
#ifndef DEVICE_CPU_H
#define DEVICE_CPU_H

#include "cpu/gemm.h"
#include "forward/device.h"
#include "tensor/bf16.h"

struct cpu {
    struct device device; /* first: a struct device * is a struct cpu *, too */
    unsigned threads;
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

/* Convert `count` BF16 elements to operand elements of `type`, from element `at` of `to` on. */
void cpu_fill(enum gemm_type type, void *to, uint64_t at, const uint16_t *from, uint64_t count);

/* Set a file's operations in the table. */
void cpu_rows(struct device *d);      /* rows.c */
void cpu_attention(struct device *d); /* attention.c */
void cpu_inputs(struct device *d);    /* inputs.c */

#endif
