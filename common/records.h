/* records.h: named scalars that a program finds one after the other and keeps until the last one is
 * known: only then there is a table to begin a stream with. */
#ifndef RECORDS_H
#define RECORDS_H

#include "ts.h"

struct records {
    const char *shard; /* that the table names for all of them: "amax.safetensors" */
    struct toc *toc;
    int64_t *value; /* by line of the table; a smaller scalar lies in its first bytes */
    size_t capacity;
};

void records_begin(struct records *records, const char *shard);
void records_free(struct records *records);

/* Append a scalar of `dtype`, of at most 8 bytes, whose bytes are at `value`. A name that no tensor
 * may have ends the process. */
void records_add(struct records *records, const char *name, enum dtype dtype, const void *value);

/* Write all to a stream in whose table they come next. */
void records_write(const struct records *records, struct ts_out *out);

#endif
