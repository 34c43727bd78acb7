#include "stream/index.h"

#include <string.h>

#include "base/die.h"
#include "base/json.h"

static void add_name(struct json_walk *walk, struct toc *index, const char *key)
{
    char name[TENSOR_NAME_MAX + 1];
    if (strlen(key) > TENSOR_NAME_MAX) {
        json_walk_fail(walk, "a tensor's name is longer than %d bytes", TENSOR_NAME_MAX);
        return;
    }
    strcpy(name, key);
    const char *shard = json_walk_string(walk);
    if (!shard)
        return;
    if (!shard_name_valid(shard)) {
        json_walk_fail(walk, "tensor %.100s: shard '%.100s' is not a plain file name", name, shard);
        return;
    }
    struct tensor line = {.name = name, .shard = toc_shard(index, shard)};
    const char *error = toc_add(index, &line);
    if (error)
        json_walk_fail(walk, "tensor %.100s: %s", name, error);
}

static void read_total_size(struct json_walk *walk, int64_t *total_size)
{
    const char *key;
    uint64_t size;
    for (json_walk_object(walk); json_walk_key(walk, &key);)
        if (strcmp(key, "total_size") != 0)
            json_walk_skip(walk);
        else if (json_walk_number(walk, &size))
            *total_size = size <= INT64_MAX ? (int64_t)size : -1;
}

char *index_read(int fd, struct toc *index, int64_t *total_size)
{
    struct json_walk *walk = json_walk_new(json_fill_file, &fd);
    const char *key;
    bool found = false;
    if (total_size)
        *total_size = -1;
    for (json_walk_object(walk); json_walk_key(walk, &key);) {
        if (!strcmp(key, "weight_map")) {
            found = true;
            for (json_walk_object(walk); json_walk_key(walk, &key);)
                add_name(walk, index, key);
        } else if (total_size && !strcmp(key, "metadata")) {
            read_total_size(walk, total_size);
        } else {
            json_walk_skip(walk);
        }
    }
    json_walk_end(walk);
    if (!found || !index->count)
        json_walk_fail(walk, "no weight_map, or nothing in it");
    const char *error = json_walk_error(walk);
    char *text = error ? xstrdup(error) : NULL;
    json_walk_free(walk);
    return text;
}
