/* journal.h: st-write's notes on a run, in the folder it builds, so that the same command can
 * continue the run.
 *
 * A text file. Its first line is "seekpipe-journal 1 IDENTITY SIZE": a SHA-256 that identifies the
 * run, and the size in bytes of the whole table that follows. (A run may bring only some shards of
 * it.) After the table come notes, one per line, in the order of events:
 *
 *     counts NAME JSON                what the stages counted in a shard, by stage (counts.h), if
 *                                     anything; before the next one
 *     shard NAME SIZE MTIME PROOF...  the shard is complete and on disk (shard_record.h)
 *     redo NAME                       it turned out not to be
 *     source LABEL CTIME PATH         a file that is read, as it was then (touched.h)
 *     joined                          all but the shards is written, which are moved up (parts.h)
 *     replaces DEVICE INODE           the old checkpoint's folder, before the two are exchanged
 *     whole                           everything is on disk; only the rename is missing
 *     replaced DEVICE INODE           this is the old checkpoint, which the folder of that number
 *                                     replaced: it is being removed
 *
 * with tabs between words. A note is on disk before anything relies on it. A last line without a
 * newline was truncated when its writer died, and is ignored. */
#ifndef JOURNAL_H
#define JOURNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/digest.h"
#include "tensor/toc.h"

struct journal {
    int fd;     /* open at its end, or -1 */
    char *path; /* for messages */
    char identity[DIGEST_TEXT];
    struct toc *toc; /* the whole table; NULL if it was not read */
    char *text;      /* the content when it was read, without a truncated line */
    char *notes;     /* within text: complete lines, up to a NUL */
};

enum journal_state {
    JOURNAL_NONE,    /* no such file */
    JOURNAL_FOREIGN, /* a file of that name that is not a journal */
    JOURNAL_CUT,     /* its writer died before the first note, when the folder held nothing else */
    JOURNAL_WHOLE,
};

/* Parse `size` bytes of text, which are followed by a NUL. The journal takes over the text and
 * drops a truncated last line. *journal is all zeros before. */
enum journal_state journal_parse(struct journal *journal, char *text, size_t size);

/* Read the journal in an open folder, called `path` in messages, and open it for further notes (a
 * truncated last line is cut off). System errors end the process. In every state, the caller frees
 * it with journal_free(). */
enum journal_state journal_read(struct journal *journal, int folder, const char *path);

/* Write a new journal, replacing an existing one. The caller frees it with journal_free(). */
void journal_begin(struct journal *journal, int folder, const char *path, const char *identity,
                   const struct toc *toc);

/* True if a stream of that identity and table belongs to the journal's run. NULL matches any. */
bool journal_is_of(const struct journal *journal, const char *identity, const struct toc *toc);

/* Append a note and sync it to disk. `line` ends with its only newline. */
void journal_note(struct journal *journal, const char *line);

/* The last of the notes read that begins with `word`: a pointer to what follows the word (a tab or
 * the newline), or NULL. */
const char *journal_find(const struct journal *journal, const char *word);

/* Close the file: what was read stays, and no more notes are taken. On NFS and FUSE, a file that is
 * removed while it is open stays in its folder under another name, which then cannot be removed. */
void journal_close(struct journal *journal);

void journal_free(struct journal *journal);

#endif
