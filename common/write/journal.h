/* journal.h: what st-write notes of a run in the folder that it builds, so that the same command
 * can continue it.
 *
 * A text file. Its first line is "seekpipe-journal 1 IDENTITY SIZE": a SHA-256 of what makes runs
 * the same, and the bytes of the whole table that follow, of which a run may bring some shards.
 * Behind the table stand notes, a line each, in the order in which things happened:
 *
 *     shard NAME SIZE MTIME PROOF...  the shard is whole and on disk (shard_record.h)
 *     redo NAME                       no, it is not
 *     replaces DEVICE INODE           the old checkpoint's folder, before they change places
 *     whole                           everything is on disk; only the name is missing
 *     replaced                        this is the old checkpoint: it is being removed
 *
 * with tabs between words. A note is on disk before anything relies on it. A last line without a
 * newline was cut when its writer died, and counts for nothing. */
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
    char *text;      /* all that was there when it was read, but what was cut */
    char *notes;     /* in text: whole lines, up to a 0 */
};

enum journal_state {
    JOURNAL_NONE,    /* no such file */
    JOURNAL_FOREIGN, /* a file of that name that is no journal */
    JOURNAL_CUT,     /* one whose writer died before its first note, when nothing else was there */
    JOURNAL_WHOLE,
};

/* What `size` bytes of text are, with one more behind them, which is 0. The journal takes the text
 * over, without what was cut at its end. All but text is zeros before. */
enum journal_state journal_parse(struct journal *journal, char *text, size_t size);

/* Read the journal in an open folder, called `path` in messages, and open it for further notes
 * (what was cut at its end is cut off). Errors of the system end the process. Whatever the state,
 * the caller frees it with journal_free(). */
enum journal_state journal_read(struct journal *journal, int folder, const char *path);

/* Write a new one, over what is there. */
void journal_begin(struct journal *journal, int folder, const char *path, const char *identity,
                   const struct toc *toc);

/* True if a stream of that identity and table is of the journal's run, or (NULL) any stream is. */
bool journal_is_of(const struct journal *journal, const char *identity, const struct toc *toc);

/* Add a note, onto the disk: `line` ends with its only newline. */
void journal_note(struct journal *journal, const char *line);

/* The last note among those read that begins with `word`: what follows it (a tab and more, or the
 * newline), or NULL. */
const char *journal_find(const struct journal *journal, const char *word);

void journal_free(struct journal *journal);

#endif
