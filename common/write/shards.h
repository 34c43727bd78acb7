/* shards.h: the safetensors files of a checkpoint, written tensor by tensor in any order, and those
 * that an earlier run finished, which are not written again. */
#ifndef SHARDS_H
#define SHARDS_H

#include <pthread.h>

#include "stream/ts.h"
#include "write/copy.h"
#include "write/output_dir.h"
#include "write/shard_record.h"

struct shard {
    const char *name;
    uint32_t *line; /* its lines of the table, data only */
    size_t count;   /* 0: context only, no file */
    size_t left;    /* tensors still to be written */
    bool made;      /* its file, by this run */
    uint64_t size;  /* bytes of the file */
    char *note;     /* of the journal, from SIZE on; NULL until it is whole and on disk */
};

/* A shard that is complete, on its way to the disk: a thread waits for that, while the next one is
 * read. */
struct syncing {
    pthread_t thread;
    uint32_t shard; /* UINT32_MAX: none */
    int fd;
    int error; /* errno of fsync(), or 0 */
};

/* References that wait to be copied, while the kernel reads ahead what they refer to: tensors come
 * in the model's order, which leaps about in the source's files. */
enum { WAITING_MAX = 64, WAITING_BYTES = 64 << 20 };
struct waiting {
    struct {
        size_t line, source;
        uint64_t from;
    } range[WAITING_MAX]; /* a ring */
    size_t first, count;
    uint64_t bytes;
};

struct shards {
    struct toc *toc;
    struct shard *shard;
    size_t count;
    uint64_t *offset;    /* by line of the table */
    struct proof *proof; /* by line of the table: of what was written */
    uint64_t bytes;      /* of all files */
    uint64_t written;    /* bytes that came through memory, headers among them */
    struct copier copier;
    uint32_t current; /* the shard that is open, or UINT32_MAX */
    int fd;
    struct waiting waiting;
    struct syncing syncing;
};

/* The shards of a table, which must live as long. The caller frees them with shards_free(). */
void shards_list(struct shards *shards, struct toc *toc);

/* The same, with a layout for each file: sizes and offsets. Nothing is written. Whole pages of a
 * shard lie as in the source file of the same label in `in`, if there is one, so that they can be
 * shared. */
void shards_plan(struct shards *shards, struct toc *toc, struct ts_in *in);

/* Give the shards that are finished by the target's journal their notes; returns how many. */
size_t shards_resume(struct shards *shards, const struct output_dir *output);

/* Bytes of the files that are not finished, and how many of them an earlier run left on the disk,
 * to be written over. */
uint64_t shards_to_write(const struct shards *shards);
uint64_t shards_left_over(const struct shards *shards, const struct output_dir *output);

/* Write the present tensor of `in` as that line of the table, unless its shard is finished: shared
 * or copied if it comes by reference, else through memory. The file is made with its first tensor
 * (full size, header in place); with its last one it begins to be synced. The target is the same in
 * all calls. */
void shards_write(struct shards *shards, struct output_dir *output, struct ts_in *in, size_t line);

/* All was written: copy what waits for it, and see the last shards synced and noted in the target's
 * journal. */
void shards_end(struct shards *shards, struct output_dir *output, struct ts_in *in);

/* How many files are not finished. */
size_t shards_missing(const struct shards *shards);

/* Read all files again, from the disk, and compare them with what the journal says of them. One
 * that differs is noted as one to be written anew, and ends the process. */
void shards_verify(struct shards *shards, struct output_dir *output, struct ts_in *in);

void shards_free(struct shards *shards);

/* The text of model.safetensors.index.json: total_size and weight_map. The caller frees it; NULL
 * where names repeat in several shards (the model-parallel layout has no index). */
char *shards_index(struct toc *toc);

#endif
