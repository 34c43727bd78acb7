#include "cpu/gemm.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "base/die.h"
#include "base/progress.h"

/* A layout is an opaque object since oneDNN 3, a structure before. */
#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t layout_t;
typedef const_dnnl_memory_desc_t seen_layout_t;
#else
typedef dnnl_memory_desc_t *layout_t;
typedef const dnnl_memory_desc_t *seen_layout_t;
#endif

/* A growing buffer. */
struct buffer {
    void *at;
    size_t size;
};

/* A thread's scratch memory. */
struct room {
    dnnl_stream_t stream;
    double seconds;                    /* in gemm_run() */
    struct buffer scratch, block, sum; /* block, sum: [m, n] F32 and double, for GEMM_F32_BLOCKS */
};

/* oneDNN's product of `k` columns of A and `k` rows of B. */
struct part {
    uint64_t k;
    dnnl_primitive_desc_t form, pack_form; /* pack_form and pack: GEMM_PACKED only */
    dnnl_primitive_t product, pack;
};

struct gemm {
    struct gemms *gemms;
    enum gemm_type type;
    enum gemm_right right;
    uint64_t m, n, k;
    uint64_t parts;
    struct part full, last; /* all parts but the last are the same; full: if there are several */
};

struct gemms {
    dnnl_engine_t engine;
    dnnl_primitive_attr_t attributes;
    struct room *room;
    unsigned threads;
    struct gemm **gemm;
    size_t count;
};

static void check(dnnl_status_t status, const char *what)
{
    if (status == dnnl_out_of_memory)
        die("oneDNN: %s: out of memory", what);
    if (status != dnnl_success)
        die("oneDNN: %s: error %d; is the library damaged?", what, (int)status);
}

/* ---- what oneDNN 2 and 3 call differently ---- */

/* [rows, cols]; with strides of 0, in the product's preferred layout. */
static layout_t layout_new(enum gemm_type type, uint64_t rows, uint64_t cols, uint64_t row_stride,
                           uint64_t col_stride)
{
    dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)cols};
    dnnl_dims_t strides = {(dnnl_dim_t)row_stride, (dnnl_dim_t)col_stride};
    dnnl_data_type_t data_type = type == GEMM_BF16 ? dnnl_bf16 : dnnl_f32;
    layout_t layout;
#if DNNL_VERSION_MAJOR >= 3
    check(row_stride
              ? dnnl_memory_desc_create_with_strides(&layout, 2, dims, data_type, strides)
              : dnnl_memory_desc_create_with_tag(&layout, 2, dims, data_type, dnnl_format_tag_any),
          "layout");
#else
    layout = xalloc(1, sizeof *layout);
    check(row_stride
              ? dnnl_memory_desc_init_by_strides(layout, 2, dims, data_type, strides)
              : dnnl_memory_desc_init_by_tag(layout, 2, dims, data_type, dnnl_format_tag_any),
          "layout");
#endif
    return layout;
}

static void layout_free(layout_t layout)
{
#if DNNL_VERSION_MAJOR >= 3
    dnnl_memory_desc_destroy(layout);
#else
    free(layout);
#endif
}

static dnnl_primitive_desc_t product_form(struct gemms *gemms, layout_t a, layout_t b, layout_t c)
{
    dnnl_primitive_desc_t form;
#if DNNL_VERSION_MAJOR >= 3
    check(dnnl_matmul_primitive_desc_create(&form, gemms->engine, a, b, NULL, c, gemms->attributes),
          "product");
#else
    dnnl_matmul_desc_t operation;
    check(dnnl_matmul_desc_init(&operation, a, b, NULL, c), "product");
    check(dnnl_primitive_desc_create(&form, &operation, gemms->attributes, gemms->engine, NULL),
          "product");
#endif
    return form;
}

bool gemm_bf16(void)
{
    /* In both versions, newer instruction sets have greater numbers, or contain the bits of older
     * ones. */
    unsigned have = (unsigned)dnnl_get_effective_cpu_isa(), need = dnnl_cpu_isa_avx512_core_bf16;
    return (have & need) == need;
}

/* ---- one process's products ---- */

struct gemms *gemms_new(unsigned threads)
{
    struct gemms *gemms = xalloc(1, sizeof *gemms);
    dnnl_set_verbose(0); /* it would print on standard output, whatever $ONEDNN_VERBOSE says */
    check(dnnl_engine_create(&gemms->engine, dnnl_cpu, 0), "engine");
    check(dnnl_primitive_attr_create(&gemms->attributes), "attributes");
    /* Scratch memory of our own: one product may run on several threads at a time. */
    check(dnnl_primitive_attr_set_scratchpad_mode(gemms->attributes, dnnl_scratchpad_mode_user),
          "attributes");
    gemms->threads = threads;
    gemms->room = xalloc(threads, sizeof *gemms->room);
    for (unsigned i = 0; i < threads; i++)
        check(dnnl_stream_create(&gemms->room[i].stream, gemms->engine, dnnl_stream_default_flags),
              "stream");
    return gemms;
}

static void part_free(struct part *part)
{
    dnnl_primitive_destroy(part->product);
    dnnl_primitive_desc_destroy(part->form);
    if (part->pack) {
        dnnl_primitive_destroy(part->pack);
        dnnl_primitive_desc_destroy(part->pack_form);
    }
}

static void gemm_free(struct gemm *gemm)
{
    part_free(&gemm->last);
    if (gemm->parts > 1)
        part_free(&gemm->full);
    free(gemm);
}

void gemms_free(struct gemms *gemms)
{
    for (size_t i = 0; i < gemms->count; i++)
        gemm_free(gemms->gemm[i]);
    for (unsigned i = 0; i < gemms->threads; i++) {
        dnnl_stream_destroy(gemms->room[i].stream);
        free(gemms->room[i].scratch.at);
        free(gemms->room[i].block.at);
        free(gemms->room[i].sum.at);
    }
    dnnl_primitive_attr_destroy(gemms->attributes);
    dnnl_engine_destroy(gemms->engine);
    free(gemms->gemm);
    free(gemms->room);
    free(gemms);
}

static seen_layout_t layout_of(dnnl_primitive_desc_t form, dnnl_query_t which)
{
    return dnnl_primitive_desc_query_md(form, which, 0);
}

/* A part of k columns; A's rows, and those of a B in [n, k], are as long as the whole product's. */
static void part_make(const struct gemm *gemm, struct part *part, uint64_t k)
{
    struct gemms *gemms = gemm->gemms;
    uint64_t m = gemm->m, n = gemm->n;
    part->k = k;
    layout_t a = layout_new(gemm->type, m, k, gemm->k, 1), c = layout_new(GEMM_F32, m, n, n, 1);
    layout_t rows = layout_new(gemm->type, k, n, 1, gemm->k); /* B in [n, k] */
    layout_t b = gemm->right == GEMM_TRANSPOSED ? rows
                 : gemm->right == GEMM_PLAIN    ? layout_new(gemm->type, k, n, n, 1)
                                                : layout_new(gemm->type, k, n, 0, 0);
    part->form = product_form(gemms, a, b, c);
    check(dnnl_primitive_create(&part->product, part->form), "product");
    if (gemm->right == GEMM_PACKED) {
        check(dnnl_reorder_primitive_desc_create(&part->pack_form, rows, gemms->engine,
                                                 layout_of(part->form, dnnl_query_weights_md),
                                                 gemms->engine, gemms->attributes),
              "packing");
        check(dnnl_primitive_create(&part->pack, part->pack_form), "packing");
    }
    layout_free(a);
    layout_free(c);
    if (b != rows)
        layout_free(b);
    layout_free(rows);
}

static struct gemm *gemm_new(struct gemms *gemms, enum gemm_type type, enum gemm_right right,
                             uint64_t m, uint64_t n, uint64_t k)
{
    struct gemm *gemm = xalloc(1, sizeof *gemm);
    omp_set_num_threads(1); /* see execute() */
    uint64_t block = type == GEMM_F32_BLOCKS && k > GEMM_BLOCK ? GEMM_BLOCK : k;
    *gemm = (struct gemm){.gemms = gemms, .type = type, .right = right, .m = m, .n = n, .k = k};
    gemm->parts = (k + block - 1) / block;
    if (gemm->parts > 1)
        part_make(gemm, &gemm->full, block);
    part_make(gemm, &gemm->last, k - (gemm->parts - 1) * block);
    return gemm;
}

const struct gemm *gemm_get(struct gemms *gemms, enum gemm_type type, enum gemm_right right,
                            uint64_t m, uint64_t n, uint64_t k)
{
    for (size_t i = 0; i < gemms->count; i++) {
        const struct gemm *gemm = gemms->gemm[i];
        if (gemm->type == type && gemm->right == right && gemm->m == m && gemm->n == n &&
            gemm->k == k)
            return gemm;
    }
    gemms->gemm = xgrow(gemms->gemm, gemms->count + 1, sizeof(struct gemm *));
    return gemms->gemm[gemms->count++] = gemm_new(gemms, type, right, m, n, k);
}

static const struct part *part_of(const struct gemm *gemm, uint64_t i)
{
    return i + 1 < gemm->parts ? &gemm->full : &gemm->last;
}

static size_t packed_size(const struct part *part)
{
    return dnnl_memory_desc_get_size(layout_of(part->form, dnnl_query_weights_md));
}

/* Where a part's B begins if it is packed: every part by itself. */
static size_t packed_at(const struct gemm *gemm, uint64_t i)
{
    return i ? (size_t)i * packed_size(&gemm->full) : 0;
}

size_t gemm_packed_size(const struct gemm *gemm)
{
    return packed_at(gemm, gemm->parts - 1) + packed_size(&gemm->last);
}

/* ---- running ---- */

enum { OPERANDS_MAX = 4 };

/* The operands of one run. */
struct run {
    struct gemms *gemms;
    struct room *room;
    dnnl_exec_arg_t operand[OPERANDS_MAX];
    int operands;
};

static void add(struct run *run, int which, seen_layout_t layout, const void *data)
{
    dnnl_exec_arg_t *operand = &run->operand[run->operands++];
    operand->arg = which;
    check(dnnl_memory_create(&operand->memory, layout, run->gemms->engine, (void *)data),
          "operand");
}

/* At least `size` uninitialized bytes. */
static void *grown(struct buffer *buffer, uint64_t count, size_t size)
{
    if (!buffer->at || count * size > buffer->size) {
        free(buffer->at);
        buffer->at = xaligned((size_t)count, size);
        buffer->size = (size_t)count * size;
    }
    return buffer->at;
}

/* With the scratch memory that `form` wants as the last operand. On this thread alone: oneDNN asks
 * OpenMP how many to use, and what OpenMP answers is set for each thread. */
static void execute(struct run *run, dnnl_primitive_desc_t form, dnnl_primitive_t primitive)
{
    omp_set_num_threads(1);
    seen_layout_t scratch = layout_of(form, dnnl_query_scratchpad_md);
    struct room *room = run->room;
    size_t size = scratch ? dnnl_memory_desc_get_size(scratch) : 0;
    if (size)
        add(run, DNNL_ARG_SCRATCHPAD, scratch, grown(&room->scratch, size, 1));
    check(dnnl_primitive_execute(primitive, room->stream, run->operands, run->operand), "run");
    check(dnnl_stream_wait(room->stream), "run");
    for (int i = 0; i < run->operands; i++)
        dnnl_memory_destroy(run->operand[i].memory);
}

static void pack_part(const struct gemm *gemm, const struct part *part, unsigned thread,
                      const void *b, void *packed)
{
    struct run run = {.gemms = gemm->gemms, .room = &gemm->gemms->room[thread]};
    add(&run, DNNL_ARG_FROM, layout_of(part->pack_form, dnnl_query_src_md), b);
    add(&run, DNNL_ARG_TO, layout_of(part->pack_form, dnnl_query_dst_md), packed);
    execute(&run, part->pack_form, part->pack);
}

static void run_part(const struct gemm *gemm, const struct part *part, unsigned thread,
                     const void *a, const void *b, float *c)
{
    struct run run = {.gemms = gemm->gemms, .room = &gemm->gemms->room[thread]};
    add(&run, DNNL_ARG_SRC, layout_of(part->form, dnnl_query_src_md), a);
    add(&run, DNNL_ARG_WEIGHTS, layout_of(part->form, dnnl_query_weights_md), b);
    add(&run, DNNL_ARG_DST, layout_of(part->form, dnnl_query_dst_md), c);
    execute(&run, part->form, part->product);
}

void gemm_pack(const struct gemm *gemm, unsigned thread, const void *b, void *packed)
{
    const float *from = b;
    pack_part(gemm, part_of(gemm, 0), thread, b, packed);
    for (uint64_t i = 1; i < gemm->parts; i++)
        pack_part(gemm, part_of(gemm, i), thread, from + i * gemm->full.k,
                  (char *)packed + packed_at(gemm, i));
}

/* Where a part's B begins, in a product of several. */
static const void *part_right(const struct gemm *gemm, const void *b, uint64_t i)
{
    switch (gemm->right) {
    case GEMM_PLAIN:
        return (const float *)b + i * gemm->full.k * gemm->n;
    case GEMM_TRANSPOSED:
        return (const float *)b + i * gemm->full.k;
    case GEMM_PACKED:
        break;
    }
    return (const char *)b + packed_at(gemm, i);
}

/* Parts are summed in double, and rounded once. */
static void run_parts(const struct gemm *gemm, unsigned thread, const float *a, const void *b,
                      float *c)
{
    struct room *room = &gemm->gemms->room[thread];
    uint64_t count = gemm->m * gemm->n;
    float *block = grown(&room->block, count, sizeof *block);
    double *sum = grown(&room->sum, count, sizeof *sum);
    memset(sum, 0, (size_t)count * sizeof *sum);
    for (uint64_t i = 0; i < gemm->parts; i++) {
        run_part(gemm, part_of(gemm, i), thread, a + i * gemm->full.k, part_right(gemm, b, i),
                 block);
        for (uint64_t j = 0; j < count; j++)
            sum[j] += (double)block[j];
    }
    for (uint64_t j = 0; j < count; j++)
        c[j] = (float)sum[j];
}

void gemm_run(const struct gemm *gemm, unsigned thread, const void *a, const void *b, float *c)
{
    double begin = now();
    if (gemm->parts > 1)
        run_parts(gemm, thread, a, b, c);
    else
        run_part(gemm, &gemm->last, thread, a, b, c);
    gemm->gemms->room[thread].seconds += now() - begin;
}

double gemms_seconds(const struct gemms *gemms)
{
    double sum = 0;
    for (unsigned i = 0; i < gemms->threads; i++)
        sum += gemms->room[i].seconds;
    return sum;
}
