#include "write/rest.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "stream/checkpoint.h"
#include "write/run_record.h"
#include "write/shards.h"
#include "write/side_files.h"

/* The i-th, under another name. */
static void write_side_file(const struct rest *rest, struct output_dir *output, size_t i,
                            const char *name)
{
    struct ts_in *in = rest->in;
    struct copier *copier = rest->copier;
    size_t source;
    uint64_t size, offset;
    ts_file(in, i, &size);
    if (!ts_file_ref(in, i, &source, &offset)) {
        char *data = ts_file_read(in, i);
        output_dir_put(output, name, data, size);
        free(data);
        copier->written += size;
        return;
    }
    int fd = output_dir_open(output, name, true);
    int from = sources_acquire(ts_sources(in), source);
    if (!share_range(copier, from, offset, fd, 0, size, name))
        copy_range(copier, from, offset, fd, 0, size, name);
    sources_release(ts_sources(in), source);
    output_dir_close(fd, name, true);
}

static void write_side_files(const struct rest *rest, struct output_dir *output)
{
    for (size_t i = 0; i < ts_files(rest->in); i++) {
        uint64_t size;
        const char *name = side_file_name(rest->in, ts_file(rest->in, i, &size), rest->configs);
        if (name)
            write_side_file(rest, output, i, name);
    }
}

static void put_text(struct output_dir *output, const char *name, const char *text)
{
    if (text)
        output_dir_put(output, name, text, strlen(text));
}

void rest_write(const struct rest *rest, struct output_dir *output)
{
    char *index = shards_index(rest->toc), *record = json_text(rest->record, true, false);
    write_side_files(rest, output);
    sources_check(ts_sources(rest->in));
    put_text(output, RUN_RECORD, record);
    put_text(output, "README.md", rest->readme);
    put_text(output, REPORT_FILE, rest->page);
    put_text(output, "config.json", rest->configs->config);
    put_text(output, "hf_quant_config.json", rest->configs->hf_quant);
    put_text(output, CHECKPOINT_INDEX, index);
    free(record);
    free(index);
}
