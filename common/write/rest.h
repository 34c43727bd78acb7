/* rest.h: the files of a checkpoint besides its shards. */
#ifndef REST_H
#define REST_H

#include "stream/ts.h"
#include "write/config.h"
#include "write/copy.h"
#include "write/output_dir.h"

/* What they are made from, and how. Borrowed; NULL: there is no such file. */
struct rest {
    struct ts_in *in;
    struct toc *toc; /* the whole table */
    const struct configs *configs;
    struct copier *copier; /* how bytes may be copied; counts them */
    const json_t *record;  /* run_record_of() */
    const char *readme;    /* README.md: card_text() */
    const char *page;      /* REPORT_FILE, a page for people */
};

/* Write them: side files, what is made from the stream, and last the index. */
void rest_write(const struct rest *rest, struct output_dir *output);

#endif
