/* ts_in.h: for the files that are the reading half of ts.h (ts_open.c, ts_in.c, ts_held.c), and for
 * nobody else. */
#ifndef TS_IN_H
#define TS_IN_H

#include "stream/checkpoint.h"
#include "stream/tar_in.h"
#include "stream/ts.h"

enum { JSON_MAX = 64 << 20 }; /* bytes of .stream and .end */

struct ts_in {
    char *name;
    const struct stage *stage;
    struct checkpoint checkpoint; /* table, side files, sources; for a stream filled from it */
    json_t *header;
    struct tar_in *tar; /* NULL: a checkpoint on disk */
    struct progress *progress;
    json_t *end;
    bool plan_only;
    size_t next; /* the line that comes next */

    const struct tensor *tensor; /* the present one */
    bool by_reference;
    size_t source;
    uint64_t offset; /* where its bytes lie in the source */
    uint64_t done;   /* bytes of it that were read */
    size_t held_memory;
};

/* Where the `size` bytes of the entry `name` lie, a reference with the text `text`; what is none
 * ends the process. */
void ts_in_reference(struct ts_in *in, const char *name, const char *text, uint64_t size,
                     size_t *source, uint64_t *offset);

#endif
