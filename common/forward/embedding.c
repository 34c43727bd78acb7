#include "forward/embedding.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/progress.h"

/* Each row costs a disk access, so rows are read in batches. */
enum { READERS = 32 };

void embedding_check(const struct network *n, struct ts_in *in, const struct weights *weights)
{
    const struct toc *toc = ts_toc(in);
    int64_t line = toc_find(ts_toc(in), n->embedding);
    if (line < 0 || toc->tensor[line].rank != 2 || toc->tensor[line].dim[0] != n->vocabulary ||
        toc->tensor[line].dim[1] != n->dim || !weight_of(weights, (size_t)line))
        die("%s: %s is missing, or not %" PRIu64 " x %" PRIu64, ts_name(in), n->embedding,
            n->vocabulary, n->dim);
}

void embedding_open(struct embedding *e, const struct network *n, struct ts_in *in,
                    const struct weights *weights, const bool *wanted)
{
    size_t source, line;
    *e = (struct embedding){.fd = -1};
    do {
        e->tensor = ts_next(in);
        line = e->tensor ? (size_t)(e->tensor - ts_toc(in)->tensor) : 0;
        if (!e->tensor || wanted[line])
            die("%s: %s does not come before the layers", ts_name(in), n->embedding);
    } while (strcmp(e->tensor->name, n->embedding) != 0);
    e->weight = weight_of(weights, line);
    e->held = ts_hold(in);
    if (!ts_held_ref(e->held, &source, &e->offset))
        return;
    e->path = ts_sources(in)->file[source].path;
    e->fd = sources_dup(ts_sources(in), source);
}

void embedding_close(struct embedding *e)
{
    if (!e->held)
        return;
    ts_release(e->held);
    if (e->fd >= 0)
        close(e->fd);
}

static void read_row(const struct embedding *e, uint64_t at, void *raw, size_t size)
{
    if (e->fd < 0)
        ts_held_read(e->held, at, raw, size);
    else
        source_read(e->fd, e->path, e->offset + at, raw, size, e->tensor->name);
}

void embedding_read(struct embedding *e, struct device *d, struct mat y, const int32_t *id)
{
    const struct scales none = {0};
    size_t row_bytes = (size_t)weight_row_bytes(e->weight, e->tensor);
    char *raw = xalloc((size_t)y.rows, row_bytes);
    uint16_t *rows = xalloc((size_t)(y.rows * y.cols), sizeof *rows);
    double begin = now();
#pragma omp parallel for num_threads(e->fd < 0 ? 1 : READERS)
    for (uint64_t i = 0; i < y.rows; i++) {
        char *own = raw + i * row_bytes;
        read_row(e, (uint64_t)id[i] * row_bytes, own, row_bytes);
        weight_rows(e->weight, e->tensor, &none, (uint64_t)id[i], 1, own, rows + i * y.cols);
    }
    e->seconds += now() - begin;
    d->write(d, y, rows);
    free(raw);
    free(rows);
}
