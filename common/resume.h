/* resume.h: a calibration that may be killed. Behind each layer, what is needed to go on goes into
 * a file of a folder: the hidden states, and all that was recorded so far. The file is a tensor
 * stream, which is replaced as a whole (written beside it, synced, renamed):
 *
 *   fingerprint, layer, weights, lengths, hidden_states   as in states.h
 *   options                                      U8 [64]: a digest of what else decides the result
 *   the records                                  scalars */
#ifndef RESUME_H
#define RESUME_H

#include "args.h"
#include "digest.h"
#include "forward.h"
#include "records.h"

struct resume {
    char *file; /* NULL if nothing is to be kept: then all functions do nothing */
    int folder; /* locked */
    char options[DIGEST_TEXT];
};

/* Make `folder` if it is not there (NULL: nothing is to be kept), and lock it. `options` is what
 * decides the result beside weights, tokens and arithmetic, which is in the fingerprint: any text.
 * A folder in which another program is at work ends the process. */
void resume_begin(struct resume *resume, const char *folder, const char *options);

/* If an earlier run left a file: append what it had recorded, let `run` begin behind its layer with
 * its hidden states (states_load() reads them from the file), and return true. A file of other
 * weights, tokens, arithmetic or options ends the process. */
bool resume_load(const struct resume *resume, struct forward *run, struct records *records);

/* Replace the file: a layer is done. */
void resume_save(const struct resume *resume, const struct forward *run, const struct stage *stage,
                 const struct states *states, const struct records *records);

/* The result is out: remove the file, and what a write that was cut off left. The folder stays. */
void resume_end(struct resume *resume);

#endif
