/* The JSON in streams, .stream, .counts and .end, and what programs make of it: identity, record,
 * configs, summary, card, amaxes. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/json.h"
#include "entries.h"
#include "fuzz.h"
#include "quantize/amax.h"
#include "stream/counts.h"
#include "stream/whole.h"
#include "tensor/weight.h"
#include "write/card.h"
#include "write/output_names.h"
#include "write/run_record.h"
#include "write/summary.h"

/* The file that references of the corpus lead to. */
enum { SOURCE_FD = 11, SOURCE_SIZE = 4096 };

/* Read all tensors, and as st-write does, give the trailer the counts that arrived before it. */
static void read_tensors(struct ts_in *in)
{
    json_t *counted = json_object(), *part = json_object(), *stages;
    const char *shard;
    while (ts_next(in)) {
        free(ts_read_all(in));
        json_t *counts = ts_take_counts(in);
        counts_add(counted, counts);
        json_decref(counts);
    }
    json_t *rest = ts_take_counts(in);
    counts_add(counted, rest);
    json_object_foreach(counted, shard, stages) counts_add(part, stages);
    ts_recount(in, part, part);
    json_decref(part);
    json_decref(rest);
    json_decref(counted);
}

/* The record of the checkpoint that is written, beside the one of that before, which a side file
 * stands for. */
static void compare_records(struct ts_in *in)
{
    json_t *entry = json_pack("{s:s, s:s, s:[s]}", "program", "st-write", "version", "0", "options",
                              "--partial");
    json_t *own = run_record_of(in, &(struct stage){.entry = entry});
    json_t *noted = ts_file_json(in, RUN_RECORD);
    free(run_record_difference(own, own, false));
    if (noted)
        free(run_record_difference(noted, own, true));
    json_object_set(noted, "sources", json_object_get(own, "sources")); /* then come the stages */
    if (noted)
        free(run_record_difference(noted, own, false));
    json_decref(noted);
    json_decref(own);
    json_decref(entry);
}

static void summarize(struct ts_in *in, const struct configs *configs)
{
    struct summary s = {.input = json_incref(json_object_get(ts_header(in), "input")),
                        .output = formats_totals(ts_toc(in)),
                        .counts = json_deep_copy(ts_end_counts(in)),
                        .folders = ts_folders(in),
                        .notes = summary_notes(in, configs, ts_toc(in)),
                        .engines = summary_engines(configs, ts_is_whole(in)),
                        .classes = model_classes(ts_model(in))};
    json_t *document = summary_document(&s, false), *plan = summary_document(&s, true);
    summary_print(stdout, document, "checkpoint", true);
    summary_print_plan(stdout, plan, "checkpoint");
    json_decref(document);
    json_decref(plan);
    json_decref(s.input);
    json_decref(s.output);
    json_decref(s.counts);
    json_decref(s.folders);
    json_decref(s.notes);
    json_decref(s.engines);
}

static void write_checkpoint(void *context)
{
    struct ts_in *in = ts_open(context, NULL);
    struct copier copier = {0};
    struct configs configs;
    char hex[DIGEST_TEXT];
    run_identity(in, hex);
    whole_check(in);
    struct shards *shards = shards_plan(ts_toc(in), in, &copier);
    configs_derive(&configs, in, ts_toc(in));
    output_names_check(shards, in, &configs);
    read_tensors(in);
    compare_records(in);
    free(card_text(&(struct card){.counts = ts_end_counts(in)}, in, ts_toc(in), &configs));
    summarize(in, &configs);
    shards_free(shards);
    configs_free(&configs);
    ts_close(in);
}

static void take_amaxes(void *context)
{
    struct ts_in *in = ts_open(context, NULL);
    struct amaxes *amaxes = amaxes_load(context, ts_model(in), true);
    json_t *entry = json_object();
    double value;
    amaxes_find(amaxes, "layers.0.ffn.experts.0.w1", AMAX_INPUT, &value);
    amaxes_input_scale(amaxes);
    amaxes_record(amaxes, entry);
    amaxes_check(amaxes, in);
    json_decref(entry);
    amaxes_free(amaxes);
    ts_close(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct timespec times[] = {{1, 0}, {1, 0}};
    static const char source[SOURCE_SIZE];
    static FILE *nowhere;
    FILE *const out = stdout, *const err = stderr;
    if (!nowhere) {
        fuzz_file(SOURCE_FD, source, sizeof source);
        nowhere = fopen("/dev/null", "w");
        fuzz_must(nowhere && !futimens(SOURCE_FD, times), "no source, or no /dev/null");
    }
    entries_set(data, size);
    stdout = stderr = nowhere;
    if (fuzz_survives(write_checkpoint, ENTRIES_PATH))
        fuzz_survives(take_amaxes, ENTRIES_PATH);
    stdout = out;
    stderr = err;
    return 0;
}
