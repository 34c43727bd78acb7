#include "forward/config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"

/* A larger integer in a config is a mistake. */
enum { COUNT_MOST = 1 << 24 };

void config_open(struct config *config, struct ts_in *in)
{
    *config =
        (struct config){xstrdup(ts_name(in)), json_incref((json_t *)model_config(ts_model(in)))};
    if (!config->json)
        die("%s: has no config.json; the model's dimensions are needed", config->stream);
}

void config_close(struct config *config)
{
    free(config->stream);
    json_decref(config->json);
    *config = (struct config){0};
}

const json_t *config_member(const struct config *config, const char *key)
{
    const json_t *value = json_object_get(config->json, key);
    if (!value)
        die("%s: config.json: %s is missing; the forward pass needs it", config->stream, key);
    return value;
}

struct config config_object(const struct config *config, const char *key)
{
    config_member(config, key);
    return (struct config){config->stream, json_object_get(config->json, key)};
}

static uint64_t checked(const struct config *config, const char *key, const json_t *value,
                        uint64_t least, uint64_t most)
{
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < (json_int_t)least || number > (json_int_t)most)
        die("%s: config.json: %s: wanted an integer from %" PRIu64 " to %" PRIu64, config->stream,
            key, least, most);
    return (uint64_t)number;
}

uint64_t config_within(const struct config *config, const char *key, uint64_t least, uint64_t most)
{
    return checked(config, key, config_member(config, key), least, most);
}

uint64_t config_count(const struct config *config, const char *key, uint64_t least)
{
    return config_within(config, key, least, COUNT_MOST);
}

uint64_t config_size(const struct config *config, const char *key)
{
    return config_count(config, key, 1);
}

uint64_t config_optional(const struct config *config, const char *key)
{
    const json_t *value = json_object_get(config->json, key);
    return value ? checked(config, key, value, 0, COUNT_MOST) : 0;
}

uint64_t *config_list(const struct config *config, const char *key, uint64_t count,
                      const char *what)
{
    const json_t *list = config_member(config, key);
    if (json_array_size(list) < count)
        die("%s: config.json: %s: wanted %" PRIu64 " of them, %s, got %zu", config->stream, key,
            count, what, json_array_size(list));
    uint64_t *value = xalloc((size_t)count, sizeof *value);
    for (uint64_t i = 0; i < count; i++)
        value[i] = checked(config, key, json_array_get(list, (size_t)i), 0, COUNT_MOST);
    return value;
}

double config_real(const struct config *config, const char *key, double least)
{
    const json_t *value = config_member(config, key);
    if (!json_is_number(value) || !(json_number_value(value) >= least))
        die("%s: config.json: %s: wanted a number from %g on", config->stream, key, least);
    return json_number_value(value);
}

/* "a, b or c". */
static char *listed(const char *const *names, unsigned count)
{
    char *text = xstrdup(names[0]);
    for (unsigned i = 1; i < count; i++) {
        char *longer = xprintf("%s%s%s", text, i + 1 < count ? ", " : " or ", names[i]);
        free(text);
        text = longer;
    }
    return text;
}

unsigned config_choice(const struct config *config, const char *key, const char *const *names,
                       unsigned count)
{
    const char *name = json_string_value(config_member(config, key));
    for (unsigned i = 0; i < count; i++)
        if (name && !strcmp(names[i], name))
            return i;
    die("%s: config.json: %s: wanted %s, got %s", config->stream, key, listed(names, count),
        name ? name : "no text");
}

void config_check(const struct config *config, bool fits, const char *what)
{
    if (!fits)
        die("%s: config.json: %s", config->stream, what);
}
