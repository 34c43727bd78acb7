#include "records.h"

#include <stdlib.h>
#include <string.h>

#include "die.h"

void records_begin(struct records *records, const char *shard)
{
    *records = (struct records){.shard = shard, .toc = toc_new()};
}

void records_free(struct records *records)
{
    toc_free(records->toc);
    free(records->value);
}

void records_add(struct records *records, const char *name, enum dtype dtype, const void *value)
{
    struct tensor line = {.name = name, .dtype = (uint8_t)dtype};
    line.shard = toc_shard(records->toc, records->shard);
    const char *error = toc_add(records->toc, &line);
    if (error)
        die("%s: %s", name, error);
    if (records->toc->count > records->capacity) {
        records->capacity = 2 * records->toc->count;
        records->value = xgrow(records->value, records->capacity, sizeof *records->value);
    }
    memcpy(&records->value[records->toc->count - 1], value, dtype_size(dtype));
}

void records_write(const struct records *records, struct ts_out *out)
{
    const struct tensor *line = records->toc->tensor;
    for (size_t i = 0; i < records->toc->count; i++)
        ts_put(out, line[i].name, &records->value[i], (size_t)line[i].size);
}
