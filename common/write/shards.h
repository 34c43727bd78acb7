/* shards.h: the safetensors files of a checkpoint, written tensor by tensor in any order, and those
 * that an earlier run finished, which are not written again. */
#ifndef SHARDS_H
#define SHARDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stream/ts.h"
#include "write/copy.h"
#include "write/output_dir.h"

struct shards;

/* The shards of a table, which must live as long. The caller frees them with shards_free(). */
struct shards *shards_list(struct toc *toc);

/* The same, with a layout for each file: sizes and offsets. Nothing is written. Whole pages of a
 * shard lie as in the source file of the same label in `in`, if there is one, so that they can be
 * shared. `copier`, which must live as long, says how bytes may go, and counts them. */
struct shards *shards_plan(struct toc *toc, struct ts_in *in, struct copier *copier);

/* A file of them. */
struct shard_file {
    const char *name;
    uint64_t size; /* bytes; 0 if there is no layout */
    bool finished; /* whole and on disk, as the journal has it */
};

/* How many shards the table has; the file of the i-th, false if it holds context only and has none;
 * bytes of all files. */
size_t shards_count(const struct shards *shards);
bool shards_file(const struct shards *shards, size_t i, struct shard_file *file);
uint64_t shards_bytes(const struct shards *shards);

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
