/* A run of st-write that continues a dead one: the journal's notes, and the stream that arrives,
 * which what is on disk already has to be of. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/die.h"
#include "entries.h"
#include "fuzz.h"
#include "stream/safetensors.h"
#include "write/output_dir.h"
#include "write/shards.h"

/* The shard that is on disk, 10.safetensors, and the file that references lead to. */
enum { SHARD_FD = 10, SOURCE_FD = 11, SOURCE_SIZE = 4096 };

/* Every file that is finished is what its note says, or differs in some way. */
static void look_at_files(struct shards *shards, struct ts_in *in)
{
    struct shard_file file;
    for (size_t i = 0; i < shards_count(shards); i++) {
        if (!shards_file(shards, i, &file))
            continue;
        free(shards_file_difference(shards, i, SHARD_FD, in, false));
        free(shards_file_difference(shards, i, SHARD_FD, in, true));
    }
}

/* The notes of what is finished say the same when they are read again. */
static void check_notes(struct shards *shards)
{
    size_t missing = shards_missing(shards);
    char *notes = shards_notes(shards);
    shards_take_notes(shards, notes);
    fuzz_must(shards_missing(shards) == missing, "notes that are not what was noted");
    free(notes);
}

/* What is finished is compared, the rest would be written. */
static void read_tensors(struct shards *shards, struct output_dir *output, struct ts_in *in)
{
    uint32_t *line = toc_lines_in(ts_toc(in), output->journal.toc);
    struct shard_file file;
    for (const struct tensor *tensor; (tensor = ts_next(in));) {
        if (tensor->context)
            continue;
        uint32_t own = line[tensor - ts_toc(in)->tensor];
        shards_file(shards, output->journal.toc->tensor[own].shard, &file);
        if (file.finished)
            shards_write(shards, output, in, own);
    }
    free(line);
    shards_end(shards, output, in);
}

static void continue_run(void *context)
{
    struct output_dir *output = context;
    struct copier copier = {0};
    struct ts_in *in = ts_open(ENTRIES_PATH, NULL);
    if (!journal_is_of(&output->journal, NULL, ts_toc(in)))
        die("another table");
    struct shards *shards = shards_plan(output->journal.toc, in, &copier);
    shards_resume(shards, output);
    check_notes(shards);
    look_at_files(shards, in);
    read_tensors(shards, output, in);
    shards_free(shards);
    ts_close(in);
}

/* A shard of two tensors, both zeros. */
static void make_shard(void)
{
    static const uint64_t dims[] = {8, 4, 2};
    struct toc *toc = toc_new();
    uint32_t line[] = {0, 1};
    uint64_t offset[2], header_size;
    char *header;
    toc_append(toc, "10.safetensors", "a", DTYPE_U8, 1, dims);
    toc_append(toc, "10.safetensors", "b", DTYPE_BF16, 2, dims + 1);
    uint64_t size = safetensors_layout(toc, line, 2, 0, offset, &header, &header_size);
    header = xgrow(header, (size_t)size, 1);
    memset(header + header_size, 0, (size_t)(size - header_size));
    fuzz_file(SHARD_FD, header, (size_t)size);
    free(header);
    toc_free(toc);
}

static void make_files(void)
{
    static const struct timespec times[] = {{1, 0}, {1, 0}};
    static const char source[SOURCE_SIZE];
    make_shard();
    fuzz_file(SOURCE_FD, source, sizeof source);
    fuzz_must(!futimens(SHARD_FD, times) && !futimens(SOURCE_FD, times), "no files");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool made;
    struct output_dir output = {
        .path = "to", .partial = (char *)fuzz_folder(), .folder = -1, .journal.fd = -1};
    const uint8_t *stream;
    size_t length = size, rest;
    if (!made)
        make_files();
    made = true;
    data = entries_cut(data, &length, &stream, &rest);
    char *text = xalloc(length + 1, 1);
    if (length)
        memcpy(text, data, length);
    entries_set(stream, rest);
    if (journal_parse(&output.journal, text, length) == JOURNAL_WHOLE)
        fuzz_survives(continue_run, &output);
    journal_free(&output.journal);
    return 0;
}
