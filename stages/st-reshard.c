/* st-reshard: a release's checkpoint to the files of model-parallel ranks, and back. */
#include <inttypes.h>
#include <string.h>

#include "base/die.h"
#include "base/ordered_pool.h"
#include "reshard/assemble.h"
#include "stream/whole.h"

static const struct program program = {
    .about =
        "Share a checkpoint among N model-parallel ranks, model0-mpN.safetensors and so on, as "
        "the inference/convert.py of DeepSeek's releases does (V3, V3.2, V4), or join such "
        "ranks again. Tensors get the names of DeepSeek's inference code; each rank has its "
        "part of the heads and experts. What is in one piece in the source stays there, and "
        "passes by reference. Reads a tensor stream from a file or standard input, or a "
        "checkpoint's folder.",
    .operands = {"[stream]", "[stream]"},
    .examples = {"st-reshard --ranks 2 DeepSeek-V4 | st-write DeepSeek-V4-mp2",
                 "st-reshard --ranks 2 --experts fp8 DeepSeek-V4 | st-write DeepSeek-V4-mp2-fp8",
                 "st-reshard -r DeepSeek-V4-mp2 | st-write DeepSeek-V4-again",
                 "st-reshard --ranks 2 -n DeepSeek-V4 | st-ls"},
    .max_operands = 1,
    .in_place = true,
};

enum { TO_RANKS = FORM(0), FROM_RANKS = FORM(1) };

struct options {
    uint64_t ranks, threads;
    bool reverse;
    const char *experts, *cpu;
};

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    struct arg cpu = codec_arg(&o->cpu);
    cpu.in = TO_RANKS;
    const struct arg args[] = {
        cpu,
        {.name = "experts",
         .kind = ARG_CHOICE,
         .to = &o->experts,
         .value = "format",
         .choices = "fp4|fp8",
         .help = "routed experts in MXFP4 stay so (fp4, default), or become FP8 (fp8), which loses "
                 "nothing where the scales of a block of 128 x 128 are within 2^14",
         .in = TO_RANKS},
        {.name = "ranks",
         .kind = ARG_NUMBER,
         .to = &o->ranks,
         .value = "N",
         .help = "share the checkpoint among N ranks",
         .in = TO_RANKS,
         .required = TO_RANKS},
        {.name = "reverse",
         .letter = 'r',
         .to = &o->reverse,
         .help = "join the files of ranks",
         .in = FROM_RANKS,
         .required = FROM_RANKS},
        arg_threads(&o->threads),
        {.name = "verbose", .help = "say how many tensors were made, and of how many"},
        {0},
    };
    stage_begin(stage, &program, args, argc, argv);
    if (o->reverse ? o->ranks || o->experts : !o->ranks)
        die_usage("either --ranks N, with N from 1 on, or -r alone");
}

static enum experts experts_of(const struct options *o)
{
    return !o->experts ? EXPERTS_ANY : strcmp(o->experts, "fp8") ? EXPERTS_FP4 : EXPERTS_FP8;
}

static void report(const struct assembled *done, const struct plan *plan, const struct stage *stage)
{
    if (stage->quiet)
        return;
    if (plan->left_out)
        warn("%zu tensors of MTP are left out, which DeepSeek's inference code does not have",
             plan->left_out);
    if (done->nan)
        warn("%" PRIu64 " FP8 NaN became BF16 NaN", done->nan);
    if (stage->verbose)
        warn("%zu tensors were made of %zu; %" PRIu64 " became BF16", plan->toc->count,
             plan->sources, done->dequantized);
}

int main(int argc, char **argv)
{
    struct options o = {0};
    struct stage stage;
    take_options(&o, &stage, argc, argv);
    const struct codec *codec = codec_chosen(o.cpu);
    unsigned threads = ordered_pool_threads(o.threads);
    struct ts_in *in = ts_open(stage_input(&stage), &stage);
    struct weights weights;
    whole_check(in);
    weights_find(&weights, ts_model(in), ts_toc(in), ts_name(in));
    struct plan *plan =
        o.reverse ? plan_from_ranks(in) : plan_to_ranks(in, &weights, o.ranks, experts_of(&o));
    struct ts_out *out = ts_create(&stage, in, plan->toc);
    struct assembled done = assemble(&(struct assembly){.in = in,
                                                        .out = out,
                                                        .plan = plan,
                                                        .weights = &weights,
                                                        .codec = codec,
                                                        .threads = threads});
    report(&done, plan, &stage);
    json_t *counts =
        json_pack("{s:I, s:I, s:I, s:I, s:I}", "left_out", (json_int_t)plan->left_out,
                  "dequantized", (json_int_t)done.dequantized, "nan", (json_int_t)done.nan,
                  "fp8_blocks", (json_int_t)done.blocks, "fp8_lossy", (json_int_t)done.lossy);
    ts_finish(out, in, counts);
    weights_free(&weights);
    plan_free(plan);
    return stage_end(&stage);
}
