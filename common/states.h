/* states.h: hidden states between two layers, as a stream: a long run can be cut in pieces, and any
 * layer looked at alone.
 *
 *   hidden_states  BF16 [samples, length, copies, dim], zeros behind a sample's end
 *   layer          I64 []: the layer that they come out of
 *   lengths        I32 [samples]
 *   fingerprint    U8 [64]: a digest of the token ids, config.json and the arithmetic */
#ifndef STATES_H
#define STATES_H

#include "args.h"
#include "forward.h"

/* Fill `hidden` [tokens, copies * dim] of run->device from run->states_in. What is not there but
 * hidden_states is not checked; all else must fit run->tokens and run->first, or the process ends.
 */
void states_load(const struct forward *run, uint64_t copies, uint64_t dim, struct mat hidden);

/* The present tensor of `in` is a fingerprint: of the run's, or the process ends. */
void states_check(const struct forward *run, struct ts_in *in);

/* For a file that holds them and more: append the lines above to its table; write them to a stream
 * in whose table they come next. */
void states_plan(struct toc *toc, const struct forward *run, uint64_t copies, struct mat hidden);
void states_write(struct ts_out *out, const struct forward *run, uint64_t layer, struct mat hidden);

/* Write them alone to `path`; `stage` is the program's, for the history. */
void states_save(const struct forward *run, const struct stage *stage, const char *path,
                 uint64_t layer, uint64_t copies, struct mat hidden);

#endif
