/* closing.h: what a whole pipeline says at its end: what it made, of what, how long each step took,
 * how good it is, what engines make of it, and what to do next. */
#ifndef CLOSING_H
#define CLOSING_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* Print `run` for people, in rows of at most 80 columns:
 *
 *     {"program", "source", "destination", "seconds", "steps": [{"step", "seconds"}, ...],
 *      "written": summary_document(), "checks": [what st-verify --json prints, ...],
 *      "quality": what st-eval --compare --json -v prints}
 *
 * Each member may be missing. */
void closing_print(FILE *out, const json_t *run, bool verbose);

/* Add "next" to `run`: the commands that people run next, as a shell reads them; an array. The
 * names are what the user gave, of any bytes. */
void closing_add_next(json_t *run, const char *source, const char *destination);

#endif
