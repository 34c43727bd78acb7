/* output_dir.h: the folder that a checkpoint is built in: DST.partial beside DST, locked, renamed
 * to DST in one step when everything is in it and on disk. DST exists only whole. */
#ifndef OUTPUT_DIR_H
#define OUTPUT_DIR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "stream/source.h"
#include "write/journal.h"

struct output_dir {
    char *path;    /* DST, absolute, without a '/' at its end */
    char *partial; /* DST.partial */
    char *parent;  /* the folder of both */
    int folder;    /* DST.partial, locked; -1 until there is one */
    struct journal journal;
    bool overwrite;
};

/* Make absolute names of `path`. Ends the process if that is no folder's name. */
void output_dir_name(struct output_dir *output, const char *path);

/* Check that it can become a checkpoint: absent or an empty folder (with overwrite: a checkpoint,
 * too), not equal to, inside, or around the folder `source` (NULL: unknown) or one that holds a
 * file of `sources`. Ends the process otherwise. Nothing is written yet. */
void output_dir_check(struct output_dir *output, bool overwrite, const char *source,
                      const struct sources *sources);

/* True if DST holds a journal: only its removal was left to do. */
bool output_dir_in_place(const struct output_dir *output);

/* Finish what an earlier run left when it was killed with DST whole and in place: its journal in
 * it, the old checkpoint at DST.partial. True if that was a run of streams like that of `identity`
 * and `toc` (as below), so that nothing is left to do. */
bool output_dir_was_done(const struct output_dir *output, const char *identity,
                         const struct toc *toc);

/* How far DST is: nothing or an empty folder there; a run at work in DST.partial, or cut off there
 * or in DST's last step; a checkpoint, as --overwrite takes it; or what is none. */
enum output_dir_state {
    OUTPUT_DIR_ABSENT,
    OUTPUT_DIR_PARTIAL,
    OUTPUT_DIR_COMPLETE,
    OUTPUT_DIR_OTHER
};
enum output_dir_state output_dir_state(const struct output_dir *output);

/* True if files in the target can share their bytes with `fd`. Leaves nothing behind. */
bool output_dir_can_share(const struct output_dir *output, int fd);

/* Lock what an earlier run left in DST.partial, and read its journal. False if there is nothing.
 * What was not made by st-write, or not from streams like that of `identity` and `toc`, ends the
 * process: its table must have all the stream's lines. NULL and NULL: any. */
bool output_dir_resume(struct output_dir *output, const char *identity, const struct toc *toc);

/* After output_dir_resume() gave false: make and lock DST.partial, begin its journal. After
 * output_dir_adopt(): begin it. */
void output_dir_begin(struct output_dir *output, const char *identity, const struct toc *toc);

/* Lock a DST.partial in which there are parts (parts.h), and read its journal. False if none was
 * begun, or not to its end: then it is for output_dir_begin() to begin. */
bool output_dir_adopt(struct output_dir *output);

/* Create (or open again, with truncate == false) a file in it for writing; `name` may hold '/'; its
 * folders are made. */
int output_dir_open(struct output_dir *output, const char *name, bool truncate);

/* fsync and close a file, checked. */
void output_dir_close(int fd, const char *name, bool sync);

/* Write a small file, synced. */
void output_dir_put(struct output_dir *output, const char *name, const char *data, uint64_t size);

/* What a file in DST.partial is; false if there is none of that name. */
bool output_dir_stat(const struct output_dir *output, const char *name, struct stat *status);

/* Its bytes on disk; 0 if there is none of that name. */
uint64_t output_dir_holds(const struct output_dir *output, const char *name);

/* Bytes free for us on its filesystem. */
uint64_t output_dir_free_bytes(const struct output_dir *output);

/* Everything is written: sync the folders, rename to DST (with overwrite, exchange with the old one
 * and remove that), sync the parent. */
void output_dir_finish(struct output_dir *output);

void output_dir_free(struct output_dir *output);

#endif
