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

/* The other processes that share this run's samples, or NULL if it is alone (see ranks.h): to be
 * called first of all, and to be ended with ranks_close(). Only rank 0 speaks, unless of errors. */
struct ranks *forward_options_ranks(const struct forward_options *o, struct stage *stage);

/* Check them, and set up a run over the weights that `in` is: everything but what the program wants
 * to know. Reads the tokens, of samples at least `shortest` long, but if `tokens` is NULL; of
 * several ranks, each has its share. The caller frees them, and ends the run with
 * forward_options_close(), but with stage->plan: there is no device then. */
void forward_options_check(const struct forward_options *o, bool over_tokens);
void forward_options_open(const struct forward_options *o, const struct stage *stage,
                          struct forward *run, struct ranks *ranks, struct ts_in *in,
                          struct tokens *tokens, uint64_t shortest);
void forward_options_close(const struct forward *run);

/* For run->states: write them where --states-out says, behind the last layer. */
void forward_options_states(const struct forward_options *o, const struct stage *stage,
                            const struct forward *run, const struct states *states);

#endif
