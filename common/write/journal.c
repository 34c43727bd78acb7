#include "write/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/folder.h"
#include "base/number.h"
#include "stream/checkpoint.h"
#include "write/copy.h"

static const char magic[] = "seekpipe-journal 1 ";
enum { MAGIC = sizeof magic - 1, IDENTITY = DIGEST_TEXT - 1 };

/* Parse the first line and the table from `size` bytes of text; false if they are incomplete. */
static bool parse_table(struct journal *journal, size_t size)
{
    const char *at = journal->text + MAGIC;
    uint64_t table_size;
    char *line_end = memchr(journal->text, '\n', size);
    if (!line_end || size < MAGIC + IDENTITY + 1 || strspn(at, "0123456789abcdef") != IDENTITY)
        return false;
    memcpy(journal->identity, at, IDENTITY);
    journal->identity[IDENTITY] = 0;
    at += IDENTITY;
    if (*at++ != ' ' || !number_parse(&at, SIZE_MAX / 2, &table_size) || at != line_end)
        return false;
    char *table = line_end + 1;
    if (table_size > size - (size_t)(table - journal->text))
        return false;
    journal->notes = table + table_size;
    journal->toc = toc_new();
    char *error = toc_parse(journal->toc, table, (size_t)table_size);
    bool whole = !error;
    free(error);
    return whole;
}

enum journal_state journal_parse(struct journal *journal, char *text, size_t size)
{
    journal->text = text;
    if (memcmp(text, magic, size < MAGIC ? size : MAGIC) != 0)
        return JOURNAL_FOREIGN;
    if (!parse_table(journal, size))
        return JOURNAL_CUT;
    char *end = journal->notes + strlen(journal->notes);
    while (end > journal->notes && end[-1] != '\n')
        end--;
    *end = 0;
    return JOURNAL_WHOLE;
}

enum journal_state journal_read(struct journal *journal, int folder, const char *path)
{
    struct stat status;
    *journal = (struct journal){.path = xprintf("%s/" CHECKPOINT_JOURNAL, path)};
    journal->fd =
        openat(folder, CHECKPOINT_JOURNAL, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (journal->fd < 0 && errno == ENOENT)
        return JOURNAL_NONE;
    if (journal->fd < 0 || fstat(journal->fd, &status))
        die_errno("%s", journal->path);
    if (!S_ISREG(status.st_mode))
        return JOURNAL_FOREIGN;
    size_t size = (size_t)status.st_size;
    char *text = xalloc(size + 1, 1);
    read_at(journal->fd, 0, text, size, journal->path);
    enum journal_state state = journal_parse(journal, text, size);
    if (state != JOURNAL_WHOLE)
        return state;
    off_t end = journal->notes - text + (off_t)strlen(journal->notes);
    if (end < status.st_size && ftruncate(journal->fd, end))
        die_errno("%s", journal->path);
    return JOURNAL_WHOLE;
}

static void append(struct journal *journal, const char *data, size_t size)
{
    off_t end = lseek(journal->fd, 0, SEEK_END);
    if (end < 0)
        die_errno("%s", journal->path);
    write_at(journal->fd, (uint64_t)end, data, size, journal->path);
}

static void sync_journal(struct journal *journal)
{
    if (fsync(journal->fd))
        die_errno("%s: syncing it to disk", journal->path);
}

void journal_begin(struct journal *journal, int folder, const char *path, const char *identity,
                   const struct toc *toc)
{
    char *table;
    size_t table_size = toc_format(toc, &table);
    *journal = (struct journal){.path = xprintf("%s/" CHECKPOINT_JOURNAL, path)};
    journal->fd = openat(folder, CHECKPOINT_JOURNAL,
                         O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (journal->fd < 0)
        die_errno("%s", journal->path);
    memcpy(journal->identity, identity, DIGEST_TEXT);
    char *line = xprintf("%s%s %zu\n", magic, identity, table_size);
    append(journal, line, strlen(line));
    append(journal, table, table_size);
    free(line);
    free(table);
    sync_journal(journal);
    folder_sync(folder, path);
}

void journal_note(struct journal *journal, const char *line)
{
    append(journal, line, strlen(line));
    sync_journal(journal);
}

bool journal_is_of(const struct journal *journal, const char *identity, const struct toc *toc)
{
    if (identity && strcmp(journal->identity, identity) != 0)
        return false;
    uint32_t *line = toc ? toc_lines_in(toc, journal->toc) : NULL;
    bool all = line || !toc;
    free(line);
    return all;
}

const char *journal_find(const struct journal *journal, const char *word)
{
    const char *found = NULL;
    size_t length = strlen(word);
    for (const char *line = journal->notes; line && *line; line = strchr(line, '\n') + 1)
        if (!strncmp(line, word, length) && (line[length] == '\t' || line[length] == '\n'))
            found = line + length;
    return found;
}

void journal_close(struct journal *journal)
{
    if (journal->fd >= 0)
        close(journal->fd);
    journal->fd = -1;
}

void journal_free(struct journal *journal)
{
    journal_close(journal);
    toc_free(journal->toc);
    free(journal->path);
    free(journal->text);
    *journal = (struct journal){.fd = -1};
}
