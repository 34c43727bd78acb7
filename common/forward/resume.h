/* resume.h: a calibration that may be killed. Behind some layers, what is needed to go on goes into
 * a file of a folder: the hidden states, and all that was recorded so far. The file is a tensor
 * stream, which is replaced as a whole (written beside it, synced, renamed):
 *
 *   fingerprint, layer, weights, lengths, hidden_states   as in states.h
 *   options                                      U8 [64]: a digest of what else decides the result
 *   the records                                  scalars
 *
 * Without hidden_states it is of a calibration that is finished: all was recorded. */
#ifndef RESUME_H
#define RESUME_H

#include "base/args.h"
#include "base/digest.h"
#include "forward/forward.h"
#include "stream/scalars.h"

struct resume {
    char *file; /* NULL if nothing is to be kept: then all functions do nothing */
    int folder; /* locked */
    char options[DIGEST_TEXT];
    char weights[DIGEST_TEXT]; /* of the layers so far, see forward.h */
    bool finished;             /* the file has all; it is to stay */
    uint64_t every;            /* replace the file behind every so many layers; 0: see below */
    double took, ended;        /* the last time: seconds, and when, by now() */
};

/* Make `folder` if it is not there (NULL: nothing is to be kept), and lock it. `options` is what
 * decides the result beside weights, tokens and arithmetic, which is in the fingerprint: any text.
 * `every` as above. A folder in which another program is at work ends the process. */
void resume_begin(struct resume *resume, const char *folder, const char *options, uint64_t every);

/* If an earlier run left a file: append what it had recorded, let `run` begin behind its layer with
 * its hidden states (states_load() reads them from the file), and return true. Of a finished
 * calibration nothing is left for `run` but to see that the weights are the same. A file of other
 * weights, tokens, arithmetic or options ends the process. */
bool resume_load(struct resume *resume, struct forward *run, struct scalars *scalars);

/* Whether to replace the file behind a layer that is done at that time: behind every so many, or,
 * since the states may be large and a layer soon done, if ten times as long has gone by as it took
 * the last time; so a run spends a tenth of its time on it, at most. Behind the first layer of a
 * run nothing is known of that, and it is replaced: what is wrong with the disk shows early. */
bool resume_is_due(const struct resume *resume, uint64_t layer, double time);

/* A layer is done: replace the file, if it is due. */
void resume_save(struct resume *resume, const struct forward *run, const struct stage *stage,
                 const struct states *states, const struct scalars *scalars);

/* All is recorded: leave a file that gives the result again. */
void resume_finish(struct resume *resume, const struct forward *run, const struct stage *stage,
                   const struct scalars *scalars);

/* The result is out: remove the file, unless it is of a finished calibration, and what a write that
 * was cut off left. The folder stays. */
void resume_end(struct resume *resume);

/* Remove what a calibration left in `folder`, whether it died or is finished, and the folder if it
 * holds nothing else. Nothing is to do if there is none. A folder in which another program is at
 * work ends the process. */
void resume_discard(const char *folder);

#endif
