#include "write/fit.h"

#include <linux/magic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/vfs.h>

#include "base/die.h"
#include "base/progress.h"
#include "write/parts.h"

/* Tested with the first source: a checkpoint lies in one filesystem. */
static bool can_share(const struct output_dir *output, struct sources *sources)
{
    if (!sources->count)
        return false;
    bool can = output_dir_can_share(output, sources_acquire(sources, 0));
    sources_release(sources, 0);
    return can;
}

/* The largest size of a file, and what limits it. */
static uint64_t largest_file(const struct output_dir *output, const char **limit)
{
    struct rlimit process;
    struct statfs filesystem;
    uint64_t most = UINT64_MAX;
    if (!getrlimit(RLIMIT_FSIZE, &process) && process.rlim_cur != RLIM_INFINITY) {
        most = process.rlim_cur;
        *limit = "this shell allows (ulimit -f)";
    }
    if (!statfs(output->parent, &filesystem) && filesystem.f_type == MSDOS_SUPER_MAGIC &&
        most > UINT32_MAX) { /* FAT's sizes have 32 bits */
        most = UINT32_MAX;
        *limit = "FAT has; choose a disk with another filesystem";
    }
    return most;
}

static char *file_shortage(const struct shards *shards, const struct output_dir *output)
{
    char size[BYTES_TEXT], allowed[BYTES_TEXT];
    const char *limit = NULL;
    const uint64_t most = largest_file(output, &limit);
    struct shard_file file;
    for (size_t i = 0; i < shards_count(shards); i++)
        if (shards_file(shards, i, &file) && !file.finished && file.size > most)
            return xprintf("%s: %s gets %s, more than the %s that %s", output->path, file.name,
                           bytes_text((double)file.size, size), bytes_text((double)most, allowed),
                           limit);
    return NULL;
}

char *fit_shortage(const struct shards *shards, const struct output_dir *output, struct ts_in *in,
                   uint64_t free_bytes, bool no_share)
{
    char needed[BYTES_TEXT], there[BYTES_TEXT];
    struct sources *sources = ts_sources(in);
    uint64_t least = shards_to_write(shards);
    uint64_t available =
        free_bytes + shards_left_over(shards, output) + parts_left_over(output->partial);
    if (least > available && !no_share && can_share(output, sources))
        for (size_t i = 0; i < sources->count; i++)
            least -= least < sources->file[i].size ? least : sources->file[i].size;
    if (least > available)
        return xprintf("%s: %s are needed, %s are free; make room, or choose another disk",
                       output->path, bytes_text((double)least, needed),
                       bytes_text((double)available, there));
    return file_shortage(shards, output);
}
