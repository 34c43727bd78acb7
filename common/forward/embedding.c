#include "forward/embedding.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/progress.h"

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
    const struct tensor *tensor;
    size_t line;
    do {
        tensor = ts_next(in);
        line = tensor ? (size_t)(tensor - ts_toc(in)->tensor) : 0;
        if (!tensor || wanted[line])
            die("%s: %s does not come before the layers", ts_name(in), n->embedding);
    } while (strcmp(tensor->name, n->embedding) != 0);
    *e = (struct embedding){.held = ts_hold(in)};
    row_table_open(&e->table, weight_of(weights, line), e->held, NULL);
}

void embedding_close(struct embedding *e)
{
    ts_release(e->held);
}

void embedding_read(struct embedding *e, struct device *d, struct mat y, const int32_t *id)
{
    uint16_t *rows = xalloc((size_t)(y.rows * y.cols), sizeof *rows);
    double begin = now();
    row_table_read(&e->table, id, y.rows, rows);
    e->seconds += now() - begin;
    d->write(d, y, rows);
    free(rows);
}
