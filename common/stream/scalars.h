/* scalars.h: named scalars that a program finds one by one and keeps until the last is known,
 * because only then is there a table to begin a stream with. */
#ifndef SCALARS_H
#define SCALARS_H

#include "stream/ts.h"

struct scalars {
    const char *shard; /* their shard's name in the table: "amax.safetensors"; borrowed */
    struct toc *toc;
    int64_t *value; /* by line of the table; a smaller scalar is in the first bytes */
    size_t capacity;
};

void scalars_begin(struct scalars *scalars, const char *shard);
void scalars_free(struct scalars *scalars);

/* Append a scalar of `dtype`, of at most 8 bytes, whose bytes are at `value`. An invalid name ends
 * the process. */
void scalars_add(struct scalars *scalars, const char *name, enum dtype dtype, const void *value);

/* Write all to a stream whose table has them next. */
void scalars_write(const struct scalars *scalars, struct ts_out *out);

#endif
