#include "forward/forward_options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/die.h"
#include "base/json.h"
#include "forward/states.h"

enum { THREADS_MOST = 1024 };

struct arg *forward_options_args(struct forward_options *o, const struct arg *own)
{
    *o = (struct forward_options){.device = "cpu", .batch = 4};
    const struct arg common[] = {
        {"tokens", ARG_TEXT, &o->tokens, 0, NULL, true}, /* told by their digest */
        {"samples", ARG_NUMBER, &o->samples, 0, NULL, false},
        {"layers", ARG_TEXT, &o->layers, 0, NULL, false},
        {"mtp", ARG_FLAG, &o->mtp, 0, NULL, false},
        {"states-in", ARG_TEXT, &o->states_in, 0, NULL, false},
        {"states-out", ARG_TEXT, &o->states_out, 0, NULL, true},
        {"device", ARG_CHOICE, &o->device, 0, "cpu|cuda", true},
        {"batch", ARG_NUMBER, &o->batch, 0, NULL, true},
        {"mem", ARG_BYTES, &o->memory, 0, NULL, true},
        {"threads", ARG_NUMBER, &o->threads, 'j', NULL, true},
        {0},
    };
    size_t count = 0;
    while (own[count].name)
        count++;
    struct arg *args = xalloc(count + sizeof common / sizeof *common, sizeof *args);
    memcpy(args, own, count * sizeof *args);
    memcpy(args + count, common, sizeof common);
    return args;
}

void forward_options_check(const struct forward_options *o, bool over_tokens)
{
    if (over_tokens && !o->tokens)
        die_usage("--tokens is needed: what the model runs over");
    if (!o->batch)
        die_usage("--batch: at least 1 sample");
    if (o->threads > THREADS_MOST)
        die_usage("--threads: at most %d", THREADS_MOST);
}

struct ranks *forward_options_ranks(const struct forward_options *o, struct stage *stage)
{
    struct launch launch;
    struct stat status;
    const char *input = stage_input(stage);
    if (!launch_read(&launch))
        return NULL;
    if (!input || (!stat(input, &status) && !S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode)))
        die("each of %u ranks reads the weights, and what comes through a pipe reaches but one; "
            "name the checkpoint's folder, or a file with the stream",
            launch.count);
    if (o->states_in || o->states_out)
        die_usage("--states-in and --states-out do not go with several ranks: each has the states "
                  "of its own samples");
    struct ranks *ranks = ranks_open(&launch);
    if (launch.rank) {
        stage->quiet = true;
        stage->verbose = stage->progress = false;
    }
    return ranks;
}

/* --layers A-B, or all. */
static void set_layers(const struct forward_options *o, struct forward *run)
{
    uint64_t layers = forward_layers(run->in);
    char rest;
    run->first = 0;
    run->last = layers - 1;
    if (o->layers &&
        (sscanf(o->layers, "%9" SCNu64 "-%9" SCNu64 "%c", &run->first, &run->last, &rest) != 2 ||
         run->first > run->last))
        die_usage("--layers: '%s' is not A-B with A <= B", o->layers);
    if (run->last >= layers)
        die("%s: --layers %s: there are layers 0 to %" PRIu64, ts_name(run->in), o->layers,
            layers - 1);
    if (run->first > 0 && !o->states_in)
        die_usage("layer %" PRIu64 " goes on from the hidden states of the one before; give them "
                  "with --states-in",
                  run->first);
}

/* The device; and ranks that have a GPU each share the reading. */
static void open_device(const struct forward_options *o, struct forward *run)
{
    const char *why;
    char *no_gather;
    if (!strcmp(o->device, "cpu")) {
        run->device = device_cpu((unsigned)o->threads);
        return;
    }
    run->device = device_cuda(ranks_local(run->ranks), &why);
    if (!run->device)
        die("--device %s: %s", o->device, why);
    if (ranks_count(run->ranks) == 1)
        return;
    run->gather = gather_nccl(run->ranks, run->device, &no_gather);
    if (!run->gather) {
        warn("each rank reads all of the weights: %s", no_gather);
        free(no_gather);
    }
}

/* See that all ranks run the same over the same, and take this one's samples. */
static void share_samples(const struct forward *run, const struct stage *stage,
                          struct tokens *tokens)
{
    const struct toc *toc = ts_toc(run->in);
    char *options = json_text(stage->entry, false, true);
    struct stat status = {0};
    stat(stage_input(stage), &status); /* the stream's own size tells one of references */
    char *weights = xprintf("%zu tensors, %" PRIu64 " bytes, %jd", toc->count, toc_bytes(toc, true),
                            S_ISREG(status.st_mode) ? (intmax_t)status.st_size : 0);
    uint64_t samples = tokens->samples, first, count;
    ranks_agree(run->ranks, "other tokens", tokens->digest);
    ranks_agree(run->ranks, "other weights", weights);
    ranks_agree(run->ranks, "other options", options);
    ranks_share(run->ranks, samples, &first, &count);
    if (!count)
        die("there are %" PRIu64 " samples only, less than ranks; start fewer", samples);
    tokens_keep(tokens, first, count);
    free(options);
    free(weights);
}

void forward_options_open(const struct forward_options *o, const struct stage *stage,
                          struct forward *run, struct ranks *ranks, struct ts_in *in,
                          struct tokens *tokens, uint64_t shortest)
{
    *run = (struct forward){.in = in,
                            .tokens = tokens,
                            .ranks = ranks,
                            .mtp = o->mtp,
                            .batch = o->batch,
                            .memory = o->memory,
                            .verbose = stage->verbose,
                            .states_in = o->states_in};
    set_layers(o, run);
    if (tokens) {
        tokens_load(tokens, o->tokens, forward_vocabulary(in), shortest, o->samples);
        json_object_set_new(stage->entry, "tokens", json_string(tokens->digest));
    }
    if (tokens && ranks)
        share_samples(run, stage, tokens);
    if (!stage->plan)
        open_device(o, run);
}

void forward_options_states(const struct forward_options *o, const struct stage *stage,
                            const struct forward *run, const struct states *states)
{
    if (o->states_out && states->layer == run->last)
        states_save(run, stage, o->states_out, states);
}

void forward_options_close(const struct forward *run)
{
    if (run->gather)
        run->gather->close(run->gather);
    run->device->close(run->device);
}
