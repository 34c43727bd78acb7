/* resume.h: a calibration that is kept in a folder, so that a killed one can resume: what was
 * recorded up to a layer, and the hidden states after it.
 *
 * The hidden states are the bulk: 120 GB for V4-Pro with 512 samples of 4096 tokens. They are never
 * there twice, and yet a run may be killed at any time; for samples do not depend on each other:
 *
 *   calibration.ts              the records of all samples up to a layer; where the chunks are
 *   calibration.CHUNK.LAYER.ts  the hidden states of some samples after a layer, see kept.h
 *
 * To keep layer 16 after layer 12, calibration.ts is replaced first: it has the records up to 16,
 * and says that chunks are at 16 or, if not, at 12. Then, chunk by chunk, the file at 16 is written
 * and that at 12 removed. A run that was killed in between finds a first part of the chunks at 16
 * and the others at 12; it takes the latter's samples through layers 13 to 16 once more, without
 * recording anything, and writes their chunks before it goes on. A sample gets the same bits
 * whatever other samples are beside it, so the result is the same. Before the first time, there are
 * the tokens: a chunk that is not there yet is computed from the embeddings. So the folder has the
 * hidden states once, one chunk more while that is written, and at moments the records twice.
 *
 * calibration.ts is a tensor stream, replaced atomically (written without a name, synced, renamed),
 * and so with a digest, as chunks are:
 *
 *   fingerprint              U8 [64]: as in states.h
 *   options                  U8 [64]: a digest of what else decides the result
 *   layer, weights           I64 [], U8 [64]: what is recorded is of the layers up to this one; a
 *                            digest of them, see forward.h
 *   before, weights_before   the same of the chunks that are not at `layer`; -1 and zeros if these
 *                            are to be computed from the embeddings
 *   the records              scalars
 *
 * Without `before`, the calibration is finished: everything was recorded, and there are no chunks.
 */
#ifndef RESUME_H
#define RESUME_H

#include "base/args.h"
#include "base/digest.h"
#include "forward/forward.h"
#include "forward/kept.h"
#include "stream/scalars.h"

/* How often hidden states are kept. */
struct keeping {
    uint64_t every; /* keep after every N-th layer; 0: as resume_is_due() decides */
    bool never;     /* only what an earlier run kept is used; see resume_finish() */
};

struct resume {
    const char *folder; /* NULL: nothing is kept, and all functions do nothing */
    int fd;             /* of the folder; locked */
    char *file;
    char options[DIGEST_TEXT];
    struct keeping keeping;
    struct kept kept;
    struct level done, before; /* what the file says; layer -1 of a file that is not there */
    size_t ahead;              /* chunks at `done`, from the first on; the others are at `before` */
    char weights[DIGEST_TEXT]; /* of the layers so far, see forward.h */
    bool finished;             /* the file is complete and stays */
    double took, ended;        /* seconds that keeping all chunks takes, 0 if unknown; and when it
                                  was done last, or the run began, by now() */
};

/* True if `file` is in `folder` and called as something that is kept, and removed, there. */
bool resume_keeps(const char *folder, const char *file);

/* Create `folder` if it does not exist (NULL: keep nothing), and lock it. `options` is any text
 * that stands for all that decides the result besides weights, tokens, arithmetic and recipe, which
 * the fingerprint has. If another program holds the lock, or the folder is another user's, the
 * process ends. */
void resume_begin(struct resume *resume, const char *folder, const char *options,
                  const struct keeping *keeping);

/* If an earlier run left a file: append what it recorded to `scalars`, let `run` go on from there,
 * for which run->resume must call resume_states(), and return true. After a finished calibration,
 * `run` only checks that the weights are the same. A file of other weights, tokens, arithmetic,
 * recipe or options, a missing chunk, and a disk without room for the chunks end the process. */
bool resume_load(struct resume *resume, struct forward *run, struct scalars *scalars);
void resume_states(const struct resume *resume, const struct forward *run,
                   const struct states *states);

/* What such a run would keep in `folder`, as a line on standard error. A disk without room for it
 * ends the process. */
void resume_plan(const char *folder, const struct forward *run, const struct keeping *keeping,
                 bool quiet);

/* Whether to keep a layer that ended at `time`. With `every` 0, it is due once ten times as long as
 * keeping takes has passed since the last time, or since the beginning: states may be large and
 * layers fast, and so a run spends at most a tenth of its time on it. */
bool resume_is_due(const struct resume *resume, uint64_t layer, double time);

/* After a layer: keep it if it is due, and another follows; or complete what a killed run was
 * keeping. After the first layer, a chunk is written only to see how long that takes, and so that a
 * faulty disk shows. */
void resume_save(struct resume *resume, const struct stage *stage, const struct states *states,
                 const struct scalars *scalars);

/* After the last layer: keep what the result can be made of again, in place of the hidden states.
 */
void resume_finish(struct resume *resume, const struct stage *stage, const struct scalars *scalars);

/* After the result is written: remove the files, unless they are a finished calibration's, and the
 * remains of interrupted writes. The folder stays. */
void resume_end(struct resume *resume);

/* Remove the files of a dead or finished calibration in `folder`, and the folder if it is empty
 * then. Does nothing if there is none. If another program holds its lock, the process ends. */
void resume_discard(const char *folder);

#endif
