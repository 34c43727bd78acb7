/* pt.h: PyTorch's files: a zip of TOP/data.pkl (a pickled dict of tensors) and TOP/data/KEY (the
 * bytes of a storage), as torch.save() writes them. */
#ifndef PT_H
#define PT_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/toc.h"

/* Dumps of calibrations are small; whatever claims more is refused: bytes of the file, of all
 * storages unpacked, and of all tensors. */
enum { PT_MAX = 1 << 30 };

/* A file in memory. */
struct pt {
    struct pt_entry *entry; /* what is in the zip, sorted by name */
    size_t entries;
    const char **data; /* data[i]: row-major bytes of the i-th tensor, valid until pt_free() */
    size_t tensors;
};

/* Read all of the file at `path` and append one line a tensor to `toc` under `shard`, in the dict's
 * order, names being the dict's keys. Refuses a zip that is cut, changed, packed otherwise than by
 * deflate, holds a name twice, or more than one top folder; big-endian storages, storages whose
 * size differs from what the pickle says or that are missing, tensors outside of their storage or
 * not contiguous, and what pickle_parse() refuses. Returns NULL, or what is wrong (the caller frees
 * the text); pt_free() in either case. */
char *pt_read(struct pt *pt, const char *path, struct toc *toc, uint32_t shard);
void pt_free(struct pt *pt);

#endif
