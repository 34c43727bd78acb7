/* source.h: the files that a stream's references point into.
 *
 * A reference is worth nothing if its file changed. Each file carries the size and mtime it had
 * when the stream was made; it is checked (regular, size, mtime) when it is opened and again after
 * the last use. Few are open at a time. */
#ifndef SOURCE_H
#define SOURCE_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct source {
    char *label;      /* what references call it: the shard's file name */
    char *path;       /* absolute, links resolved */
    uint64_t size;    /* bytes */
    int64_t mtime_ns; /* nanoseconds since the epoch */
    uint32_t phase;   /* offset modulo 4096 of its whole-page tensors: what st-write aligns to */
    int fd;           /* -1 if not open */
    uint64_t used;    /* when last, for closing the oldest */
    unsigned readers; /* threads that read from fd just now */
    bool opened;      /* was it ever? */
};

struct sources {
    struct source *file;
    size_t count;
    struct names *labels; /* their numbers are indices of file[] */
    uint64_t clock;
    size_t open;
    pthread_mutex_t *mutex; /* guards what opens and closes */
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

/* An open descriptor of file i, valid until the next call. Ends the process if the file is gone,
 * not regular, or changed. */
int sources_fd(struct sources *sources, size_t i);

/* Read exactly `length` bytes at `offset`. `what` names the tensor in errors. Several threads may
 * do this at a time, while none calls another function. */
void sources_read(struct sources *sources, size_t i, uint64_t offset, void *data, size_t length,
                  const char *what);

/* A descriptor of file i that is the caller's, to be closed. Any thread may ask for one. */
int sources_dup(struct sources *sources, size_t i);

/* The same as sources_read() from a descriptor of the file at `path`. */
void source_read(int fd, const char *path, uint64_t offset, void *data, size_t length,
                 const char *what);

/* Check all files that were ever opened once more: end the process if one changed meanwhile. */
void sources_check(struct sources *sources);

#endif
