/* forward_options.h: what the programs that run a model have in common on their command lines. */
#ifndef FORWARD_OPTIONS_H
#define FORWARD_OPTIONS_H

#include "base/args.h"
#include "forward/forward.h"

struct forward_options {
    const char *device, *tokens, *states_in, *states_out;
    struct arg_pair layers;
    uint64_t samples, batch, mem, threads;
    bool mtp;
};

/* These options with their defaults, after the program's own; the caller frees the result. Form 0
 * of the command line runs over tokens and has all of them; those in the set `without_tokens` (0:
 * none) have the ones that any run has. */
struct arg *forward_options_args(struct forward_options *o, const struct arg *own,
                                 unsigned without_tokens);

/* A run as the options ask for, over the weights that are the stage's input: everything but what
 * the program wants to know, which it may set from then on. Meets the other ranks, of which only
 * rank 0 speaks, unless of errors, and each has its share of the samples. Reads the tokens, of
 * samples at least `shortest` long, into `tokens`, which the caller frees after the run; with NULL
 * there are none, nor ranks. Wrong options and files end the process. With stage->plan there is no
 * device. */
void forward_options_open(const struct forward_options *o, struct stage *stage, struct forward *run,
                          struct tokens *tokens, uint64_t shortest);

/* Run, unless it is a plan, and close the weights, so that what is wrong with them shows before
 * results are written. Device and weights are gone then; ranks and network are there until close,
 * which takes what is left of a run, in whatever state it is. */
void forward_options_run(struct forward *run);
void forward_options_close(struct forward *run);

/* For run->states: write them where --states-out says, after the last layer. */
void forward_options_states(const struct forward_options *o, const struct stage *stage,
                            const struct forward *run, const struct states *states);

#endif
