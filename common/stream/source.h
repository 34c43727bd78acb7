/* source.h: the files that a stream's references point into.
 *
 * A reference is valid only while its file is unchanged. Each file has the size, mtime and
 * ctime from when the stream was made. It is checked (regular, and these) when it is opened and
 * again after the last use. A file that was replaced by one of the same size and mtime has another
 * ctime, which only the kernel sets; so its inode, which is not the same for long on some
 * filesystems (FUSE), need not be compared. Only a few files are open at a time: those in use and
 * the last ones used.
 *
 * Threads: during sources_add(), sources_from_json() and sources_free() no other thread may use the
 * sources. Any thread may call any other function at any time. */
#ifndef SOURCE_H
#define SOURCE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct source {
    char *label;      /* the name in references: the shard's file name */
    char *path;       /* absolute, links resolved */
    uint64_t size;    /* bytes */
    int64_t mtime_ns; /* nanoseconds since the epoch */
    int64_t ctime_ns; /* the same of its status; 0: not known */
    uint32_t phase;   /* offset modulo 4096 of its whole-page tensors, which st-write aligns to */
    bool claimed;     /* a stream's tensors refer to it (reach.h) */
};

struct sources {
    struct source *file;
    size_t count;
    char *folder; /* of the checkpoint, which files may lie in (reach.h); NULL: not known */
    struct descriptors *descriptors; /* private to source.c: open files and their users */
};

void sources_free(struct sources *sources);

/* True if a stream can refer to files at this absolute path: in UTF-8, it has no control character
 * or another that is not plain (text.h). */
bool source_path_valid(const char *path);

/* Add the file at `path` under `label`: resolve links, record size and mtime. Returns its index. A
 * file that is not regular or cannot be read ends the process. */
size_t sources_add(struct sources *sources, const char *label, const char *path);

/* Read and write the `files` object of .stream. sources_from_json() returns NULL, or an error text
 * that the caller frees; the caller owns the result of sources_to_json(). */
char *sources_from_json(struct sources *sources, const json_t *files);
json_t *sources_to_json(const struct sources *sources);

/* The index of a label of `length` bytes, or -1. */
int64_t sources_find(const struct sources *sources, const char *label, size_t length);

/* Parse a reference, LABEL@OFFSET+LENGTH, into the index of the file and the offset in it. False
 * unless it has that form and names `size` bytes inside one of these files. */
bool sources_parse(const struct sources *sources, const char *text, uint64_t size, size_t *source,
                   uint64_t *offset);

/* A descriptor of file i, which stays open until sources_release(). A file that is missing, not
 * regular or changed ends the process. */
int sources_acquire(struct sources *sources, size_t i);
void sources_release(struct sources *sources, size_t i);

/* End the process if file i is missing, not regular or changed. The file then counts as opened. */
void sources_verify(struct sources *sources, size_t i);

/* A duplicate descriptor of file i, which the caller closes. */
int sources_dup(struct sources *sources, size_t i);

/* Read exactly `length` bytes at `offset`. `what` names the tensor in errors. */
void sources_read(struct sources *sources, size_t i, uint64_t offset, void *data, size_t length,
                  const char *what);

/* As sources_read(), from a descriptor of the file at `path`. */
void source_read(int fd, const char *path, uint64_t offset, void *data, size_t length,
                 const char *what);

/* Check the files that were used since the last call again; one that has changed ends the process.
 */
void sources_check_fresh(struct sources *sources);

/* Check all files that were ever opened again; one that has changed ends the process. */
void sources_check(struct sources *sources);

#endif
