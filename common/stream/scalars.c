#include "stream/scalars.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"

void scalars_begin(struct scalars *scalars, const char *shard)
{
    *scalars = (struct scalars){.shard = shard, .toc = toc_new()};
}

void scalars_free(struct scalars *scalars)
{
    toc_free(scalars->toc);
    free(scalars->value);
}

void scalars_add(struct scalars *scalars, const char *name, enum dtype dtype, const void *value)
{
    toc_append(scalars->toc, scalars->shard, name, dtype, 0, NULL);
    if (scalars->toc->count > scalars->capacity) {
        scalars->capacity = 2 * scalars->toc->count;
        scalars->value = xgrow(scalars->value, scalars->capacity, sizeof *scalars->value);
    }
    memcpy(&scalars->value[scalars->toc->count - 1], value, dtype_size(dtype));
}

void scalars_write(const struct scalars *scalars, struct ts_out *out)
{
    const struct tensor *line = scalars->toc->tensor;
    for (size_t i = 0; i < scalars->toc->count; i++)
        ts_put(out, line[i].name, &scalars->value[i], (size_t)line[i].size);
}
