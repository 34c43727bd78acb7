/* output.h: a file that a program writes (-o FILE, --summary FILE). */
#ifndef OUTPUT_H
#define OUTPUT_H

/* Made by output_open(), ended by output_finish(). */
struct output {
    const char *name; /* for messages: as it was given, or "standard output" */
    int fd;           /* what to write to */
    char *partial;    /* the file's name until it is whole; NULL if it is written to directly */
    char *path;       /* then its name: behind symbolic links; NULL if there is no partial */
};

/* Open `file`, which must outlive the output; NULL is standard output. A regular file is written as
 * FILE.partial beside it, so that what a failed run leaves does not look finished, and an old one
 * stays until the new one is whole; through a symbolic link it is the link's target. A device or
 * FIFO is written to directly, for a rename would put a file in its place. Ends the process if that
 * fails, and for a folder and a link to nothing. */
void output_open(struct output *out, const char *file);

/* All is written: onto the disk, close it (not standard output), give it its name. Ends the process
 * if that fails. */
void output_finish(struct output *out);

#endif
