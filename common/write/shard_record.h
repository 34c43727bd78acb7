/* shard_record.h: the journal's note of a shard that is complete and on disk.
 *
 * The note is "shard NAME SIZE MTIME PROOF...", separated by tabs: the file's size in bytes, its
 * mtime in nanoseconds, and a proof of each tensor in the table's order. A tensor whose bytes came
 * inline is proven by their checksum, XXH3-64 (https://xxhash.com) in 16 hexadecimal digits. One
 * that came by reference is proven by that reference, LABEL@OFFSET: it has the bytes of a source
 * whose size and mtime are part of the run's identity. The kernel shared or copied them without
 * reading them into memory, so a checksum would cost reading them all, and would prove less than
 * the source itself.
 *
 * A shard counts as finished if its file has the note's size and mtime, since a later write changes
 * them. Only shard_record_verify() reads it again. */
#ifndef SHARD_RECORD_H
#define SHARD_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "stream/source.h"
#include "tensor/toc.h"

#define PROOF_CHECKSUM UINT32_MAX
struct proof {
    uint32_t source; /* the bytes equal those of this file at `value`, … */
    uint64_t value;  /* … or, for PROOF_CHECKSUM, have this checksum */
};

/* The note of a shard, including the newline, which the caller frees. `status` is the file's;
 * `proof` has an entry for each line of the table, of which the shard's `count` lines are used. */
char *shard_record_note(const char *shard, const struct stat *status, const struct sources *sources,
                        const struct proof *proof, const uint32_t *line, size_t count);

/* True if `status` has the note's size and mtime; `note` begins at SIZE. */
bool shard_record_matches(const char *note, const struct stat *status);

/* Where the proofs of a note begin, one of each of `count` tensors in the note's order: an array
 * that the caller frees, valid as long as the note; NULL if it has another number of them. `note`
 * begins at SIZE and ends with a NUL. */
const char **shard_record_proofs(const char *note, size_t count);

/* True if the proof in a note, followed by a tab or the end, is this one. */
bool shard_record_has(const char *text, const struct proof *proof, const struct sources *sources);

/* True if the proof in a note is a checksum, which becomes *checksum; else it is a reference. */
bool shard_record_checksum(const char *text, uint64_t *checksum);

/* Read the tensors of a shard from `fd` at `offset` (by line of the table), and compare them with
 * the note's proofs. Returns NULL, or the first tensor that differs; then *at is the offset in the
 * file from which it differs. A system error ends the process. */
const struct tensor *shard_record_verify(const char *note, int fd, struct sources *sources,
                                         const struct toc *toc, const uint32_t *line, size_t count,
                                         const uint64_t *offset, uint64_t *at);

#endif
