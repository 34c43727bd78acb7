/* tar_in.h: the entries of a tar archive read from a pipe or file, one by one, and the proof that
 * nothing follows the last one. Private to the reading half of ts.h.
 *
 * Only plain regular files and symbolic links without control characters in their names are
 * accepted. Everything else, and a truncated or damaged archive, ends the process with the offset.
 */
#ifndef TAR_IN_H
#define TAR_IN_H

#include <stddef.h>
#include <stdint.h>

#include "base/checksum.h"

struct tar_in;

/* An entry whose header was read. Valid until the tar_peek() that follows tar_use(). */
struct tar_entry {
    const char *path;
    const char *target; /* a symbolic link's text; NULL for a regular file */
    int64_t size;       /* bytes of a regular file, as announced */
    unsigned mode;      /* its permissions */
};

/* Read an archive from `fd`, which tar_close() closes unless it is standard input. `name`, for
 * messages, must live as long. */
struct tar_in *tar_open(int fd, const char *name);
void tar_close(struct tar_in *tar);

/* tar_peek() returns the next entry, the same until tar_use() makes it the current one; NULL at the
 * end of the archive. */
const struct tar_entry *tar_peek(struct tar_in *tar);
void tar_use(struct tar_in *tar);

/* Read exactly the next `size` bytes of the current entry; `what` names it in messages. */
void tar_read(struct tar_in *tar, void *data, size_t size, const char *what);

/* Skip the unread rest of the current entry. */
void tar_skip(struct tar_in *tar, const char *what);

/* The checksum of the stream so far (stream_digest.h), which is not continued: the caller ends it.
 */
struct checksum *tar_take_checksum(struct tar_in *tar);

/* Read the next entry, which must be a regular file called `name` of at most `max` bytes: its
 * bytes, NUL-terminated, which the caller frees; *size without the NUL. */
char *tar_read_file(struct tar_in *tar, const char *name, uint64_t max, size_t *size);

/* Check that the current entry, fully read, is the last, and that only zeros follow it up to the
 * end of the file. */
void tar_prove_end(struct tar_in *tar);

/* End the process because of the entry `name` (NULL: it has none), whose header was read last:
 * prints its offset and why. */
_Noreturn void tar_refuse(struct tar_in *tar, const char *name, const char *why);

#endif
