/* summary.h: st-write's summary of a run: input, counts, output. */
#ifndef SUMMARY_H
#define SUMMARY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "model/model.h"
#include "write/config.h"

struct summary {
    json_t *input;   /* formats_totals() of the checkpoint that was read; may be NULL */
    json_t *output;  /* of the one that is written */
    json_t *counts;  /* of all stages, in the whole checkpoint; may be NULL */
    json_t *folders; /* ts_folders() of the stream */
    json_t *notes;   /* summary_notes() of the output */
    json_t *engines; /* summary_engines() of the output */
    const struct expert_class *classes; /* of the model's routed experts */
    uint64_t file_bytes;
    uint64_t free_bytes;
    uint64_t shared, copied, written; /* bytes, by this run */
    uint64_t shards, finished;        /* all, and those finished by an earlier run */
    double seconds;
    bool verified; /* all shards were read again, and compared */
};

/* Lines for people, arrays that the caller owns: what is left out of the checkpoint and what keeps
 * its format; and what engines make of it, if it is `whole` (of a part, they would be wrong). */
json_t *summary_notes(const struct ts_in *in, const struct configs *configs, const struct toc *toc);
json_t *summary_engines(const struct configs *configs, bool whole);

/* All of it as an object, which the caller owns: what --json prints, and the functions below. */
json_t *summary_document(const struct summary *s, bool plan);

/* Print each string of an array, wrapped. */
void summary_print_lines(FILE *out, const json_t *lines);

/* For people, rows of at most 80 columns, of a document that summary_document() made: the formats
 * of source and result with their notes; what stages counted; both, and how long the run took. */
void summary_print_formats(FILE *out, const json_t *document);
void summary_print_counts(FILE *out, const json_t *document, bool verbose);
void summary_print(FILE *out, const json_t *document, const char *path, bool verbose);

/* The plan for the folder `path`. */
void summary_print_plan(FILE *out, const json_t *document, const char *path);

/* Free its members. */
void summary_free(struct summary *s);

#endif
