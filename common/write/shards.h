/* shards.h: the safetensors files of a checkpoint, written tensor by tensor in any order. Those
 * that an earlier run finished are not written again. */
#ifndef SHARDS_H
#define SHARDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stream/ts.h"
#include "write/copy.h"
#include "write/output_dir.h"

struct shards;

/* The shards of a table, which must outlive them. shards_free() frees the result. */
struct shards *shards_list(struct toc *toc);

/* The same, with a layout for each file: sizes and offsets. Writes nothing. Whole pages of a shard
 * are aligned as in the source file with the same label in `in`, if there is one, so that they can
 * be shared. `copier`, which must outlive the shards, says how bytes may be copied, and counts
 * them. */
struct shards *shards_plan(struct toc *toc, struct ts_in *in, struct copier *copier);

/* The file of a shard. */
struct shard_file {
    const char *name;
    uint64_t size; /* bytes; 0 without a layout */
    bool finished; /* complete and on disk, according to the journal */
};

/* The number of shards in the table; the file of the i-th, false if it holds only context and has
 * none; and the bytes of all files. */
size_t shards_count(const struct shards *shards);
bool shards_file(const struct shards *shards, size_t i, struct shard_file *file);
uint64_t shards_bytes(const struct shards *shards);

/* Mark the shards that are finished according to the output directory's journal, but those of
 * sources that something happened to since (touched.h); returns how many. */
size_t shards_resume(struct shards *shards, const struct output_dir *output);

/* The notes of all finished shards, as in the journal, which the caller frees. */
char *shards_notes(const struct shards *shards);

/* Mark the shards as finished that such notes are of. */
void shards_take_notes(struct shards *shards, const char *notes);

/* How the file of the i-th shard, open as `fd`, differs from what was written according to its
 * note; the caller frees the text. NULL if it does not. Looks at its type, size and mtime, or, with
 * `read`, reads all of it again from disk instead, and what references in `in` refer to. */
char *shards_file_difference(struct shards *shards, size_t i, int fd, struct ts_in *in, bool read);

/* Bytes of the files that are not finished, and how many bytes of them an earlier run left on disk,
 * to be overwritten. */
uint64_t shards_to_write(const struct shards *shards);
uint64_t shards_left_over(const struct shards *shards, const struct output_dir *output);

/* Write the current tensor of `in` as that line of the table: shared or copied if it comes by
 * reference, otherwise through memory. If its shard is finished, shards_check() instead. The file
 * is created with its first tensor (full size, header in place). After its last tensor, syncing
 * begins. `output` must be the same in all calls. */
void shards_write(struct shards *shards, struct output_dir *output, struct ts_in *in, size_t line);

/* Check that the current tensor of `in`, that line of the table, is what its finished shard in
 * `folder` was written from, according to the shard's note: the same reference, or the same bytes.
 * If not, the process ends. */
void shards_check(struct shards *shards, const char *folder, struct ts_in *in, size_t line);

/* After the last tensor: finish pending copies, sync the last shards and note them in the journal.
 * ts_end_counts() then counts the shards that an earlier run finished, too. */
void shards_end(struct shards *shards, struct output_dir *output, struct ts_in *in);

/* The number of files that are not finished. */
size_t shards_missing(const struct shards *shards);

/* Read all files again from disk, and compare them with the journal. A file that differs is noted
 * as to be written again, and ends the process. */
void shards_verify(struct shards *shards, struct output_dir *output, struct ts_in *in);

/* How many matrices and their scales are all zeros in the file of the i-th shard, open as `fd`;
 * with *first NULL, it becomes the name of the first. As incomplete downloads leave them: nothing
 * else reads what was copied by reference. It is known of what this run wrote; other files are
 * read. */
uint64_t shards_zeros(struct shards *shards, size_t i, int fd, const char **first);

/* Compare the current tensor of `in`, that line of the table, with the shard of a finished
 * checkpoint in `folder`, and with each shard its header. A difference ends the process. `folder`
 * must be the same in all calls, and shards_write() is not called. */
void shards_compare(struct shards *shards, const char *folder, struct ts_in *in, size_t line);

void shards_free(struct shards *shards);

/* The text of model.safetensors.index.json: total_size and weight_map. The caller frees it. NULL if
 * a name is in several shards (the model-parallel layout has no index). */
char *shards_index(struct toc *toc);

#endif
