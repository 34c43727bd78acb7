/* states.h: hidden states between two layers, as a stream. So a long run can be split, and any
 * layer examined alone.
 *
 *   hidden_states  BF16 [samples, length, copies, dim], zeros after a sample's end; absent if
 *                  nothing goes on from them
 *   carried        BF16 [samples, length, carried], the same for the columns after the copies;
 *                  absent where a model has none (see network.h)
 *   layer          I64 []: the layer that they come out of
 *   lengths        I32 [samples]
 *   fingerprint    U8 [64]: a digest of the token ids, config.json, the arithmetic and
 *                  the recipe
 *   weights        U8 [64]: a digest of the layers that they went through, see forward.h */
#ifndef STATES_H
#define STATES_H

#include "base/args.h"
#include "forward/forward.h"

/* Fill states->hidden from run->states_in, if a layer follows. Of the other tensors, those present
 * must match run->tokens and the other members of `states`, or the process ends. */
void states_load(const struct forward *run, const struct states *states);

/* The run's fingerprint into hex (DIGEST_TEXT bytes), which is returned. */
char *states_fingerprint(const struct forward *run, char *hex);

/* Check that the current tensor of `in`, a fingerprint, is the run's; end the process if not. */
void states_check(const struct forward *run, struct ts_in *in);

/* Write them to `path`; `stage` is the program's, for the history. */
void states_save(const struct forward *run, const struct stage *stage, const char *path,
                 const struct states *states);

#endif
