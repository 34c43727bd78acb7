/* forward_options.h: command-line options shared by the programs that run a model. */
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
 * of the command line runs over tokens and has all of them. The forms in the set `without_tokens`
 * (0: none) have those that need no tokens. */
struct arg *forward_options_args(struct forward_options *o, const struct arg *own,
                                 unsigned without_tokens);

/* Set up the run that the options ask for, over the stage's input; the program may then set the
 * callbacks. Reads the tokens, in samples at least `shortest` long, into `tokens`, which the caller
 * frees after the run. Ranks meet here and share the samples; only rank 0 prints anything but
 * errors. With NULL there are neither tokens nor ranks. Wrong options and files end the process.
 * With stage->plan the device is closed again. */
void forward_options_open(const struct forward_options *o, struct stage *stage, struct forward *run,
                          struct tokens *tokens, uint64_t shortest);

/* Run, or for a plan only check that the weights are those of the model, and close device and
 * weights, so that errors in the weights show before results are written. Ranks and network stay
 * until forward_options_close(), which frees the rest of a run in any state. */
void forward_options_run(struct forward *run);
void forward_options_close(struct forward *run);

/* For run->states: after the last layer, write them where --states-out says. */
void forward_options_states(const struct forward_options *o, const struct stage *stage,
                            const struct forward *run, const struct states *states);

#endif
