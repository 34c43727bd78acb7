#include "forward/rows.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"

void rows_begin(struct rows *rows, struct device *d, const struct tokens *tokens)
{
    size_t starts = (size_t)tokens->samples + 1, ids = (size_t)tokens->start[tokens->samples];
    *rows = (struct rows){.device = d, .samples = tokens->samples};
    rows->start = xalloc(starts, sizeof *rows->start);
    rows->id = xalloc(ids, sizeof *rows->id);
    memcpy(rows->start, tokens->start, starts * sizeof *rows->start);
    memcpy(rows->id, tokens->id, ids * sizeof *rows->id);
}

void rows_end(struct rows *rows)
{
    rows->device->drop_offloaded(rows->device, rows->hidden);
    free(rows->start);
    free(rows->id);
}

uint64_t rows_count(const struct rows *rows)
{
    return rows->start[rows->samples];
}

uint64_t rows_of(const struct rows *rows, uint64_t sample, uint64_t samples)
{
    return rows->start[sample + samples] - rows->start[sample];
}

struct mat rows_fetch(const struct rows *rows, uint64_t first, uint64_t count)
{
    struct device *d = rows->device;
    uint64_t left = rows_count(rows) - first, now = at_most(count, left);
    struct mat hidden = d->fetch(d, rows->hidden, first, now);
    d->fetch_ahead(d, rows->hidden, first + now, at_most(left - now, count));
    return hidden;
}

void rows_store(const struct rows *rows, uint64_t first, struct mat hidden)
{
    rows->device->store(rows->device, rows->hidden, first, hidden);
}

int32_t *rows_targets(const struct rows *rows)
{
    int32_t *target = xalloc((size_t)rows_count(rows), sizeof *target);
    for (uint64_t s = 0; s < rows->samples; s++)
        for (uint64_t i = rows->start[s]; i < rows->start[s + 1]; i++)
            target[i] = i + 1 < rows->start[s + 1] ? rows->id[i + 1] : -1;
    return target;
}

/* Move hidden states to the front, over others. */
static void move(const struct rows *rows, uint64_t to, uint64_t from, uint64_t count)
{
    struct device *d = rows->device;
    struct mat between = d->make(d, DTYPE_BF16, count, rows->hidden.all.cols);
    struct mat hidden = d->fetch(d, rows->hidden, from, count);
    d->copy(d, between, hidden);
    d->store(d, rows->hidden, from, hidden);
    hidden = d->fetch(d, rows->hidden, to, count);
    d->copy(d, hidden, between);
    d->store(d, rows->hidden, to, hidden);
    d->drop(d, between);
}

void rows_shift(struct rows *rows)
{
    uint64_t kept = 0;
    int32_t *id = xalloc((size_t)rows_count(rows), sizeof *id);
    for (uint64_t s = 0, first = 0; s < rows->samples; s++) {
        uint64_t end = rows->start[s + 1], left = end - first - (end > first);
        if (left && kept != first)
            move(rows, kept, first, left);
        memcpy(id + kept, rows->id + first + 1, (size_t)left * sizeof *id);
        kept += left;
        first = end;
        rows->start[s + 1] = kept;
    }
    free(rows->id);
    rows->id = id;
}
