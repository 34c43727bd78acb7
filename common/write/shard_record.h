/* shard_record.h: what the journal says of a shard that is whole and on disk.
 *
 * Its note is "shard NAME SIZE MTIME PROOF...", with tabs between: the file's bytes, its mtime in
 * nanoseconds, and a proof of each tensor in the table's order. A tensor whose bytes came with the
 * stream is proven by their checksum, XXH3-64 (https://xxhash.com) in 16 hexadecimal digits. One
 * that came by reference is proven by that reference, LABEL@OFFSET: it has the bytes of a source
 * whose size and mtime are part of the run's identity. The kernel shared or copied them unseen, so
 * that a checksum would cost reading them all, and would say less than the source itself.
 *
 * A shard is taken as finished if its file has the size and mtime of the note: whatever writes to
 * it later changes them. Only shard_record_verify() reads it again. */
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
    uint32_t source; /* the file of that index has the same bytes at `value`, */
    uint64_t value;  /* or, with PROOF_CHECKSUM, this is their checksum */
};

/* The note of a shard, newline included, that the caller frees: `status` of the file, and proofs of
 * all lines of the table, of which the `count` lines of the shard are used. */
char *shard_record_note(const char *shard, const struct stat *status, const struct sources *sources,
                        const struct proof *proof, const uint32_t *line, size_t count);

/* True if `status` has the size and mtime of a note; `note` begins at SIZE. */
bool shard_record_matches(const char *note, const struct stat *status);

/* Read the tensors of a shard from `fd`, of which `offset` (by line of the table) says where they
 * lie, and see that they are what the note proves: NULL, or the first that is not, with the offset
 * in the file from which it differs through *at. An error of the system ends the process. */
const struct tensor *shard_record_verify(const char *note, int fd, struct sources *sources,
                                         const struct toc *toc, const uint32_t *line, size_t count,
                                         const uint64_t *offset, uint64_t *at);

#endif
