/* pt.h: PyTorch files: a zip of TOP/data.pkl (a pickled dict of tensors) and TOP/data/KEY (the
 * bytes of a storage), as written by torch.save(). */
#ifndef PT_H
#define PT_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/toc.h"

/* Calibration dumps are small; anything larger is refused. Limits the bytes of the file, of all
 * unpacked storages, and of all tensors. */
enum { PT_MAX = 1 << 30 };

/* A file in memory. */
struct pt {
    struct pt_entry *entry; /* the zip's entries, sorted by name */
    size_t entries;
    const char **data; /* data[i]: row-major bytes of the i-th tensor, valid until pt_free() */
    size_t tensors;
};

/* Read the file at `path` and append one line per tensor to `toc` under `shard`, in the dict's
 * order, named by the dict's keys. Refuses a zip that is truncated, corrupt, compressed other than
 * by deflate, has a duplicate name or more than one top folder; big-endian storages; storages that
 * are missing or whose size differs from the pickle's; tensors that are not contiguous or exceed
 * their storage; and what pickle_parse() refuses. Returns NULL, or an error text that the caller
 * frees. Call pt_free() in either case. */
char *pt_read(struct pt *pt, const char *path, struct toc *toc, uint32_t shard);
void pt_free(struct pt *pt);

#endif
