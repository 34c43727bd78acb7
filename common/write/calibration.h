/* calibration.h: what the stages that made the amaxes counted, for people. */
#ifndef CALIBRATION_H
#define CALIBRATION_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is not known is 0 or NULL. Borrowed from the counts. */
struct calibration {
    int64_t samples, tokens; /* that the model ran on */
    const json_t *texts;     /* array of {file, samples} */
    int64_t filled, drafts;  /* scales of experts that no token reached, and of drafts */
    const char *rule;        /* by which these were filled in */
    const char *w2;          /* "engine" or "reference" (amax-merge(1)) */
    const json_t *scale;     /* the one of all, without a calibration */
    const json_t *scales;    /* those that engines use (quantize/effective.h) */
    bool checkpoint;         /* they are those of another checkpoint */
    bool headroom;           /* they leave room above the largest inputs */
};

/* Take them from the counts of all stages (counts.h). False if no stage used amaxes. */
bool calibration_find(struct calibration *calibration, const json_t *counts);

/* Sentences about all but the texts, one line each, which the caller frees; returns their number.
 */
enum { CALIBRATION_LINES = 6 };
size_t calibration_lines(const struct calibration *calibration, char *line[CALIBRATION_LINES]);

#endif
