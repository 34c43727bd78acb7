#include "stream/zero_tail.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"

enum { PIECE = 16 << 10 };

/* How many zeros the file ends in, ZERO_TAIL at most, from `start` on. */
static uint64_t count_zeros(struct checkpoint *checkpoint, size_t source, uint64_t start)
{
    const struct source *file = &checkpoint->sources.file[source];
    uint64_t at = file->size, end = file->size;
    char piece[PIECE];
    while (at > start && end - at < ZERO_TAIL) {
        size_t size = at - start < PIECE ? (size_t)(at - start) : PIECE;
        sources_read(&checkpoint->sources, source, at - size, piece, size, file->label);
        for (size_t i = size; i > 0; i--)
            if (piece[i - 1])
                return end - at + size - i;
        at -= size;
    }
    return end - at;
}

static bool is_integer(enum dtype dtype)
{
    return dtype == DTYPE_I32 || dtype == DTYPE_I64;
}

/* Where the file's first hole of at least ZERO_TAIL bytes begins, from `start` on; its size if it
 * has none, or the filesystem cannot tell. Space that was allocated but never written is a hole,
 * too. */
static uint64_t find_hole(struct checkpoint *checkpoint, size_t source, uint64_t start)
{
    const off_t size = (off_t)checkpoint->sources.file[source].size;
    int fd = sources_acquire(&checkpoint->sources, source);
    off_t at = lseek(fd, (off_t)start, SEEK_HOLE), found = size;
    while (at >= 0 && at < size && found == size) {
        off_t end = lseek(fd, at, SEEK_DATA);
        if (end <= at)
            end = size;
        if (end - at >= ZERO_TAIL)
            found = at;
        at = lseek(fd, end, SEEK_HOLE);
    }
    sources_release(&checkpoint->sources, source);
    return (uint64_t)found;
}

/* The tensor of the shard at that offset, or the first one after it; NULL if there is none. */
static const struct tensor *tensor_at(const struct checkpoint *checkpoint, uint32_t shard,
                                      uint64_t offset)
{
    const struct toc *toc = checkpoint->toc;
    size_t found = toc->count;
    for (size_t i = 0; i < toc->count; i++)
        if (toc->tensor[i].shard == shard && checkpoint->offset[i] + toc->tensor[i].size > offset &&
            (found == toc->count || checkpoint->offset[i] < checkpoint->offset[found]))
            found = i;
    return found < toc->count ? &toc->tensor[found] : NULL;
}

/* Segments that are downloaded side by side leave holes in the middle, too. */
static void refuse_hole(struct checkpoint *checkpoint, uint32_t shard, uint64_t start)
{
    size_t source = checkpoint->shard_source[shard];
    const struct source *file = &checkpoint->sources.file[source];
    uint64_t hole = find_hole(checkpoint, source, start);
    const struct tensor *tensor = hole < file->size ? tensor_at(checkpoint, shard, hole) : NULL;
    if (tensor && !is_integer(tensor->dtype))
        die("%s: has a hole at offset %" PRIu64 ", 1 MiB or more that was never written, in tensor "
            "%s: its download is not complete; get it again, or, if zeros belong there, read it "
            "with st-read --allow-zeros",
            file->path, hole, tensor->name);
}

void zero_tail_refuse(struct checkpoint *checkpoint)
{
    const struct toc *toc = checkpoint->toc;
    uint64_t *start = xalloc(toc->shards, sizeof *start);
    uint32_t *last = xalloc(toc->shards, sizeof *last);
    for (size_t i = 0; i < toc->shards; i++)
        start[i] = UINT64_MAX;
    for (size_t i = 0; i < toc->count; i++) {
        uint32_t shard = toc->tensor[i].shard;
        uint64_t at = checkpoint->offset[i];
        if (start[shard] == UINT64_MAX || at >= checkpoint->offset[last[shard]])
            last[shard] = (uint32_t)i;
        if (at < start[shard])
            start[shard] = at;
    }
    for (size_t i = 0; i < toc->shards; i++) {
        size_t source = checkpoint->shard_source[i];
        const struct source *file = &checkpoint->sources.file[source];
        if (start[i] > file->size || file->size - start[i] < ZERO_DATA ||
            is_integer(toc->tensor[last[i]].dtype))
            continue;
        uint64_t zeros = count_zeros(checkpoint, source, start[i]);
        bool all = zeros == file->size - start[i];
        if (all || zeros >= ZERO_TAIL)
            die("%s: %s zeros, tensor %s among them: its download is not complete; get it again, "
                "or, if they belong there, read it with st-read --allow-zeros",
                file->path, all ? "its data are all" : "its last MiB is all",
                toc->tensor[last[i]].name);
        refuse_hole(checkpoint, (uint32_t)i, start[i]);
    }
    free(start);
    free(last);
}
