/* safetensors.h: the file format of checkpoints (https://github.com/huggingface/safetensors):
 * u64 little-endian N, N bytes of JSON {name: {dtype, shape, data_offsets: [begin, end]}, …}, then
 * the data, without holes. */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include <stdint.h>

#include "tensor/toc.h"

enum { SAFETENSORS_HEADER_MAX = 100000000 }; /* the limit of the reference implementation */

/* Read the header of `fd`, a file of `file_size` bytes, by pread(). Appends one line per tensor to
 * `toc` under `shard`, in the order of the data, and their absolute offsets to (*offset)[], which
 * stays parallel to toc->tensor; it is reallocated, and the caller frees it. Refuses what the
 * reference implementation refuses: a header longer than the file or 100 MB, one that does not
 * begin with '{' or is not UTF-8, unknown dtypes, sizes that do not match, overlaps, holes,
 * trailing bytes; and duplicate names. Returns NULL, or an error text that the caller frees. */
char *safetensors_read(int fd, uint64_t file_size, struct toc *toc, uint32_t shard,
                       uint64_t **offset);

/* Lay out a file to write: `line[i]`, i < count, are lines of `toc`, all of one shard. Whole-page
 * tensors come first, in stream order, so that all begin at the same offset modulo 4096 and can be
 * shared with a source file; the others follow by alignment of their dtype. The header is padded
 * with spaces so that the data begin at `phase` modulo 4096 if that aligns every tensor to its
 * dtype, and at 0 otherwise. Sets offset[i], the absolute offset of line[i]; *header, the bytes
 * from the file's start to the data (the caller frees it); and *header_size, their number. Returns
 * the file's size. A header over 100 MB or a file over 2^63 bytes ends the process. */
uint64_t safetensors_layout(const struct toc *toc, const uint32_t *line, size_t count,
                            uint32_t phase, uint64_t *offset, char **header, uint64_t *header_size);

#endif
