/* scalars.h: named scalars that a program finds one after the other and keeps until the last one is
 * known: only then there is a table to begin a stream with. */
#ifndef SCALARS_H
#define SCALARS_H

#include "stream/ts.h"

struct scalars {
    const char *shard; /* that the table names for all of them: "amax.safetensors" */
    struct toc *toc;
    int64_t *value; /* by line of the table; a smaller scalar lies in its first bytes */
    size_t capacity;
};

void scalars_begin(struct scalars *scalars, const char *shard);
void scalars_free(struct scalars *scalars);

/* Append a scalar of `dtype`, of at most 8 bytes, whose bytes are at `value`. A name that no tensor
 * may have ends the process. */
void scalars_add(struct scalars *scalars, const char *name, enum dtype dtype, const void *value);

/* Write all to a stream in whose table they come next. */
void scalars_write(const struct scalars *scalars, struct ts_out *out);

#endif
