/* kept.h: the hidden states of a run that --resume keeps, in chunks of whole samples. Chunk 3 after
 * layer 12 is the file calibration.0003.12.ts, a tensor stream, and so with a digest:
 *
 *   fingerprint    U8 [64]: as in states.h
 *   options        U8 [64]: as in resume.h
 *   weights        U8 [64]: a digest of the layers that they went through, see forward.h
 *   place          I64 [2]: the layer that they come out of, and the first sample
 *   hidden_states  BF16 [rows, columns]: the samples' tokens, without padding; all columns of
 *                  network_columns()
 *
 * They are not compressed. Of a trained model's states (64 MiB of v4-mini's after each of its
 * layers), zstd -1 leaves 77 %, or 67 % with high and low bytes apart, and takes a processor two to
 * three seconds a GB; lz4 leaves 97 or 82 %. Writing takes a processor a quarter of a second a GB,
 * and the disk one. So it would be slower on one processor, and on several it would take them from
 * the forward pass to save a third.
 */
#ifndef KEPT_H
#define KEPT_H

#include "base/digest.h"
#include "forward/forward.h"

/* Some 64 MiB each; a sixteenth of the whole at most; but whole samples, at least one. */
struct kept {
    const struct forward *run;
    const char *options; /* borrowed, as the next two */
    const char *folder;
    int fd; /* of the folder */
    char fingerprint[DIGEST_TEXT];
    size_t chunks;
    uint64_t *first; /* chunk i has the samples first[i] to first[i + 1] - 1 */
};

/* What the samples of a chunk went through: a layer, or -1 if there is no file, and nothing but
 * their tokens is known; and the digest of the layers up to it. */
struct level {
    int64_t layer;
    char weights[DIGEST_TEXT];
};

void kept_begin(struct kept *kept, const struct forward *run, const char *folder, int fd,
                const char *options);
void kept_end(struct kept *kept);

/* Bytes of all chunks, and of those that are there, of any level. */
uint64_t kept_bytes(const struct kept *kept);
uint64_t kept_there(const struct kept *kept);

/* How many chunks, from the first on, are at `level`. The others must be at `before`, or the
 * process ends. */
size_t kept_ahead(const struct kept *kept, const struct level *level, const struct level *before);

/* Fill the rows of a chunk from its file at `level`. One that is of another run, was changed, or
 * holds NaN or infinity ends the process. */
void kept_load(const struct kept *kept, size_t chunk, const struct level *level,
               struct offloaded hidden);

/* Write a chunk's file at `level` to the disk; `stage` is the program's, for the history. Or remove
 * it, if `level` has a layer. */
void kept_store(const struct kept *kept, const struct stage *stage, size_t chunk,
                const struct level *level, struct offloaded hidden);
void kept_drop(const struct kept *kept, size_t chunk, const struct level *level);

/* True if a file of any chunk may be called so. */
bool kept_is_name(const char *name);

/* Remove the files of all chunks in the folder `fd` at `folder`, of any level and run. */
void kept_remove(int fd, const char *folder);

#endif
