/* copy.h: ranges of files shared with their source where the filesystem can, else copied inside the
 * kernel, else read and written.
 *
 * copy_file_range(2) is what cp uses. On ext4 with an empty page cache (1.5 GB, one file, medians)
 * it took 0.95 s, read() and write() by 1 MiB as long, a second thread for the reads no less,
 * O_DIRECT on both sides 1.9 s; where servers hold the files (NFS, SMB) it sends no byte over the
 * network. So there is no O_DIRECT here, and no thread. What counts is that the kernel knows in
 * time what will be read next (shards.h). */
#ifndef COPY_H
#define COPY_H

#include <stdbool.h>
#include <stdint.h>

/* How bytes went. Starts as all zeros. Each range is tried anew, for a run may read from several
 * filesystems, and a call that fails costs a microsecond. */
struct copier {
    uint64_t shared;  /* cloned: no new disk space */
    uint64_t copied;  /* by the kernel, or read and written */
    uint64_t written; /* by its user, through memory */
    uint64_t clones;  /* ranges that were cloned */
    bool no_share;    /* set to forbid sharing */
};

/* Share `length` bytes of `in` at in_offset with `out` at out_offset: where both lie at the same
 * place in a page, the whole pages in the middle are cloned, and what is around them is copied; of
 * every 64th clone the last page is read back and compared. False, with nothing done, if the
 * filesystem cannot. `what` names the tensor in errors, which end the process. */
bool share_range(struct copier *copier, int in, uint64_t in_offset, int out, uint64_t out_offset,
                 uint64_t length, const char *what);

/* Copy such a range; sharing it was tried. */
void copy_range(struct copier *copier, int in, uint64_t in_offset, int out, uint64_t out_offset,
                uint64_t length, const char *what);

/* Read both ranges, which must be there: `length`, or the number of bytes before the first that
 * differs. An error ends the process. */
uint64_t compare_range(int in, uint64_t in_offset, int out, uint64_t out_offset, uint64_t length,
                       const char *what);

/* Read or write all of `size` bytes at `offset`; an error, or the file's end, ends the process. */
void read_at(int fd, uint64_t offset, void *data, uint64_t size, const char *what);
void write_at(int fd, uint64_t offset, const void *data, uint64_t size, const char *what);

/* True if a page of `in` can be cloned into the (empty, writable) file `out`. */
bool can_clone(int in, int out);

#endif
