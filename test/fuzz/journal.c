/* st-write's journals: the table, and what the notes say of shards that are on disk. */
#include "write/journal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/die.h"
#include "base/names.h"
#include "fuzz.h"
#include "write/shard_record.h"

/* Each shard is this file, and so is the only source, `a`. */
enum { SHARD_FD = 10, SHARD_SIZE = 4096 };

/* Tensors as they would lie without a header and gaps. */
static void verify(const char *note, uint32_t shard, const struct toc *toc)
{
    struct sources sources = {0};
    json_t *files = json_pack("{s:{s:s, s:i, s:I}}", "a", "path", "/proc/self/fd/10", "size",
                              SHARD_SIZE, "mtime_ns", (json_int_t)1000000000);
    fuzz_must(!sources_from_json(&sources, files), "no source");
    uint32_t *line = xalloc(toc->count + 1, sizeof *line);
    uint64_t *offset = xalloc(toc->count + 1, sizeof *offset), end = 0, at;
    size_t count = 0;
    for (size_t i = 0; i < toc->count && end < SHARD_SIZE; i++) {
        if (toc->tensor[i].shard != shard || toc->tensor[i].context)
            continue;
        line[count++] = (uint32_t)i;
        offset[i] = end;
        end += toc->tensor[i].size < SHARD_SIZE ? toc->tensor[i].size : SHARD_SIZE;
    }
    const struct tensor *wrong =
        shard_record_verify(note, SHARD_FD, &sources, toc, line, count, offset, &at);
    fuzz_must(!wrong || wrong->shard == shard, "another shard's tensor");
    json_decref(files);
    free(line);
    free(offset);
    sources_free(&sources);
}

static void read_shard(const char *note, const struct toc *toc)
{
    struct stat status;
    size_t length = strcspn(++note, "\t\n");
    int64_t shard = names_find(toc->shard_names, note, length);
    if (shard < 0 || note[length] != '\t')
        return;
    note += length + 1;
    fuzz_must(fstat(SHARD_FD, &status) == 0, "no shard");
    shard_record_matches(note, &status);
    verify(note, (uint32_t)shard, toc);
}

static void read_notes(void *context)
{
    static const char *const words[] = {"redo", "replaces", "whole", "replaced", "joined"};
    const struct journal *journal = context;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        journal_find(journal, words[i]);
    const char *note = journal_find(journal, "shard");
    if (note && *note == '\t')
        read_shard(note, journal->toc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct timespec times[] = {{1, 0}, {1, 0}};
    static const char shard[SHARD_SIZE] = "the tensors";
    static bool made;
    if (!made)
        fuzz_file(SHARD_FD, shard, sizeof shard);
    made = true;
    fuzz_must(futimens(SHARD_FD, times) == 0, "no time of change");
    struct journal journal = {.fd = -1};
    char *text = xalloc(size + 1, 1);
    if (size)
        memcpy(text, data, size);
    if (journal_parse(&journal, text, size) == JOURNAL_WHOLE) {
        fuzz_must(journal_is_of(&journal, journal.identity, journal.toc), "not of its own run");
        fuzz_survives(read_notes, &journal);
    }
    journal_free(&journal);
    return 0;
}
