/* tar_in.h: the entries of a tar archive that comes through a pipe or file, one after the other,
 * and the proof that nothing follows the last one. Below ts.h, which alone uses it.
 *
 * Only plain regular files and symbolic links without control characters in their names are taken.
 * Everything else, and whatever is cut or damaged, ends the process with the place where it lies.
 */
#ifndef TAR_IN_H
#define TAR_IN_H

#include <stddef.h>
#include <stdint.h>

struct tar_in;

/* An entry whose header was read; valid until the next tar_peek() after tar_use(). */
struct tar_entry {
    const char *path;
    const char *target; /* a symbolic link's text; NULL for a regular file */
    int64_t size;       /* bytes of a regular file, as announced */
};

/* Read an archive from `fd`, which is closed in the end unless it is standard input. `name` is what
 * messages call it; it must live as long. */
struct tar_in *tar_open(int fd, const char *name);
void tar_close(struct tar_in *tar);

/* The next entry, however often this is called before tar_use(), which takes it: from then on it is
 * the present one. NULL at the end of the archive. */
const struct tar_entry *tar_peek(struct tar_in *tar);
void tar_use(struct tar_in *tar);

/* Read exactly the next `size` bytes of the present entry; `what` names it in messages. */
void tar_read(struct tar_in *tar, void *data, size_t size, const char *what);

/* Pass over what was not read of the present entry. */
void tar_skip(struct tar_in *tar, const char *what);

/* Use the next entry, which must be a regular file called `name` of at most `max` bytes: all of it,
 * with a 0 after it, in memory that the caller frees. */
char *tar_read_file(struct tar_in *tar, const char *name, uint64_t max, size_t *size);

/* The present entry, all of which was read, must be the last, and nothing but zeros may follow it
 * up to the end of the file. */
void tar_prove_end(struct tar_in *tar);

/* End the process over the entry `name` (NULL: it has none), whose header was read last: where it
 * lies, and why. */
_Noreturn void tar_refuse(struct tar_in *tar, const char *name, const char *why);

#endif
