/* report.h: quant-report.html of a converted checkpoint: what was done and how well it came out, as
 * one page for people. It needs no other file, no network and no script, and lets a browser load
 * none.
 *
 * Equal runs give equal bytes but for the times that `measured` brings: without it, the page has
 * none. It has no path. */
#ifndef REPORT_H
#define REPORT_H

#include "report/maps.h"
#include "write/config.h"
#include "write/side_files.h"

/* What the page says besides what the stream's header and table say. Borrowed; NULL: not known. */
struct report {
    const struct maps *maps;
    const json_t *measured; /* report_measured() */
    const json_t *counts;   /* of the stages, from .end */
    const json_t *input;    /* formats_totals() of the checkpoint that was read */
    const json_t *record;   /* run_record_of() */
    const char *step;       /* the last one, which ends with the page: "convert and write" */
    double seconds;         /* that it took */
    uint64_t bytes;         /* that it wrote */
    uint64_t finished;      /* shards that an earlier run wrote */
};

/* The page, which the caller frees. */
char *report_page(const struct report *report, struct ts_in *in, const struct toc *toc,
                  const struct configs *configs);

/* What a pipeline measured, from a file of up to 1 MiB, a JSON object a line:
 *
 *     {"step": NAME, "seconds": S, "bytes": N}       a step, and what it read (may be left out)
 *     {"evaluation": OBJECT, "text": NAME}           what st-eval --compare --json -v printed
 *     {"prompt": TEXT, "source": OBJECT, "result": OBJECT}  what st-eval --generate --json printed
 *                                                    of each
 *
 * Returns an array of them, which the caller owns. Others are kept, and ignored. A file that is not
 * lines of objects ends the process. */
json_t *report_measured(const char *path);

#endif
