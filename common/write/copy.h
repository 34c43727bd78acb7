/* copy.h: ranges of files are shared with their source if the filesystem can; otherwise copied by
 * the kernel; otherwise read and written.
 *
 * copy_file_range(2) is what cp uses. On ext4 with an empty page cache (1.5 GB, one file, medians)
 * it took 0.95 s. read() and write() in units of 1 MiB took as long, a second thread for reading
 * saved nothing, and O_DIRECT on both sides took 1.9 s. On file servers (NFS, SMB) it sends no data
 * over the network. So there is no O_DIRECT here, and no thread. What matters is that the kernel
 * learns early what will be read next (shards.h). */
#ifndef COPY_H
#define COPY_H

#include <stdbool.h>
#include <stdint.h>

/* Counts of how bytes were copied. Starts as all zeros. Sharing is tried for each range, because a
 * run may read from several filesystems, and a failed call costs a microsecond. */
struct copier {
    uint64_t shared;  /* cloned: no new disk space */
    uint64_t copied;  /* by the kernel, or read and written */
    uint64_t written; /* by the caller, through memory */
    uint64_t clones;  /* ranges that were cloned */
    bool no_share;    /* set to forbid sharing */
};

/* Share `length` bytes of `in` at in_offset with `out` at out_offset. If both offsets are equal
 * modulo the page size, the whole pages in the middle are cloned and the rest is copied. The last
 * page of every 64th clone is read back and compared. Returns false, with nothing done, if the
 * filesystem cannot. `what` names the tensor in errors, which end the process. */
bool share_range(struct copier *copier, int in, uint64_t in_offset, int out, uint64_t out_offset,
                 uint64_t length, const char *what);

/* Copy such a range, after share_range() returned false. */
void copy_range(struct copier *copier, int in, uint64_t in_offset, int out, uint64_t out_offset,
                uint64_t length, const char *what);

/* Compare two ranges, which must exist. Returns `length`, or the number of bytes before the first
 * difference. An error ends the process. */
uint64_t compare_range(int in, uint64_t in_offset, int out, uint64_t out_offset, uint64_t length,
                       const char *what);

/* True if a range, which must exist and have bytes, is all zeros. Reads a page in its middle, and
 * the rest only if that is zeros; what lies in holes is not read. Moves the file's offset. */
bool zero_range(int fd, uint64_t offset, uint64_t length, const char *what);

/* Read or write exactly `size` bytes at `offset`. An error or the end of the file ends the process.
 */
void read_at(int fd, uint64_t offset, void *data, uint64_t size, const char *what);
void write_at(int fd, uint64_t offset, const void *data, uint64_t size, const char *what);

/* True if a page of `in` can be cloned into the (empty, writable) file `out`. */
bool can_clone(int in, int out);

#endif
