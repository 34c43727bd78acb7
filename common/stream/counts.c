#include "stream/counts.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"

enum { KEYS_MAX = 256, TEXT_MAX = 1023 };
static const json_int_t count_max = (json_int_t)1 << 53;

static bool only_selects(const json_t *stage)
{
    return json_is_true(json_object_get(stage, "selects"));
}

size_t counts_stages(const json_t *history)
{
    size_t i, count = 0;
    json_t *stage;
    json_array_foreach((json_t *)history, i, stage) count += !only_selects(stage);
    return count;
}

static bool is_count(const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) >= 0 &&
           json_integer_value(value) <= count_max;
}

static bool keys_valid(const json_t *object)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        if (strlen(key) > TEXT_MAX)
            return false;
    }
    return json_is_object(object) && json_object_size(object) <= KEYS_MAX;
}

static bool numbers_valid(const json_t *numbers)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)numbers, key, value)
    {
        if (!is_count(value))
            return false;
    }
    return keys_valid(numbers);
}

static bool stage_valid(const json_t *counts)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)counts, key, value)
    {
        bool text = json_is_string(value) && json_string_length(value) <= TEXT_MAX;
        if (!text && !is_count(value) && !numbers_valid(value))
            return false;
    }
    return keys_valid(counts);
}

bool counts_valid(const json_t *stages, size_t end)
{
    const char *key;
    json_t *counts;
    uint64_t index;
    json_object_foreach((json_t *)stages, key, counts)
    {
        const char *at = key;
        if (!end || !number_parse(&at, end - 1, &index) || *at || !stage_valid(counts))
            return false;
    }
    return json_is_object(stages);
}

/* sum += sign * more */
static bool combine(json_t *sum, const json_t *more, int sign)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)more, key, value)
    {
        json_t *old = json_object_get(sum, key);
        if (!old && sign > 0) {
            json_object_set_new(sum, key, json_deep_copy(value));
        } else if (json_is_integer(old) && json_is_integer(value)) {
            json_t *new = json_integer(json_integer_value(old) + sign * json_integer_value(value));
            json_object_set_new(sum, key, new);
            if (!is_count(new))
                return false;
        } else if (!old || json_typeof(value) != json_typeof(old) ||
                   (json_is_object(old) && !combine(old, value, sign))) {
            return false;
        }
    }
    return true;
}

bool counts_add(json_t *sum, const json_t *more)
{
    return combine(sum, more, 1);
}

/* A stage's object in the trailer's array, which lacks those of stages that count nothing. */
static json_t *counts_of(const json_t *end, const json_t *history, const char *stage)
{
    uint64_t wanted = strtoull(stage, NULL, 10), index = 0;
    size_t i, next = 0;
    json_t *entry;
    json_array_foreach((json_t *)history, i, entry)
    {
        json_t *counts = json_array_get(end, next);
        bool counted =
            json_equal(json_object_get(counts, "program"), json_object_get(entry, "program"));
        if (!only_selects(entry) && index++ == wanted)
            return counted ? counts : NULL;
        next += counted;
    }
    return NULL;
}

bool counts_within(const json_t *stages, const json_t *end, const json_t *history)
{
    const char *stage;
    json_t *counts;
    bool within = true;
    json_object_foreach((json_t *)stages, stage, counts)
    {
        json_t *rest = json_deep_copy(counts_of(end, history, stage));
        within &= rest && combine(rest, counts, -1);
        json_decref(rest);
    }
    return within;
}

bool counts_replace(json_t *end, const json_t *history, const json_t *part, const json_t *whole)
{
    const char *stage;
    json_t *counts;
    json_object_foreach((json_t *)part, stage, counts)
    {
        if (!combine(counts_of(end, history, stage), counts, -1))
            return false;
    }
    json_object_foreach((json_t *)whole, stage, counts)
    {
        json_t *all = json_deep_copy(counts), *own = counts_of(end, history, stage);
        bool good = own && combine(all, own, 1); /* the first text is the whole's */
        json_object_update(own, all);
        json_decref(all);
        if (!good)
            return false;
    }
    return true;
}
