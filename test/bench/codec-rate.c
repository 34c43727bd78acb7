/* codec-rate [-j N] [--cpu NAME]: how fast the codecs are over memory, beside a memory copy.
 *
 * N threads at once (default 2), each on rows of its own that together are far larger than caches.
 * A line for the memory copy and for each codec: its name; bytes read plus bytes written in a
 * second, by all threads, the best of several rounds; elements in a second. */
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/progress.h"
#include "tensor/bf16.h"
#include "tensor/codec.h"
#include "tensor/fp8.h"
#include "tensor/mxfp4.h"
#include "tensor/weight.h"

enum { FP8_BLOCK = 128 };

enum { ROWS = 8192, COLS = 4096, ROUNDS = 8, THREADS_MOST = 64 }; /* as of an expert, and more */

/* What one thread works on. */
struct room {
    const struct codec *codec;
    uint16_t *bf16;   /* [ROWS, COLS] */
    uint16_t *w;      /* [ROWS, COLS], distributed as weights are */
    uint8_t *codes;   /* [ROWS, COLS] FP8; its first half as MXFP4 */
    uint8_t *packed;  /* [ROWS, COLS / 2] NVFP4 */
    uint8_t *e8m0;    /* [ROWS, COLS / 32], powers of two near each other */
    uint8_t *scale;   /* [ROWS, COLS / 16] E4M3 */
    float *fp8_scale; /* [COLS / 128] */
    struct recode *recode;
    struct block_moments *moments; /* of COLS / 16 blocks */
};

typedef void work(struct room *room);

static void copy(struct room *room)
{
    memcpy(room->bf16, room->codes, (size_t)ROWS * COLS);
}

static void fp8_dequant(struct room *room)
{
    for (size_t i = 0; i < ROWS; i++)
        room->codec->fp8_dequant_row(room->bf16 + i * COLS, room->codes + i * COLS, room->fp8_scale,
                                     COLS, FP8_BLOCK);
}

static void mxfp4_unpack(struct room *room)
{
    for (size_t i = 0; i < ROWS; i++)
        room->codec->mxfp4_unpack_row(room->bf16 + i * COLS, room->codes + i * COLS / 2,
                                      room->e8m0 + i * COLS / MXFP4_BLOCK, COLS);
}

static void nvfp4_unpack(struct room *room)
{
    for (size_t i = 0; i < ROWS; i++)
        room->codec->nvfp4_unpack_row(room->bf16 + i * COLS, room->codes + i * COLS / 2,
                                      room->scale + i * COLS / NVFP4_BLOCK, COLS, 1e-4f);
}

static void pack_row(struct room *room, size_t i, const uint16_t *w)
{
    uint8_t *scale = room->scale + i * COLS / NVFP4_BLOCK;
    room->codec->nvfp4_scales_row(scale, w, COLS, 1e-4f);
    room->codec->nvfp4_nibbles_row(room->packed + i * COLS / 2, scale, w, COLS, 1e-4f);
}

static void nvfp4_pack(struct room *room)
{
    for (size_t i = 0; i < ROWS; i++)
        pack_row(room, i, room->w + i * COLS);
}

static void nvfp4_pack_fp8(struct room *room)
{
    uint16_t row[COLS];
    for (size_t i = 0; i < ROWS; i++) {
        room->codec->fp8_dequant_row(row, room->codes + i * COLS, room->fp8_scale, COLS, FP8_BLOCK);
        pack_row(room, i, row);
    }
}

/* As pack-bf16, with a search. */
static void search(struct room *room, void (*scales_row)(uint8_t *scale, const uint16_t *w,
                                                         size_t cols, float scale_2))
{
    for (size_t i = 0; i < ROWS; i++) {
        uint8_t *scale = room->scale + i * COLS / NVFP4_BLOCK;
        const uint16_t *w = room->w + i * COLS;
        scales_row(scale, w, COLS, 1e-4f);
        room->codec->nvfp4_nibbles_row(room->packed + i * COLS / 2, scale, w, COLS, 1e-4f);
    }
}

static void search_mse(struct room *room)
{
    search(room, room->codec->nvfp4_scales_mse_row);
}

static void search_four_over_six(struct room *room)
{
    search(room, room->codec->nvfp4_scales_four_over_six_row);
}

/* Of fewer rows, as it takes longer. */
enum { HESSIAN_PART = 16 };

static void search_hessian(struct room *room)
{
    for (size_t i = 0; i < ROWS / HESSIAN_PART; i++) {
        uint8_t *scale = room->scale + i * COLS / NVFP4_BLOCK;
        const uint16_t *w = room->w + i * COLS;
        room->codec->nvfp4_scales_hessian_row(scale, w, COLS, 1e-4f, room->moments);
        room->codec->nvfp4_nibbles_row(room->packed + i * COLS / 2, scale, w, COLS, 1e-4f);
    }
}

static void nvfp4_pack_mxfp4(struct room *room)
{
    recode_init(room->recode, room->codec, 1e-4f);
    for (size_t i = 0; i < ROWS; i++)
        room->codec->recode_row(room->packed + i * COLS / 2, room->scale + i * COLS / NVFP4_BLOCK,
                                room->recode, room->codes + i * COLS / 2,
                                room->e8m0 + i * COLS / MXFP4_BLOCK, COLS / MXFP4_BLOCK);
}

/* Of a matrix as large as the others, so that it is over memory as well. */
static void cast_scales(struct room *room)
{
    struct nvfp4_cast_count count = {0};
    for (size_t i = 0; i < ROWS; i++)
        room->codec->nvfp4_cast_scales_row((uint8_t *)room->bf16 + i * 2 * COLS,
                                           room->codes + i * COLS, COLS, 128, &count);
}

static const struct {
    const char *name;
    work *work;
    double bytes;    /* in + out for one of ROWS * COLS */
    double elements; /* of a weight that one stands for */
} tasks[] = {
    {"memcpy", copy, 2, 1},
    {"fp8-dequant", fp8_dequant, 1 + 2, 1},
    {"mxfp4-unpack", mxfp4_unpack, 0.5 + 1.0 / 32 + 2, 1},
    {"nvfp4-unpack", nvfp4_unpack, 0.5 + 1.0 / 16 + 2, 1},
    {"pack-bf16", nvfp4_pack, 2 + 0.5 + 1.0 / 16, 1},
    {"pack-bf16-mse", search_mse, 2 + 0.5 + 1.0 / 16, 1},
    {"pack-bf16-hessian", search_hessian, (2 + 0.5 + 1.0 / 16) / HESSIAN_PART, 1.0 / HESSIAN_PART},
    {"pack-bf16-4over6", search_four_over_six, 2 + 0.5 + 1.0 / 16, 1},
    {"pack-fp8", nvfp4_pack_fp8, 1 + 0.5 + 1.0 / 16, 1},
    {"pack-mxfp4", nvfp4_pack_mxfp4, 0.5 + 1.0 / 32 + 0.5 + 1.0 / 16, 1},
    {"cast-scales", cast_scales, 1 + 2, MXFP4_BLOCK},
};

static void prepare(struct room *room, const struct codec *codec)
{
    size_t elements = (size_t)ROWS * COLS;
    *room = (struct room){
        .codec = codec,
        .bf16 = xalloc(elements, 2),
        .w = xalloc(elements, 2),
        .codes = xalloc(elements, 1),
        .packed = xalloc(elements / 2, 1),
        .e8m0 = xalloc(elements / MXFP4_BLOCK, 1),
        .scale = xalloc(elements / NVFP4_BLOCK, 1),
        .fp8_scale = xalloc(COLS / FP8_BLOCK, sizeof(float)),
        .recode = xalloc(1, sizeof *room->recode),
        .moments = xalloc(block_moments_count(COLS / NVFP4_BLOCK), sizeof *room->moments)};
    for (size_t i = 0; i < elements; i++) {
        uint32_t any = (uint32_t)i * 2654435761U;
        room->codes[i] = (uint8_t)((any >> 8) % 0x7f | (any >> 24 & 0x80)); /* no NaN */
        room->bf16[i] = (uint16_t)(0x3c00 + room->codes[i]);
        /* The sum of twelve uniform numbers is nearly normal; largest magnitude some 0.25. */
        float sum = -6;
        for (int n = 0; n < 12; n++)
            sum += (float)((any = any * 1664525 + 1013904223) >> 8) * 0x1p-24f;
        room->w[i] = bf16_from_f32(0.05f * sum);
    }
    for (size_t i = 0; i < elements / MXFP4_BLOCK; i++)
        room->e8m0[i] = (uint8_t)(116 + room->codes[i] % 6);
    /* Of inputs whose columns have half of their energy in common. */
    float *h = xalloc((size_t)COLS * NVFP4_BLOCK, sizeof *h);
    for (size_t i = 0; i < (size_t)COLS * NVFP4_BLOCK; i++)
        h[i] = i % (NVFP4_BLOCK * NVFP4_BLOCK) % (NVFP4_BLOCK + 1) ? 0.5f : 1;
    block_moments_prepare(room->moments, h, COLS / NVFP4_BLOCK);
    free(h);
    memset(room->scale, 0x70, elements / NVFP4_BLOCK);
    memset(room->packed, 1, elements / 2); /* pages that exist */
    for (size_t i = 0; i < COLS / FP8_BLOCK; i++)
        room->fp8_scale[i] = 0x1p-8f;
}

/* A round of one thread, and how long it took from when all had begun. */
struct turn {
    pthread_barrier_t *barrier;
    struct room *room;
    work *work;
};

static void *run(void *context)
{
    struct turn *turn = context;
    pthread_barrier_wait(turn->barrier);
    turn->work(turn->room);
    pthread_barrier_wait(turn->barrier);
    return NULL;
}

/* Seconds of one round on all rooms at once. */
static double round_of(work *work, struct room *room, unsigned threads)
{
    pthread_t thread[THREADS_MOST];
    struct turn turn[THREADS_MOST];
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++) {
        turn[i] = (struct turn){&barrier, &room[i], work};
        if (pthread_create(&thread[i], NULL, run, &turn[i]))
            die("cannot start a thread");
    }
    double start = now();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    double seconds = now() - start;
    for (unsigned i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    pthread_barrier_destroy(&barrier);
    return seconds;
}

int main(int argc, char **argv)
{
    const struct codec *codec = codec_best();
    unsigned threads = 2;
    static const struct option options[] = {{"cpu", required_argument, NULL, 'c'}, {0}};
    for (int c; (c = getopt_long(argc, argv, "j:", options, NULL)) != -1;) {
        if (c == 'j')
            threads = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 'c')
            codec = codec_named(optarg);
        if (c == '?' || !codec || threads < 1 || threads > THREADS_MOST)
            die_usage("codec-rate [-j N] [--cpu " CODEC_NAMES "]");
    }
    struct room *room = xalloc(threads, sizeof *room);
    for (unsigned i = 0; i < threads; i++)
        prepare(&room[i], codec);
    for (size_t task = 0; task < sizeof tasks / sizeof *tasks; task++) {
        double least = 1e9;
        for (int i = 0; i < ROUNDS; i++) {
            double seconds = round_of(tasks[task].work, room, threads);
            least = seconds < least ? seconds : least;
        }
        double rate = (double)ROWS * COLS * threads / least;
        printf("%s\t%.0f\t%.0f\n", tasks[task].name, tasks[task].bytes * rate,
               tasks[task].elements * rate);
    }
    return 0;
}
