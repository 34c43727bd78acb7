/* summary.h: st-write's summary of a run: input, counts, output. */
#ifndef SUMMARY_H
#define SUMMARY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "model/model.h"
#include "write/config.h"

struct summary {
    json_t *input;   /* formats_totals() of the checkpoint that was read; may be NULL */
    json_t *output;  /* of the one that is written */
    json_t *counts;  /* of all stages, in the whole checkpoint; may be NULL */
    json_t *folders; /* ts_folders() of the stream */
    json_t *notes;   /* summary_notes() of the output */
    const struct expert_class *classes; /* of the model's routed experts */
    uint64_t file_bytes;
    uint64_t free_bytes;
    uint64_t shared, copied, written;
    uint64_t shards, finished; /* all, and those finished by an earlier run */
    double seconds;
};

/* Lines for people, an array that the caller owns: what engines make of the checkpoint, if it is
 * `whole` (of a part, they would be wrong), and what is left out of it. */
json_t *summary_notes(const struct ts_in *in, const struct configs *configs, bool whole);

/* For people: the whole summary on standard error; the plan for the folder `path` on standard
 * output. */
void summary_print(const struct summary *s, const char *path, bool verbose);
void summary_print_plan(const struct summary *s, const char *path);

/* For programs, as JSON on standard output. */
void summary_print_json(const struct summary *s, bool plan);

#endif
