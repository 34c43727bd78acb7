/* finding.h: what a comparison found out about a tensor, or about a side file, which counts as
 * U8 [bytes]; as a line of text, and as a record. */
#ifndef FINDING_H
#define FINDING_H

#include "stream/difference.h"
#include "stream/report.h"
#include "tensor/toc.h"

struct finding {
    const char *name;
    bool in_a, in_b;
    struct tensor a, b; /* its forms, where it is */
    bool same_form;     /* so that elements were compared */
    bool bytes_known;   /* of different forms but as many bytes, which were compared */
    struct difference d;
};

/* True if both have it, of the same form, and no element differs. */
bool finding_equal(const struct finding *f);

/* A line on standard output: where first, and by how much. */
void finding_print_text(const struct finding *f);

/* A record (report.h) with everything there is to know; null where there is nothing. */
void finding_print_record(const struct finding *f, enum report form);

#endif
