/* report.h: what programs share that read a stream and write text: where it goes, and records that
 * one program reads as TSV, another as JSON. */
#ifndef REPORT_H
#define REPORT_H

#include <jansson.h>

#include "base/args.h"
#include "tensor/toc.h"

/* How a report is written: for people, or for programs. */
enum report { REPORT_TEXT, REPORT_TSV, REPORT_JSON };

/* The form that the options --tsv and --json ask for; both together are a usage error. */
enum report report_form(bool tsv, bool json);

/* Send standard output to stage->output, if there is one. It gets its name in report_end(), so that
 * what a failed run leaves does not look finished. */
void report_begin(struct stage *stage);

/* Write a record, an object that is taken over: a line of JSON, or (REPORT_TSV) its values in the
 * order in which they were put in, tab-separated: strings as they are, null as "-", arrays and
 * objects as JSON. No value may hold tabs or newlines. Not for REPORT_TEXT. */
void report_record(enum report form, json_t *record);

/* End main as stage_end() does, with the output's name in place. */
int report_end(struct stage *stage);

/* For records: a tensor's shape, and a number: those that JSON lacks become the strings "nan",
 * "inf" and "-inf". */
json_t *report_shape(const struct tensor *tensor);
json_t *report_number(double number);

/* The shortest text that reads back as the same number, "nan", "inf" or "-inf", into text (at least
 * NUMBER_TEXT bytes); returns text. */
enum { NUMBER_TEXT = 32 };
char *number_text(double number, char *text);

#endif
