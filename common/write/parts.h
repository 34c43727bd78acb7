/* parts.h: a checkpoint that several processes, or machines, write together, each its part of the
 * shards. What is to become DST is built in DST.partial, as always:
 *
 *   DST.partial/part-1-of-3-0a1b2c3d4e5f/          a part that is complete and on disk
 *   DST.partial/part-2-of-3-0a1b2c3d4e5f.partial/  one that is being written, or was cut off
 *
 * Each is a target of its own (output_dir.h), so that a part that died is continued, and one that
 * is there is whole. It holds shards and "part.ts", a stream without tensors: the part's table, the
 * side files, and what the stages counted. The digits are the first of the run's identity. Nothing
 * but names is shared between the machines.
 *
 * In the end the parts are joined: from all tables comes the one of the whole, with it
 * configurations, index and side files, and the shards move up. */
#ifndef PARTS_H
#define PARTS_H

#include "base/digest.h"
#include "stream/ts.h"

/* The folder of the part that `scope` ("part 2/3", or of a run that goes on with what is missing,
 * "part 2/3, shards …") is, in `partial`, which is made if it is not there; the caller frees it.
 * NULL if the scope is of no part. Parts of another run in `partial`, or in other numbers, end the
 * process. */
char *parts_folder(const char *partial, const char *scope, const char *identity);

/* The folder in which part `number` of `of` is in `partial`, or becomes one, and whether it is
 * complete; the caller frees it. NULL if no run of that part left one. */
char *parts_present(const char *partial, uint64_t number, uint64_t of, bool *complete);

/* Bytes on disk of the files of all parts in `partial`, for plans: room for those to come. */
uint64_t parts_left_over(const char *partial);

/* All shards of a part are in `folder`: leave its part.ts there. `toc` is its whole table, of which
 * `in` may have brought what an earlier run did not finish: `finished` shards. Closes `in`. */
void parts_leave(const char *folder, const struct stage *stage, struct ts_in *in,
                 const struct toc *toc, const char *identity, uint64_t finished);

struct parts {
    struct ts_in *in;  /* one of them, read to its end: header and side files are those of all */
    struct toc *toc;   /* of the whole, in the model's order */
    json_t *counts;    /* of all parts together */
    uint64_t finished; /* shards that were written by runs which died: they are not counted */
    char identity[DIGEST_TEXT];
};

/* Read what the parts in `partial` left. One that is missing or not complete, and parts that do not
 * belong together, end the process. The caller frees it with parts_free(). */
void parts_gather(struct parts *parts, const char *partial);
void parts_free(struct parts *parts);

/* Bytes of a shard, wherever in `partial` it is; false if it is nowhere. */
bool parts_find(const char *partial, const char *shard, uint64_t *size);

/* Move the shards of all parts up into `partial`, and remove their folders. Done again after having
 * been cut off, it goes on. */
void parts_move_up(const char *partial);

#endif
