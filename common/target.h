/* target.h: the folder that a checkpoint is built in: DST.partial beside DST, locked, renamed to
 * DST in one step when everything is in it and on disk. DST exists only whole. */
#ifndef TARGET_H
#define TARGET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "journal.h"
#include "source.h"

struct target {
    char *path;    /* DST, absolute, without a '/' at its end */
    char *partial; /* DST.partial */
    char *parent;  /* the folder of both */
    int folder;    /* DST.partial, locked; -1 until there is one */
    struct journal journal;
    bool overwrite;
};

/* Make absolute names of `path`. Ends the process if that is no folder's name. */
void target_name(struct target *target, const char *path);

/* Check that it can become a checkpoint: absent or an empty folder (with overwrite: a checkpoint,
 * too), not equal to, inside, or around the folder `source` (NULL: unknown) or one that holds a
 * file of `sources`. Ends the process otherwise. Nothing is written yet. */
void target_check(struct target *target, bool overwrite, const char *source,
                  const struct sources *sources);

/* True if DST holds a journal: only its removal was left to do. */
bool target_in_place(const struct target *target);

/* Finish what an earlier run left when it was killed with DST whole and in place: its journal in
 * it, the old checkpoint at DST.partial. True if that was a run of streams like that of `identity`
 * and `toc` (as below), so that nothing is left to do. */
bool target_was_done(const struct target *target, const char *identity, const struct toc *toc);

/* True if files in the target can share their bytes with `fd`. Leaves nothing behind. */
bool target_can_share(const struct target *target, int fd);

/* Lock what an earlier run left in DST.partial, and read its journal. False if there is nothing.
 * What was not made by st-write, or not from streams like that of `identity` and `toc`, ends the
 * process: its table must have all the stream's lines. NULL and NULL: any. */
bool target_resume(struct target *target, const char *identity, const struct toc *toc);

/* After target_resume() gave false: make and lock DST.partial, begin its journal. After
 * target_adopt(): begin it. */
void target_begin(struct target *target, const char *identity, const struct toc *toc);

/* Lock a DST.partial in which there are parts (parts.h), and read its journal. False if none was
 * begun, or not to its end: then it is for target_begin() to begin. */
bool target_adopt(struct target *target);

/* Create (or open again, with truncate == false) a file in it for writing; `name` may hold '/'; its
 * folders are made. */
int target_open(struct target *target, const char *name, bool truncate);

/* fsync and close a file, checked. */
void target_close(int fd, const char *name, bool sync);

/* Write a small file, synced. */
void target_put(struct target *target, const char *name, const char *data, uint64_t size);

/* What a file in DST.partial is; false if there is none of that name. */
bool target_stat(const struct target *target, const char *name, struct stat *status);

/* Its bytes on disk; 0 if there is none of that name. */
uint64_t target_holds(const struct target *target, const char *name);

/* Bytes free for us on its filesystem. */
uint64_t target_free_bytes(const struct target *target);

/* Everything is written: sync the folders, rename to DST (with overwrite, exchange with the old one
 * and remove that), sync the parent. */
void target_finish(struct target *target);

void target_free(struct target *target);

#endif
