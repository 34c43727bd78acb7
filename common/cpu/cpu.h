/* cpu.h: what the files of the CPU device share (device_cpu*.c); nobody else looks here. */
#ifndef DEVICE_CPU_H
#define DEVICE_CPU_H

#include "cpu/gemm.h"
#include "forward/device.h"
#include "tensor/bf16.h"

struct cpu {
    struct device device; /* first: a struct device * is a struct cpu *, too */
    unsigned threads;
    struct gemms *gemms;
    enum gemm_type type; /* what BF16 operands are multiplied in */
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

/* count elements of BF16 as operands of a product in `type`, at most. */
void cpu_fill(enum gemm_type type, void *to, uint64_t at, const uint16_t *from, uint64_t count);

/* Put the operations of a file into the table. */
void cpu_rows(struct device *d);      /* rows.c */
void cpu_attention(struct device *d); /* attention.c */

#endif
