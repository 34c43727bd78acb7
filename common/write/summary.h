/* summary.h: what st-write says of a run: what came in, what was counted, what went out. */
#ifndef SUMMARY_H
#define SUMMARY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "model/model.h"

struct summary {
    json_t *input;  /* tensors and bytes per format of the checkpoint that was read; may be NULL */
    json_t *output; /* of the one that is written */
    json_t *counts; /* of all stages, as .end has them; may be NULL */
    const struct expert_class *classes; /* of the model's routed experts */
    uint64_t file_bytes;
    uint64_t free_bytes;
    uint64_t shared, copied, written;
    uint64_t shards, finished; /* all; those that an earlier run had finished */
    double seconds;
};

/* On standard error, for people: all of it; on standard output: the plan for the folder `path`. */
void summary_print(const struct summary *s, const char *path, bool verbose);
void summary_print_plan(const struct summary *s, const char *path);

/* On standard output, for programs. */
void summary_print_json(const struct summary *s, bool plan);

#endif
