/* pt-read: convert PyTorch state dicts, such as calibration dumps, to a tensor stream. */
#include <dirent.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/die.h"
#include "stream/pt.h"
#include "stream/ts.h"

static const struct program program = {
    .about = "Write PyTorch state dicts as a tensor stream, without running their code: files that "
             "hold more than tensors are refused. A dict's keys are the tensors' names, each file "
             "is a shard. With a folder, all amax_dict_rankR-mpN.pt of Model Optimizer's N ranks "
             "in it are read.",
    .operands = {"dir | file.pt ..."},
    .examples = {"pt-read amax | st-ls", "pt-read amax_dict_rank0-mp1.pt >amax.ts",
                 "pt-read amax | amax-merge --fallback layer-max >amax.ts"},
    .max_operands = ANY_OPERANDS,
};

static int is_dump(const struct dirent *entry)
{
    return !fnmatch("amax_dict_rank*-mp*.pt", entry->d_name, 0);
}

/* The files of a folder's dump: ranks 0 to N-1 of N. The caller frees them. */
static char **dumps_in(const char *folder, size_t *count)
{
    struct dirent **entry;
    int found = scandir(folder, &entry, is_dump, versionsort);
    if (found < 0)
        die_errno("%s", folder);
    if (found == 0)
        die("%s: no amax_dict_rank*-mp*.pt in this folder; name the files to read", folder);
    char **path = xalloc((size_t)found, sizeof *path);
    for (int i = 0; i < found; i++) {
        char *wanted = xprintf("amax_dict_rank%d-mp%d.pt", i, found);
        if (strcmp(entry[i]->d_name, wanted) != 0)
            die("%s: wanted %s as one of %d, got %s; a rank is missing, or these are dumps of "
                "several runs: name the files that belong together",
                folder, wanted, found, entry[i]->d_name);
        path[i] = xprintf("%s/%s", folder, wanted);
        free(wanted);
        free(entry[i]);
    }
    free(entry);
    *count = (size_t)found;
    return path;
}

static char **inputs(const struct stage *stage, size_t *count)
{
    struct stat status;
    if (!stage->operands)
        die_usage("which file? Give .pt files, or the folder of a dump");
    if (stage->operands == 1 && !stat(stage->operand[0], &status) && S_ISDIR(status.st_mode))
        return dumps_in(stage->operand[0], count);
    *count = (size_t)stage->operands;
    char **path = xalloc(*count, sizeof *path);
    for (size_t i = 0; i < *count; i++)
        path[i] = xstrdup(stage->operand[i]);
    return path;
}

/* Each file is a shard. All names are seen before the first file is read. */
static void name_shards(char **path, size_t count, struct toc *toc)
{
    for (size_t i = 0; i < count; i++) {
        const char *name = shard_name_of(path[i]);
        if (toc_shard(toc, name) != i)
            die("%s: wanted files of different names, got two called %s", path[i], name);
    }
}

static void read_all(char **path, size_t count, struct pt *pt, struct toc *toc)
{
    name_shards(path, count, toc);
    for (size_t i = 0; i < count; i++) {
        char *error = pt_read(&pt[i], path[i], toc, (uint32_t)i);
        if (error)
            die("%s: %s", path[i], error);
    }
    size_t line;
    const char *error = toc_check_unique(toc, &line);
    if (error)
        die("%s: %s: %s", toc->shard[toc->tensor[line].shard], toc->tensor[line].name, error);
    if (!toc->count)
        die("%s: no tensor in it; is it the right file?", path[0]);
}

int main(int argc, char **argv)
{
    const struct arg args[] = {
        {.name = "verbose", .help = "say how much was read"},
        {0},
    };
    struct stage stage;
    stage_begin(&stage, &program, args, argc, argv);
    size_t count;
    char **path = inputs(&stage, &count);
    struct pt *pt = xalloc(count, sizeof *pt);
    struct toc *toc = toc_new();
    read_all(path, count, pt, toc);
    struct ts_out *out = ts_create(&stage, NULL, toc);

    const struct tensor *line = toc->tensor;
    for (size_t i = 0; i < count && !stage.plan; i++)
        for (size_t k = 0; k < pt[i].tensors; k++, line++)
            ts_put(out, line->name, pt[i].data[k], (size_t)line->size);
    if (stage.verbose)
        warn("%zu tensors, %" PRIu64 " bytes, from %zu files", toc->count, toc_bytes(toc, true),
             count);
    ts_finish(out, NULL, NULL);

    for (size_t i = 0; i < count; i++) {
        pt_free(&pt[i]);
        free(path[i]);
    }
    free(pt);
    free(path);
    toc_free(toc);
    return stage_end(&stage);
}
