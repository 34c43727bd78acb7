/* output_dir.h: the folder that a checkpoint is built in, locked: DST.partial beside DST, renamed
 * to DST in one step when everything in it is on disk. DST only ever exists complete.
 *
 * An empty folder that cannot be replaced so (a mount point, or its parent is not writable) is
 * worked in: everything is built in DST/.partial and moved up in the end, config.json and the index
 * last. Until the journal in DST/.partial is removed after that, DST is not a checkpoint
 * (checkpoint.h). Entries of DST that neither harm nor count: "lost+found" of a filesystem, and
 * ".calib", where pipelines may keep a calibration. */
#ifndef OUTPUT_DIR_H
#define OUTPUT_DIR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/names.h"
#include "stream/source.h"
#include "write/journal.h"

struct output_dir {
    char *path;    /* DST, absolute, without a trailing '/' */
    char *partial; /* DST.partial, or DST/.partial */
    char *parent;  /* the folder of `partial` */
    bool inside;   /* that is DST */
    int folder;    /* descriptor of `partial`, locked; -1 until it exists */
    struct journal journal;
    bool overwrite;
    struct names *opened; /* of files that output_dir_open() opened */
    int old;              /* descriptor of what was at DST when it was checked; -1: nothing was */
};

/* Set the absolute names for `path`. A path that cannot name a folder ends the process.
 * output_dir_free() frees the content. */
void output_dir_name(struct output_dir *output, const char *path);

/* Check that DST can become a checkpoint. It must be absent or an empty folder (with overwrite, or
 * a checkpoint that can be replaced), in a folder that can be written. It must not be equal to,
 * inside, or around the folder `source` (NULL: unknown) or one that holds a file of `sources`. Ends
 * the process otherwise. Writes nothing. */
void output_dir_check(struct output_dir *output, bool overwrite, const char *source,
                      const struct sources *sources);

/* True if DST holds everything, and only its journal was left to remove; or, inside it, files that
 * are being moved up. */
bool output_dir_in_place(const struct output_dir *output);

/* Finish the work of a run that was killed when everything was on disk: put DST in place if only
 * renames were left, remove the journal in it and the old checkpoint at DST.partial. True if that
 * run was one of a stream with `identity` and `toc` (as below), so that nothing is left to do. */
bool output_dir_was_done(struct output_dir *output, const char *identity, const struct toc *toc);

/* True if DST.partial is an old checkpoint, which the new one at DST has replaced, and which was
 * left when it was being removed: output_dir_was_done() removes the rest. */
bool output_dir_was_replaced(const struct output_dir *output);

/* For a plan: end the process where output_dir_was_done() or output_dir_resume() would, and change
 * nothing. */
void output_dir_plan(struct output_dir *output, const char *identity, const struct toc *toc);

/* True if a run with `identity` joined its parts (parts.h), and was killed when only renames were
 * left, which --join does. Changes nothing and takes no lock: others may be at work. */
bool output_dir_is_joined(const struct output_dir *output, const char *identity);

/* The state of DST: absent or an empty folder; a run is at work in DST.partial, or was interrupted
 * there or in the last step; a checkpoint that --overwrite accepts; or something else. */
enum output_dir_state {
    OUTPUT_DIR_ABSENT,
    OUTPUT_DIR_PARTIAL,
    OUTPUT_DIR_COMPLETE,
    OUTPUT_DIR_OTHER
};
enum output_dir_state output_dir_state(const struct output_dir *output);

/* True if files in the output directory can share their bytes with `fd`. Leaves nothing behind. */
bool output_dir_can_share(const struct output_dir *output, int fd);

/* Lock the DST.partial of an earlier run, and read its journal. False if there is none. If st-write
 * did not make it, or made it from a stream of another identity or table, the process ends: its
 * table must have all lines of `toc`. NULL and NULL match any. */
bool output_dir_resume(struct output_dir *output, const char *identity, const struct toc *toc);

/* After output_dir_resume() returned false: make and lock DST.partial, and begin its journal. After
 * output_dir_adopt() returned false: begin its journal. */
void output_dir_begin(struct output_dir *output, const char *identity, const struct toc *toc);

/* Lock a DST.partial that holds parts (parts.h), and read its journal. False if it has no journal,
 * or an incomplete one: then output_dir_begin() begins it. */
bool output_dir_adopt(struct output_dir *output);

/* Create a file in it for writing (with truncate == false, reopen it), and return its descriptor.
 * `name` may contain '/'; missing folders are made. */
int output_dir_open(struct output_dir *output, const char *name, bool truncate);

/* fsync (if `sync`) and close a file; an error ends the process. */
void output_dir_close(int fd, const char *name, bool sync);

/* Write a small file, synced. */
void output_dir_put(struct output_dir *output, const char *name, const char *data, uint64_t size);

/* End the process if DST.partial holds a file that output_dir_open() did not open, which would get
 * into DST: somebody else's. `is_known` (may be NULL) accepts more names at its top. */
void output_dir_refuse_foreign(const struct output_dir *output, bool (*is_known)(const char *name));

/* The status of a file in DST.partial; false if there is none of that name. */
bool output_dir_stat(const struct output_dir *output, const char *name, struct stat *status);

/* The bytes such a file takes on disk; 0 if there is none. */
uint64_t output_dir_holds(const struct output_dir *output, const char *name);

/* The free bytes on its filesystem for this user. */
uint64_t output_dir_free_bytes(const struct output_dir *output);

/* Everything is written: sync the folders, rename to DST, sync the parent. With overwrite, exchange
 * it with the old one and remove that. What others put in the place of either meanwhile is neither
 * put in place nor removed; it ends the process. Where the filesystem exchanges no names, the old
 * one waits at DST.replaced until the new one is in place. */
void output_dir_finish(struct output_dir *output);

void output_dir_free(struct output_dir *output);

#endif
