#include "write/completed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/owner.h"
#include "base/text.h"
#include "stream/checkpoint.h"
#include "write/config.h"
#include "write/incoming.h"
#include "write/run_record.h"
#include "write/shards.h"
#include "write/side_files.h"

/* How a file of DST differs from its `size` bytes, of which `data` may be NULL; the caller frees
 * it. NULL if it does not. */
static char *file_difference(const struct output_dir *output, const char *name, const char *data,
                             uint64_t size)
{
    struct stat status;
    char *difference = NULL, *path = xprintf("%s/%s", output->path, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        difference = xprintf("%s is not there", name);
    else if (fd < 0 || fstat(fd, &status))
        difference = xprintf("%s: %s", name, strerror(errno));
    else if ((uint64_t)status.st_size != size)
        difference = xprintf("%s has another size", name);
    else if (data) {
        char *own = xalloc(size + 1, 1);
        read_at(fd, 0, own, size, path);
        difference = memcmp(own, data, size) ? xprintf("%s was changed", name) : NULL;
        free(own);
    }
    if (fd >= 0)
        close(fd);
    free(path);
    return difference;
}

/* The same of all files but the shards, of a stream that is whole. */
static char *rest_difference(const struct output_dir *output, struct ts_in *in)
{
    struct configs configs;
    char *index = shards_index(ts_toc(in)), *difference = NULL;
    configs_derive(&configs, in, ts_toc(in));
    for (size_t i = 0; i < ts_files(in) && !difference; i++) {
        uint64_t size;
        const char *name = ts_file(in, i, &size);
        const char *own = side_file_name(in, name, &configs);
        if (own)
            difference = file_difference(output, own, NULL, size);
    }
    const char *const derived[][2] = {{"config.json", configs.config},
                                      {"hf_quant_config.json", configs.hf_quant},
                                      {CHECKPOINT_INDEX, index}};
    for (size_t i = 0; i < sizeof derived / sizeof *derived && !difference; i++)
        if (derived[i][1])
            difference =
                file_difference(output, derived[i][0], derived[i][1], strlen(derived[i][1]));
    configs_free(&configs);
    free(index);
    return difference;
}

/* End the process if the checkpoint at DST is not what the stream gives: another record, a shard of
 * the stream is not there, or another file is not as it was written. */
static void check_complete(const struct output_dir *output, struct ts_in *in,
                           const struct shards *shards, const json_t *record,
                           const struct stage *stage)
{
    struct shard_file file;
    json_t *own = run_record_of(in, stage);
    char *difference = run_record_difference(record, own, stage->plan);
    for (size_t i = 0; i < shards_count(shards) && !difference; i++) {
        if (shards_file(shards, i, &file))
            difference = file_difference(output, file.name, NULL, file.size);
    }
    if (!difference && ts_is_whole(in))
        difference = rest_difference(output, in);
    if (difference)
        die("%s: is complete, but not of the same input and options: %s; choose another folder, or "
            "%s",
            output->path, difference, output->inside ? "remove its files" : "--overwrite it");
    json_decref(own);
}

/* End the process if DST is another user's, who can have put anything there under its names. */
static void refuse_other(const struct output_dir *output, const char *remedy)
{
    int folder = open(output->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        die_errno("%s", output->path);
    if (!owner_is_self(folder, folder))
        die("%s: belongs to another user; %schoose another folder", output->path, remedy);
    close(folder);
}

bool completed_by_stream(struct output_dir *output, struct ts_in *in, bool verify,
                         const struct stage *stage)
{
    if (output_dir_state(output) != OUTPUT_DIR_COMPLETE)
        return false;
    json_t *record = run_record_read(output->path);
    if (!record)
        return false;
    if (!verify)
        refuse_other(output, "compare it with what the stream gives (--verify), or ");
    struct copier copier = {0};
    struct shards *shards = shards_plan(ts_toc(in), in, &copier);
    check_complete(output, in, shards, record, stage);
    json_decref(record);
    if (!stage->plan)
        output_dir_was_done(output, NULL, NULL);
    const struct toc *toc = ts_toc(in);
    for (const struct tensor *tensor; (tensor = ts_next(in));)
        if (verify && !tensor->context)
            shards_compare(shards, output->path, in, (size_t)(tensor - toc->tensor));
    if (!stage->plan)
        incoming_refuse_plan(in);
    shards_free(shards);
    return true;
}

bool completed_by_join(const struct output_dir *output, bool overwrite)
{
    json_t *record = run_record_read(output->path);
    bool joined =
        record && access(output->partial, F_OK) && output_dir_state(output) == OUTPUT_DIR_COMPLETE;
    json_decref(record);
    if (joined && overwrite)
        die("%s: is complete, and no parts are at %s: an earlier --join put it in place, or --part "
            "has yet to write them",
            output->path, output->partial);
    if (joined)
        refuse_other(output, "");
    return joined;
}
