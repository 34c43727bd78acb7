/* sections.h: the parts of a report. Each writes a section with a heading, or nothing if nothing is
 * known about it. */
#ifndef SECTIONS_H
#define SECTIONS_H

#include <stdio.h>

#include "report/report.h"

struct page {
    FILE *out;
    const struct report *report;
    struct ts_in *in;
    const struct toc *toc;
    const struct configs *configs;
};

void section_glance(const struct page *page);      /* the main figures */
void section_losses(const struct page *page);      /* of source and result */
void section_texts(const struct page *page);       /* that both write */
void section_engines(const struct page *page);     /* verdicts and commands */
void section_calibration(const struct page *page); /* texts; maps of amaxes and tokens */
void section_scales(const struct page *page);      /* input scales in engines */
void section_weights(const struct page *page);     /* error of weights by layer */
void section_formats(const struct page *page);     /* what is in the folder */
void section_steps(const struct page *page);       /* time and bytes */
void section_origin(const struct page *page);      /* stages, options, files of the source */

/* Begin a section, and end it. `about` may be NULL. */
void section_begin(const struct page *page, const char *id, const char *heading, const char *about);
void section_end(const struct page *page);

/* Begin a table, and end it: `columns` are headings, separated by '|', those of numbers with a '>'
 * before them. It scrolls on narrow screens; `folded`, it is opened by a click. */
void table_begin(const struct page *page, const char *caption, const char *columns, bool folded);
void table_end(const struct page *page, bool folded);

/* A member of an object: text, or ""; a number that is finite and not negative, or 0. */
const char *member_text(const json_t *object, const char *key);
double member_number(const json_t *object, const char *key);

/* The evaluation of report_measured(), or NULL. */
const json_t *report_evaluation(const struct report *report);

/* The style sheet. */
extern const char report_style[];

#endif
