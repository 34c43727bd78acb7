/* nvfp4-cast: MXFP4 weights become NVFP4 without loss: the nibbles stay, only scales are made. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "die.h"
#include "mxfp4.h"
#include "nvfp4.h"
#include "to_nvfp4.h"

static const char usage[] =
    "usage: nvfp4-cast [-hnqv] --amax file [-o file] [--progress] [--recipe name]\n"
    "                  [--zero keep | positive] [stream]\n"
    "\n"
    "Turn the MXFP4 weights that a recipe names into NVFP4. Both formats have the same 4-bit "
    "codes;\n"
    "scales are powers of two, which NVFP4's block scales express exactly within a range of 2^17\n"
    "in a matrix. So the codes pass by reference, and only the few blocks out of that range are\n"
    "quantized anew. Reads a tensor stream from a file or standard input, or a checkpoint's "
    "folder.\n"
    "\n"
    "      --amax F         amax stream with the input amaxes (from amax-merge); -n does without\n"
    "      --recipe NAME    which weights: a recipe of the model, or a file with a '/' in its "
    "name\n"
    "                       (default: experts)\n"
    "      --zero WHICH     keep: codes 8, -0.0, stay (default); positive: they become 0, which\n"
    "                       gives the bytes of Model Optimizer and rewrites all weights\n"
    "  -n, --plan           write the table only, no tensors\n"
    "  -o, --output F       write to F instead of standard output\n"
    "      --progress       show bytes, rate and time left\n"
    "  -q, --quiet          no messages but errors\n"
    "  -v, --verbose        name the weights that had blocks out of range\n"
    "  -h, --help           this text\n"
    "      --version        the version\n"
    "\n"
    "Examples:\n"
    "  st-read DeepSeek-V4 | nvfp4-cast --amax amax.ts | st-write DeepSeek-V4-NVFP4\n"
    "  nvfp4-cast -n --amax amax.ts DeepSeek-V4 | st-ls\n";

struct options {
    struct to_nvfp4_options common;
    const char *zero;
    bool zero_positive;
    bool verbose;
    struct nvfp4_cast_count total;
};

/* 2^127 times 2 and the like are infinite in BF16; only scale codes from 253 can do that. */
static void refuse_infinite(struct to_nvfp4 *job, const struct member *member, uint8_t *row)
{
    const struct weight *w = member->w;
    uint64_t blocks = w->cols / MXFP4_BLOCK;
    const uint8_t *scale = member->scales.raw;
    for (uint64_t i = 0; i < w->rows; i++, scale += blocks) {
        bool high = false;
        for (uint64_t b = 0; b < blocks; b++)
            high |= scale[b] >= 253;
        if (!high)
            continue;
        ts_held_read(member->held, i * w->cols / 2, row, (size_t)(w->cols / 2));
        if (nvfp4_cast_overflows_row(row, scale, (size_t)blocks))
            die("%s: %s: row %" PRIu64 " (byte %" PRIu64 " of the tensor) holds an infinite weight",
                ts_name(job->in), member->tensor->name, i, i * w->cols / 2);
    }
}

static void write_weight_scale(struct to_nvfp4 *job, const struct member *member, int k_max,
                               struct nvfp4_cast_count *count)
{
    const struct weight *w = member->w;
    uint64_t blocks = w->cols / MXFP4_BLOCK;
    uint8_t *row = xalloc((size_t)(2 * blocks), 1);
    to_nvfp4_begin_tensor(job, member, "weight_scale");
    for (uint64_t i = 0; i < w->rows; i++) {
        nvfp4_cast_scales_row(row, (const uint8_t *)member->scales.raw + i * blocks, (size_t)blocks,
                              k_max, count);
        ts_write(job->out, row, (size_t)(2 * blocks));
    }
    free(row);
}

static void rewrite_weight(struct to_nvfp4 *job, const struct member *member, int k_max,
                           bool zero_positive)
{
    const struct weight *w = member->w;
    uint64_t blocks = w->cols / MXFP4_BLOCK, row_bytes = w->cols / 2;
    uint64_t band = weight_band(w, member->tensor);
    uint8_t *rows = xalloc((size_t)band, (size_t)row_bytes);
    to_nvfp4_begin_tensor(job, member, "weight");
    for (uint64_t first = 0; first < w->rows; first += band) {
        uint64_t count = w->rows - first < band ? w->rows - first : band;
        ts_held_read(member->held, first * row_bytes, rows, (size_t)(count * row_bytes));
        for (uint64_t i = 0; i < count; i++)
            nvfp4_cast_nibbles_row(rows + i * row_bytes,
                                   (const uint8_t *)member->scales.raw + (first + i) * blocks,
                                   (size_t)blocks, k_max, zero_positive);
        ts_write(job->out, rows, (size_t)(count * row_bytes));
    }
    free(rows);
}

static void cast_member(struct to_nvfp4 *job, const struct group *group,
                        const struct member *member, int k_max, struct options *o)
{
    struct nvfp4_cast_count count = {0};
    uint8_t *row = xalloc((size_t)(member->w->cols / 2), 1);
    refuse_infinite(job, member, row);
    free(row);
    to_nvfp4_scales(job, group, member, nvfp4_cast_scale_2(k_max));
    write_weight_scale(job, member, k_max, &count);
    if (count.rewrite || o->zero_positive)
        rewrite_weight(job, member, k_max, o->zero_positive);
    else
        ts_pass_held(job->out, job->in, member->held);
    if (count.rewrite && o->verbose)
        warn("%s: %" PRIu64 " of %" PRIu64 " blocks are out of range and were quantized anew",
             member->tensor->name, count.rewrite, count.blocks);
    o->total.blocks += count.blocks;
    o->total.lossy += count.lossy;
    o->total.rewrite += count.rewrite;
}

static void cast_group(struct to_nvfp4 *job, struct group *group, void *context)
{
    int k_max = -127;
    for (unsigned i = 0; i < group->members; i++) {
        const struct member *member = &group->member[i];
        size_t blocks = (size_t)(member->w->rows * (member->w->cols / MXFP4_BLOCK));
        int own = nvfp4_cast_k_max(member->scales.raw, blocks);
        if (own > k_max)
            k_max = own;
    }
    for (unsigned i = 0; i < group->members; i++)
        if (group->member[i].tensor->context)
            to_nvfp4_pass(job, &group->member[i]);
        else
            cast_member(job, group, &group->member[i], k_max, context);
}

int main(int argc, char **argv)
{
    struct options o = {.common.recipe = "experts", .zero = "keep"};
    const struct arg args[] = {
        {"amax", ARG_TEXT, &o.common.amax, 0, NULL, true}, /* told by its digest */
        {"recipe", ARG_TEXT, &o.common.recipe, 0, NULL, false},
        {"zero", ARG_CHOICE, &o.zero, 0, "keep|positive", false},
        {0},
    };
    static const bool convertible[FORMAT_COUNT] = {[FORMAT_MXFP4] = true};
    struct stage stage;
    struct to_nvfp4 job;
    stage_begin(&stage, usage, args, argc, argv, 1);
    o.zero_positive = !strcmp(o.zero, "positive");
    o.verbose = stage.verbose;
    to_nvfp4_begin(&job, &stage, &o.common, convertible);
    to_nvfp4_run(&job, cast_group, &o);
    to_nvfp4_finish(&job,
                    json_pack("{s:I, s:I, s:I}", "blocks", (json_int_t)o.total.blocks, "lossy",
                              (json_int_t)o.total.lossy, "rewritten", (json_int_t)o.total.rewrite));
    return stage_end(&stage);
}
