#include "layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/die.h"

void layout_file(struct layout *layout, const char *block, uint64_t number)
{
    char shard[32];
    layout->prefix[0] = 0;
    if (*block)
        snprintf(layout->prefix, sizeof layout->prefix, "%s.%" PRIu64 ".", block, number);
    snprintf(shard, sizeof shard, "unit-%zu", layout->toc->shards);
    toc_shard(layout->toc, shard);
}

void layout_add(struct layout *layout, enum dtype dtype, uint64_t rows, uint64_t cols,
                const char *module, const char *suffix)
{
    char *name = xprintf("%s%s%s", layout->prefix, module, suffix);
    struct tensor line = {.name = name,
                          .dtype = (uint8_t)dtype,
                          .rank = cols ? 2 : 1,
                          .dim = {rows, cols},
                          .shard = (uint32_t)layout->toc->shards - 1};
    const char *error = toc_add(layout->toc, &line);
    if (error)
        die("%s: %s", name, error);
    free(name);
}

uint64_t layout_number(const json_t *config, const char *key)
{
    const json_t *number = json_object_get(config, key);
    if (!json_is_integer(number) || json_integer_value(number) < 0)
        die("config.json: %s: wanted a number that is not negative", key);
    return (uint64_t)json_integer_value(number);
}
