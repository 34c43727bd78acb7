/* nvfp4-pack: BF16, FP8 or MXFP4 weights become NVFP4, quantized against a per-tensor amax. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"
#include "die.h"
#include "nvfp4.h"
#include "to_nvfp4.h"

static const char usage[] =
    "usage: nvfp4-pack [-hnqv] --amax file [-o file] [--progress] [--recipe name]\n"
    "                  [stream]\n"
    "\n"
    "Quantize the weights that a recipe names to NVFP4: BF16 ones, and FP8 and MXFP4 ones as if\n"
    "fp8-dequant and mxfp4-unpack had run before. The scale of a tensor comes from its weight "
    "amax\n"
    "in the amax stream, or from the weight itself where that has none. Reads a tensor stream "
    "from\n"
    "a file or standard input, or a checkpoint's folder.\n"
    "\n"
    "      --amax F         amax stream (from amax-merge); -n does without\n"
    "      --recipe NAME    which weights: a recipe of the model, or a file with a '/' in its "
    "name\n"
    "                       (default: experts)\n"
    "  -n, --plan           write the table only, no tensors\n"
    "  -o, --output F       write to F instead of standard output\n"
    "      --progress       show bytes, rate and time left\n"
    "  -q, --quiet          no messages but errors\n"
    "  -v, --verbose        name the weights without a weight amax, and those that are all zero\n"
    "  -h, --help           this text\n"
    "      --version        the version\n"
    "\n"
    "Examples:\n"
    "  st-read DeepSeek-V4 | nvfp4-pack --amax amax.ts | st-write DeepSeek-V4-NVFP4\n"
    "  st-read DeepSeek-V4 | mxfp4-unpack | nvfp4-pack --amax amax.ts | st-write out\n";

struct options {
    struct to_nvfp4_options common;
    bool verbose;
    uint64_t synthesized, zero;
};

/* Runs `use` over all rows of a member as BF16, band by band. */
typedef void use_rows(void *context, const uint16_t *rows, uint64_t first, uint64_t count);

static void each_band(const struct member *member, use_rows *use, void *context)
{
    const struct weight *w = member->w;
    uint64_t band = weight_band(w, member->tensor);
    uint64_t row_bytes = weight_row_bytes(w, member->tensor);
    char *raw = xalloc((size_t)band, (size_t)row_bytes);
    uint16_t *rows = xalloc((size_t)(band * w->cols), sizeof *rows);
    for (uint64_t first = 0; first < w->rows; first += band) {
        uint64_t count = w->rows - first < band ? w->rows - first : band;
        ts_held_read(member->held, first * row_bytes, raw, (size_t)(count * row_bytes));
        weight_rows(w, member->tensor, &member->scales, first, count, raw, rows);
        use(context, rows, first, count);
    }
    free(raw);
    free(rows);
}

/* ---- the amax of a weight ---- */

struct largest {
    const struct member *member;
    uint16_t magnitude; /* BF16 magnitudes order as integers */
};

static void find_largest(void *context, const uint16_t *rows, uint64_t first, uint64_t count)
{
    struct largest *largest = context;
    size_t n = (size_t)(count * largest->member->w->cols);
    (void)first;
    for (size_t i = 0; i < n; i++)
        if ((rows[i] & 0x7fff) > largest->magnitude)
            largest->magnitude = rows[i] & 0x7fff;
}

static float largest_magnitude(const struct member *member)
{
    struct largest largest = {.member = member};
    each_band(member, find_largest, &largest);
    return bf16_to_f32(largest.magnitude);
}

static float weight_amax(struct to_nvfp4 *job, const struct member *member, struct options *o)
{
    float amax;
    if (amaxes_find(job->amaxes, member->module, AMAX_WEIGHT, &amax)) {
        if (amax == 0 && largest_magnitude(member) != 0)
            die("%s: %s: its weight amax is 0, but the weight is not; the amaxes are of another "
                "checkpoint",
                ts_name(job->in), member->tensor->name);
        return amax;
    }
    if (!member->tensor->context)
        o->synthesized++;
    if (o->verbose)
        warn("%s: no weight amax in the amax stream; taken from the weight", member->tensor->name);
    return largest_magnitude(member);
}

/* ---- quantization ---- */

struct packing {
    struct to_nvfp4 *job;
    const struct member *member;
    float scale_2;
    uint8_t *scale, *packed; /* of one row */
};

static void write_scales(void *context, const uint16_t *rows, uint64_t first, uint64_t count)
{
    struct packing *p = context;
    size_t cols = (size_t)p->member->w->cols;
    for (uint64_t i = 0; i < count; i++) {
        const uint16_t *row = rows + i * cols;
        for (size_t j = 0; j < cols; j++)
            if (bf16_not_finite(row[j]))
                die("%s: %s: row %" PRIu64 ", column %zu is NaN or infinite; such a weight cannot "
                    "be packed",
                    ts_name(p->job->in), p->member->tensor->name, first + i, j);
        nvfp4_scales_row(p->scale, row, cols, p->scale_2);
        ts_write(p->job->out, p->scale, cols / NVFP4_BLOCK);
    }
}

static void write_nibbles(void *context, const uint16_t *rows, uint64_t first, uint64_t count)
{
    struct packing *p = context;
    size_t cols = (size_t)p->member->w->cols;
    (void)first;
    for (uint64_t i = 0; i < count; i++) {
        nvfp4_pack_row(p->packed, p->scale, rows + i * cols, cols, p->scale_2);
        ts_write(p->job->out, p->packed, cols / 2);
    }
}

/* The scales come before the codes in a stream, so the rows are gone through twice: that keeps
 * memory at one band, whatever the matrix. */
static void pack_member(struct to_nvfp4 *job, const struct group *group,
                        const struct member *member, float scale_2)
{
    struct packing p = {.job = job, .member = member, .scale_2 = scale_2};
    p.scale = xalloc((size_t)(member->w->cols / NVFP4_BLOCK), 1);
    p.packed = xalloc((size_t)(member->w->cols / 2), 1);
    to_nvfp4_scales(job, group, member, scale_2);
    to_nvfp4_begin_tensor(job, member, "weight_scale");
    each_band(member, write_scales, &p);
    to_nvfp4_begin_tensor(job, member, "weight");
    each_band(member, write_nibbles, &p);
    free(p.scale);
    free(p.packed);
}

static void pack_group(struct to_nvfp4 *job, struct group *group, void *context)
{
    struct options *o = context;
    float amax = 0;
    for (unsigned i = 0; i < group->members; i++)
        amax = fmaxf(amax, weight_amax(job, &group->member[i], o));
    /* All zero: any scale will do, and 1 is one that no engine stumbles over. */
    float scale_2 = amax == 0 ? 1 : nvfp4_scale_2(amax);
    if (scale_2 == 0)
        die("%s: %s: its weight amax of %g is too small for a weight_scale_2", ts_name(job->in),
            group->member[0].tensor->name, (double)amax);
    for (unsigned i = 0; i < group->members; i++) {
        const struct member *member = &group->member[i];
        if (member->tensor->context) {
            to_nvfp4_pass(job, member);
            continue;
        }
        if (amax == 0) {
            o->zero++;
            if (o->verbose)
                warn("%s: all zero", member->tensor->name);
        }
        pack_member(job, group, member, scale_2);
    }
}

int main(int argc, char **argv)
{
    struct options o = {.common.recipe = "experts"};
    const struct arg args[] = {
        {"amax", ARG_TEXT, &o.common.amax, 0, NULL, true}, /* told by its digest */
        {"recipe", ARG_TEXT, &o.common.recipe, 0, NULL, false},
        {0},
    };
    static const bool convertible[FORMAT_COUNT] = {
        [FORMAT_PLAIN] = true, [FORMAT_FP8] = true, [FORMAT_MXFP4] = true};
    struct stage stage;
    struct to_nvfp4 job;
    stage_begin(&stage, usage, args, argc, argv, 1);
    o.verbose = stage.verbose;
    to_nvfp4_begin(&job, &stage, &o.common, convertible);
    to_nvfp4_run(&job, pack_group, &o);
    to_nvfp4_finish(&job, json_pack("{s:I, s:I}", "weight_amax_synthesized",
                                    (json_int_t)o.synthesized, "zero_weights", (json_int_t)o.zero));
    return stage_end(&stage);
}
