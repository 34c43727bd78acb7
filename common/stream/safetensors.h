/* safetensors.h: the file format of checkpoints (https://github.com/huggingface/safetensors):
 * u64 little-endian N, N bytes of JSON {name: {dtype, shape, data_offsets: [begin, end]}, …}, then
 * the data, without holes. */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include <stdint.h>

#include "tensor/toc.h"

enum { SAFETENSORS_HEADER_MAX = 100000000 }; /* as the reference implementation has it */

/* Read the header of `fd`, a file of `file_size` bytes, by pread(). Appends one line a tensor to
 * `toc` under `shard`, in the file's order of data, and their absolute offsets to (*offset)[],
 * which is grown (the caller frees it) so that it stays parallel to toc->tensor. Refuses whatever
 * the reference implementation refuses: header longer than the file or 100 MB, not beginning with
 * '{', no UTF-8, unknown dtypes, sizes that do not match, overlaps, holes, bytes left over; and
 * duplicate names besides. Returns NULL, or what is wrong (the caller frees it). */
char *safetensors_read(int fd, uint64_t file_size, struct toc *toc, uint32_t shard,
                       uint64_t **offset);

/* The layout of a file to write: `line[i]`, i < count, are lines of `toc`, all of one shard.
 * Whole-page tensors come first, in stream order, so that all begin at the same offset modulo 4096
 * and can be shared with a source file; then the others by alignment of their dtype. The header is
 * padded with spaces so that the data begin at `phase` modulo 4096 where that keeps every tensor
 * aligned to its dtype, and at 0 otherwise. offset[i] = absolute offset of line[i]. *header gets
 * the bytes from the file's start to the data (the caller frees it), *header_size their number.
 * Returns the file's size. Ends the process if the header would be over 100 MB or the file over
 * 2^63 bytes. */
uint64_t safetensors_layout(const struct toc *toc, const uint32_t *line, size_t count,
                            uint32_t phase, uint64_t *offset, char **header, uint64_t *header_size);

#endif
