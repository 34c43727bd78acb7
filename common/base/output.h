/* output.h: a file that a program writes (-o FILE, --summary FILE). */
#ifndef OUTPUT_H
#define OUTPUT_H

#include <stdbool.h>

/* End the process if output_open() or output_finish() could not write `file`: it is a folder, a
 * link to nothing, somebody else's link or FIFO (owner.h), or another user's in a folder where only
 * they may replace it; or in its folder, which may be missing, no file can be made. Leaves nothing
 * behind. */
void output_check(const char *file);

/* The same for a folder in which a program is to write files, and which it makes if needed. */
void output_check_folder(const char *folder);

/* The folder that a path lies in, which the caller frees. */
char *output_folder_of(const char *path);

/* True if `file` lies in `folder`, which is there. */
bool output_is_in(const char *file, const char *folder);

/* True if both are names of one regular file, which need not exist yet. */
bool output_is_same(const char *a, const char *b);

/* Opened by output_open(), closed by output_finish(), which frees its strings. */
struct output {
    const char *name; /* for messages: as given, or "standard output" */
    int fd;           /* what to write to */
    char *path;       /* final name, symbolic links resolved; NULL if it is written directly */
    char *temporary;  /* the name that the file has until then; NULL if it has none */
};

/* Open `file`, a string that must outlive the output; NULL is standard output, which is the
 * output's alone from then on: descriptor 1 becomes another of standard error.
 *
 * A regular file is a new one, which no other process can write, link or replace: it has no name
 * until it is complete. So a failed or killed run leaves nothing, an old file stays until then, and
 * of two runs that write the same file, the last one's is there in the end. Where the filesystem
 * has no files without names (NFS, FUSE), it is called FILE.N.partial, with the first free number;
 * elsewhere it is for the moment in which it replaces an old file. A killed run leaves that one.
 * What others put under that name does not become FILE, and ends the process. Permissions that an
 * old file has not, the new one has not, either. A symbolic link's target is written. A device or
 * FIFO is written directly, because a rename would replace it by a file.
 *
 * What output_check() refuses and every other failure ends the process. */
void output_open(struct output *out, const char *file);

/* Flush the file to disk, give it its name, and close it. Ends the process
 * on failure. */
void output_finish(struct output *out);

#endif
