/* finding.h: the result of comparing a tensor, or a side file, which counts as U8 [bytes]; printed
 * as a line of text or as a record. */
#ifndef FINDING_H
#define FINDING_H

#include "stream/difference.h"
#include "stream/report.h"
#include "tensor/toc.h"

struct finding {
    const char *name;
    bool in_a, in_b;
    struct tensor a, b; /* its form in each, where present */
    bool same_form;     /* elements were compared */
    bool bytes_known;   /* the forms differ, but the sizes are equal and the bytes were compared */
    struct difference d;
};

/* True if both have it, in the same form, and no element differs. */
bool finding_equal(const struct finding *f);

/* Print a line on standard output: the first difference and the error. */
void finding_print_text(const struct finding *f);

/* Print a record (report.h) with all fields; null where a field does not apply. */
void finding_print_record(const struct finding *f, enum report form);

#endif
