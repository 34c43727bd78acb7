/* source.h: the files that a stream's references point into.
 *
 * A reference is worth nothing if its file changed. Each file carries the size and mtime it had
 * when the stream was made; it is checked (regular, size, mtime) when it is opened and again after
 * the last use. Few are open at a time: those in use, and the last ones used.
 *
 * Threads: sources_add(), sources_from_json() and sources_free() need the sources to themselves.
 * Every other function may be called by any thread at any time. */
#ifndef SOURCE_H
#define SOURCE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct source {
    char *label;      /* what references call it: the shard's file name */
    char *path;       /* absolute, links resolved */
    uint64_t size;    /* bytes */
    int64_t mtime_ns; /* nanoseconds since the epoch */
    uint32_t phase;   /* offset modulo 4096 of its whole-page tensors: what st-write aligns to */
};

struct sources {
    struct source *file;
    size_t count;
    struct descriptors *descriptors; /* source.c's: which are open, and who uses them */
};

void sources_free(struct sources *sources);

/* Add the file at `path` under `label`: resolves links, records size and mtime. Ends the process
 * if it is not a regular file or cannot be read. Returns its index. */
size_t sources_add(struct sources *sources, const char *label, const char *path);

/* From and to the `files` object of .stream. NULL, or what is wrong (the caller frees it). */
char *sources_from_json(struct sources *sources, const json_t *files);
json_t *sources_to_json(const struct sources *sources);

/* The index of a label of `length` bytes, or -1. */
int64_t sources_find(const struct sources *sources, const char *label, size_t length);

/* Where a reference points: its text, LABEL@OFFSET+LENGTH, to the index of the file and the offset
 * in it. False unless it is of that form and names `size` bytes inside one of these files. */
bool sources_parse(const struct sources *sources, const char *text, uint64_t size, size_t *source,
                   uint64_t *offset);

/* A descriptor of file i, which stays open until the caller gives it back with sources_release().
 * Ends the process if the file is gone, not regular, or changed. */
int sources_acquire(struct sources *sources, size_t i);
void sources_release(struct sources *sources, size_t i);

/* End the process if file i is gone, not regular, or changed: it counts as opened. */
void sources_verify(struct sources *sources, size_t i);

/* A descriptor of file i that is the caller's, to be closed. */
int sources_dup(struct sources *sources, size_t i);

/* Read exactly `length` bytes at `offset`. `what` names the tensor in errors. */
void sources_read(struct sources *sources, size_t i, uint64_t offset, void *data, size_t length,
                  const char *what);

/* The same as sources_read() from a descriptor of the file at `path`. */
void source_read(int fd, const char *path, uint64_t offset, void *data, size_t length,
                 const char *what);

/* Check all files that were ever opened once more: end the process if one changed meanwhile. */
void sources_check(struct sources *sources);

#endif
