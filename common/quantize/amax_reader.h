/* amax_reader.h: the amaxes of calibrations, or of a checkpoint in NVFP4, into a table: of several
 * for one input (amax.h) the one that is asked for, of ranks that share a matrix the largest. */
#ifndef AMAX_READER_H
#define AMAX_READER_H

#include "quantize/amax_table.h"
#include "stream/ts.h"

struct amax_reader {
    struct amax_table *table; /* of which it sets `exact` */
    const char *w2;           /* which amax of w2's input, "engine" or "reference" */
    bool headroom;            /* input amaxes with headroom */
    bool trust;               /* weight amaxes of 448, too */

    /* What it found: weight amaxes left out, as they are of codes without scales; of how many
     * experts' w2 there are both amaxes, and of how many one; and which one, "engine" or
     * "reference". */
    uint64_t raw, both, one;
    const char *one_is;
};

/* Read a stream to its end. One that has none of what is asked for ends the process; so does a
 * plan, whose table has no values, but with `plan`: then the entries that it will have are added.
 */
void amax_reader_take(struct amax_reader *reader, struct ts_in *in, bool plan);

/* After the last stream: end the process if not all ranks' dumps were read, which `shard` names, or
 * one more than once. */
void amax_reader_check(const struct amax_reader *reader, char **shard, size_t count);

/* Which amaxes of w2's input the table has, as in `w2`; NULL if none. */
const char *amax_reader_w2(const struct amax_reader *reader);

#endif
