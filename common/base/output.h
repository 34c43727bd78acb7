/* output.h: a file that a program writes (-o FILE, --summary FILE). */
#ifndef OUTPUT_H
#define OUTPUT_H

/* Opened by output_open(), closed by output_finish(), which frees its strings. */
struct output {
    const char *name; /* for messages: as given, or "standard output" */
    int fd;           /* what to write to */
    char *partial;    /* temporary name while it is written; NULL if it is written directly */
    char *path;       /* final name, with symbolic links resolved; NULL if there is no partial */
};

/* Open `file`, a string that must outlive the output; NULL is standard output. A regular file is
 * written as FILE.partial beside it: a failed run leaves nothing that looks finished, and an old
 * file stays until the new one is complete. A symbolic link's target is written. A device or FIFO
 * is written directly, because a rename would replace it by a file. A failure, a folder and a
 * dangling link end the process. */
void output_open(struct output *out, const char *file);

/* Flush the file to disk, close it (except standard output) and rename it. Ends the process on
 * failure. */
void output_finish(struct output *out);

#endif
