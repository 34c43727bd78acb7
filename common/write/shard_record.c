#include "write/shard_record.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/die.h"
#include "base/mtime.h"
#include "base/number.h"
#include "write/copy.h"

enum { BUFFER = 1 << 20, CHECKSUM_TEXT = 16 };

/* The text of a proof, which the caller frees. */
static char *proof_text(const struct proof *proof, const struct sources *sources)
{
    return proof->source == PROOF_CHECKSUM
               ? xprintf("%0*" PRIx64, CHECKSUM_TEXT, proof->value)
               : xprintf("%s@%" PRIu64, sources->file[proof->source].label, proof->value);
}

char *shard_record_note(const char *shard, const struct stat *status, const struct sources *sources,
                        const struct proof *proof, const uint32_t *line, size_t count)
{
    char *text;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        die_errno("out of memory");
    fprintf(out, "shard\t%s\t%jd\t%" PRId64, shard, (intmax_t)status->st_size, mtime_ns(status));
    for (size_t i = 0; i < count; i++) {
        char *own = proof_text(&proof[line[i]], sources);
        fprintf(out, "\t%s", own);
        free(own);
    }
    fputc('\n', out);
    if (fclose(out))
        die("out of memory");
    return text;
}

/* The field after the tab at *note, which moves to the tab or newline after it; NULL at the end. */
static const char *next_field(const char **note, size_t *length)
{
    if (**note != '\t')
        return NULL;
    const char *field = *note + 1;
    *length = strcspn(field, "\t\n");
    *note = field + *length;
    return field;
}

bool shard_record_matches(const char *note, const struct stat *status)
{
    char *start = xprintf("%jd\t%" PRId64, (intmax_t)status->st_size, mtime_ns(status));
    size_t length = strlen(start);
    bool holds = S_ISREG(status->st_mode) && !strncmp(note, start, length) &&
                 (note[length] == '\t' || note[length] == '\n');
    free(start);
    return holds;
}

const char **shard_record_proofs(const char *note, size_t count)
{
    const char **proof = xgrow(NULL, count, sizeof *proof);
    size_t length, found = 0;
    note += strcspn(note, "\t\n"); /* skip the size … */
    next_field(&note, &length);    /* … and the mtime */
    while (found < count && (proof[found] = next_field(&note, &length)))
        found++;
    if (found == count && !*note)
        return proof;
    free(proof);
    return NULL;
}

bool shard_record_has(const char *text, const struct proof *proof, const struct sources *sources)
{
    char *own = proof_text(proof, sources);
    size_t length = strlen(own);
    bool has = !strncmp(text, own, length) && strchr("\t\n", text[length]);
    free(own);
    return has;
}

bool shard_record_checksum(const char *text, uint64_t *checksum)
{
    if (strcspn(text, "\t\n") != CHECKSUM_TEXT || strspn(text, "0123456789abcdef") != CHECKSUM_TEXT)
        return false;
    *checksum = strtoull(text, NULL, 16);
    return true;
}

static uint64_t checksum_of(int fd, uint64_t offset, uint64_t size, const char *what)
{
    struct checksum *checksum = checksum_new();
    char *buffer = xgrow(NULL, (size_t)at_most(size, BUFFER), 1);
    for (uint64_t done = 0; done < size;) {
        uint64_t step = at_most(size - done, BUFFER);
        read_at(fd, offset + done, buffer, step, what);
        checksum_add(checksum, buffer, (size_t)step);
        done += step;
    }
    free(buffer);
    return checksum_end(checksum);
}

/* The number of a tensor's bytes that match its proof: all, or those before the first difference.
 */
static uint64_t proven(const char *proof, size_t length, int fd, uint64_t offset,
                       struct sources *sources, const struct tensor *tensor)
{
    const char *mark = memchr(proof, '@', length);
    if (!mark) {
        char sum[CHECKSUM_TEXT + 1];
        snprintf(sum, sizeof sum, "%016" PRIx64,
                 checksum_of(fd, offset, tensor->size, tensor->name));
        return length == CHECKSUM_TEXT && !memcmp(sum, proof, length) ? tensor->size : 0;
    }
    int64_t source = sources_find(sources, proof, (size_t)(mark - proof));
    const char *number = mark + 1;
    uint64_t from;
    if (source < 0 || !number_parse(&number, INT64_MAX, &from) || number != proof + length)
        return 0;
    uint64_t same = compare_range(sources_acquire(sources, (size_t)source), from, fd, offset,
                                  tensor->size, tensor->name);
    sources_release(sources, (size_t)source);
    return same;
}

const struct tensor *shard_record_verify(const char *note, int fd, struct sources *sources,
                                         const struct toc *toc, const uint32_t *line, size_t count,
                                         const uint64_t *offset, uint64_t *at)
{
    size_t length;
    note += strcspn(note, "\t\n"); /* skip the size … */
    next_field(&note, &length);    /* … and the mtime */
    for (size_t i = 0; i < count; i++) {
        const struct tensor *tensor = &toc->tensor[line[i]];
        const char *proof = next_field(&note, &length);
        uint64_t same = proof ? proven(proof, length, fd, offset[line[i]], sources, tensor) : 0;
        *at = offset[line[i]] + same;
        if (!proof || same < tensor->size)
            return tensor;
    }
    return NULL;
}
