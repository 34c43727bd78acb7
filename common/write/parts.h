/* parts.h: a checkpoint written by several processes or machines together, each writing its part of
 * the shards. The parts of DST are built in DST.partial:
 *
 *     DST.partial/part-1-of-3-0a1b2c3d4e5f/          a part that is complete and on disk
 *     DST.partial/part-2-of-3-0a1b2c3d4e5f.partial/  one being written, or interrupted
 *
 * Each is an output directory of its own (output_dir.h): an interrupted part can be continued, and
 * a part without ".partial" is complete. It holds shards; "part.ts", a stream without tensors: the
 * part's table, the side files, and the counts of the stages; and "part.notes", the journal's notes
 * of its shards (shard_record.h). The hexadecimal digits are the first of the run's identity. The
 * machines share nothing but the names.
 *
 * At the end the parts are joined. Their tables form the whole table; from it come configurations,
 * index and side files; and the shards move up. */
#ifndef PARTS_H
#define PARTS_H

#include "base/digest.h"
#include "stream/ts.h"

/* End the process where parts_folder() would for the parts that `partial` holds. For a scope that
 * is no part, their number does not matter; with `identity` NULL, neither does their run. */
void parts_check(const char *partial, const char *scope, const char *identity);

/* The folder in `partial` for the part given by `scope` ("part 2/3", or "part 2/3, shards …" for a
 * run that writes only what is missing); the caller frees it. Makes `partial` if needed. NULL if
 * the scope is not a part. Parts of another run, or of another number of parts, end the process. */
char *parts_folder(const char *partial, const char *scope, const char *identity);

/* The folder in `partial` of part `number` of `of`, named without ".partial", and whether the part
 * is complete; the caller frees the path. NULL if no run of that part left one. */
char *parts_present(const char *partial, uint64_t number, uint64_t of, bool *complete);

/* In how many parts the run is of which `partial` holds one, complete or not; 0 if it holds none.
 */
uint64_t parts_begun(const char *partial);

/* True for a part's folder, and for what it holds besides shards and journal. */
bool parts_own(const char *name);

/* Bytes on disk of all parts' files in `partial`. Plans count them as room for the remaining parts.
 */
uint64_t parts_left_over(const char *partial);

/* The notes in the folder of a complete part, which the caller frees. */
char *parts_notes(const char *folder);

/* All shards of a part are in `folder`: write its part.ts and part.notes, which are `notes`. `toc`
 * is the part's whole table; `in` may have brought only what an earlier run had not finished, which
 * left `finished` shards. Closes `in`. */
void parts_leave(const char *folder, const struct stage *stage, struct ts_in *in,
                 const struct toc *toc, const char *notes, const char *identity, uint64_t finished);

struct parts {
    struct ts_in *in;  /* the first part's, read to its end: header and side files are the same in
                        * all */
    struct toc *toc;   /* of the whole, in stream order */
    json_t *counts;    /* summed over all parts */
    char *notes;       /* of all parts' shards */
    uint64_t finished; /* shards written by runs that died */
    char identity[DIGEST_TEXT];
};

/* Read the part.ts and part.notes of all parts in `partial`. A missing or incomplete part, parts
 * that do not belong together, and a file in one that is not the part's end the process.
 * parts_free() frees the content. */
void parts_gather(struct parts *parts, const char *partial);
void parts_free(struct parts *parts);

/* A descriptor of a shard's file, wherever it is in `partial`, which the caller closes; -1 if it is
 * nowhere. `folder`, which the caller frees, is where it is. */
int parts_open(const char *partial, const char *shard, char **folder);

/* Move the shards of all parts up into `partial`, and remove the parts' folders. Can be repeated
 * after an interruption. */
void parts_move_up(const char *partial);

#endif
