#include "forward_options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "die.h"
#include "states.h"

enum { THREADS_MOST = 1024 };

struct arg *forward_options_args(struct forward_options *o, const struct arg *own)
{
    *o = (struct forward_options){.batch = 4, .memory = (uint64_t)4 << 30};
    const struct arg common[] = {
        {"tokens", ARG_TEXT, &o->tokens, 0, NULL, false},
        {"samples", ARG_NUMBER, &o->samples, 0, NULL, false},
        {"layers", ARG_TEXT, &o->layers, 0, NULL, false},
        {"mtp", ARG_FLAG, &o->mtp, 0, NULL, false},
        {"states-in", ARG_TEXT, &o->states_in, 0, NULL, false},
        {"states-out", ARG_TEXT, &o->states_out, 0, NULL, true},
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

void forward_options_open(const struct forward_options *o, const struct stage *stage,
                          struct forward *run, struct ts_in *in, struct tokens *tokens,
                          uint64_t shortest)
{
    *run = (struct forward){.in = in,
                            .tokens = tokens,
                            .mtp = o->mtp,
                            .batch = o->batch,
                            .memory = o->memory,
                            .states_in = o->states_in};
    set_layers(o, run);
    if (tokens)
        tokens_load(tokens, o->tokens, forward_vocabulary(in), shortest, o->samples);
    if (!stage->plan)
        run->device = device_cpu((unsigned)o->threads);
}

void forward_options_states(const struct forward_options *o, const struct stage *stage,
                            const struct forward *run, const struct states *states)
{
    if (o->states_out && states->layer == run->last)
        states_save(run, stage, o->states_out, states);
}
