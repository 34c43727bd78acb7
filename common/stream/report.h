/* report.h: for programs that read a stream and write text: the report's output, and records that
 * can be read as TSV or JSON. */
#ifndef REPORT_H
#define REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "base/args.h"
#include "tensor/toc.h"

/* The form of a report: for people, or for programs. */
enum report { REPORT_TEXT, REPORT_TSV, REPORT_JSON };

/* The form chosen by --tsv and --json; both together are a usage error. */
enum report report_form(bool tsv, bool json);

/* Redirect standard output to stage->output, if set. The file gets its name in report_end(), so
 * that a failed run leaves nothing that looks finished. */
void report_begin(struct stage *stage);

/* Write a record, an object that is taken over, on standard output: as a line of JSON, or
 * (REPORT_TSV) its values in insertion order, tab-separated: strings with '?' for what printable()
 * (text.h) replaces, tabs and newlines among it; null as "-"; arrays and objects as JSON. Not for
 * REPORT_TEXT. */
void report_record(enum report form, json_t *record);

/* The same to another file; the caller checks it for errors. */
void report_record_to(FILE *out, enum report form, json_t *record);

/* End main as stage_end() does, and rename the output into place. */
int report_end(struct stage *stage);

/* Values for records, which the caller owns: a tensor's shape, and a number. Numbers that JSON
 * lacks become the strings "nan", "inf" and "-inf". */
json_t *report_shape(const struct tensor *tensor);
json_t *report_number(double number);

/* The shortest text that reads back as the same number, or "nan", "inf" or "-inf", into text (at
 * least NUMBER_TEXT bytes); returns text. */
enum { NUMBER_TEXT = 32 };
char *number_text(double number, char *text);

#endif
