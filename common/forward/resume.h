/* resume.h: checkpoints of a calibration, so that a killed one can resume. After some layers, a
 * file in a directory gets the hidden states and everything recorded so far. The file is a tensor
 * stream, replaced atomically (written under another name, synced, renamed):
 *
 *   fingerprint, layer, weights, lengths, hidden_states   as in states.h
 *   options                                      U8 [64]: a digest of what else decides the result
 *   the records                                  scalars
 *
 * Without hidden_states, the calibration is finished: everything was recorded. */
#ifndef RESUME_H
#define RESUME_H

#include "base/args.h"
#include "base/digest.h"
#include "forward/forward.h"
#include "stream/scalars.h"

struct resume {
    char *file; /* NULL: nothing is kept, and all functions do nothing */
    int folder; /* locked */
    char options[DIGEST_TEXT];
    char weights[DIGEST_TEXT]; /* of the layers so far, see forward.h */
    bool finished;             /* the file is complete and stays */
    uint64_t every;            /* layers between two files; 0: see resume_is_due() */
    double took, ended;        /* of the last file: seconds it took, and its end by now() */
};

/* Create `folder` if it does not exist (NULL: keep nothing), and lock it. `options` is any text
 * that stands for all that decides the result besides weights, tokens, arithmetic and recipe, which
 * the fingerprint has. `every` as above. If another program holds the lock, or the folder is
 * another user's, the process ends. */
void resume_begin(struct resume *resume, const char *folder, const char *options, uint64_t every);

/* If an earlier run left a file: append what it recorded to `scalars`, let `run` begin after its
 * layer with its hidden states (states_load() reads them from the file), and return true. After a
 * finished calibration, `run` only checks that the weights are the same. A file of other weights,
 * tokens, arithmetic, recipe or options ends the process. */
bool resume_load(struct resume *resume, struct forward *run, struct scalars *scalars);

/* Whether to replace the file after a layer that ended at `time`. With `every` 0, it is due once
 * ten times as long has passed as the last file took: states may be large and layers fast, and so a
 * run spends at most a tenth of its time on files. It is always due after the first layer of a run,
 * so that a faulty disk shows early. */
bool resume_is_due(const struct resume *resume, uint64_t layer, double time);

/* After a layer: replace the file if it is due. */
void resume_save(struct resume *resume, const struct forward *run, const struct stage *stage,
                 const struct states *states, const struct scalars *scalars);

/* After the last layer: leave a file from which the result can be made again. */
void resume_finish(struct resume *resume, const struct forward *run, const struct stage *stage,
                   const struct scalars *scalars);

/* After the result is written: remove the file, unless it is a finished calibration's, and the
 * remains of interrupted writes. The directory stays. */
void resume_end(struct resume *resume);

/* Remove the files of a dead or finished calibration in `folder`, and the directory if it is empty
 * then. Does nothing if there is none. If another program holds its lock, the process ends. */
void resume_discard(const char *folder);

#endif
