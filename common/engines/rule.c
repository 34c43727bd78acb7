#include "engines/rule.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/text.h"

/* The value at a path below `object`, or NULL. */
static const json_t *below(const json_t *object, const char *path)
{
    while (object && *path) {
        size_t length = strcspn(path, ".");
        object = json_object_getn(object, path, length);
        path += length + (path[length] == '.');
    }
    return json_is_null(object) ? NULL : object;
}

/* As compact JSON, a string without its quotes; "-" for none. The caller frees it. */
static char *value_at(const struct evidence *evidence, const char *key)
{
    const size_t prefix = strlen(RULE_HF_QUANT);
    const json_t *value;
    if (starts_with(key, RULE_HF_QUANT)) {
        value = below(evidence->hf_quant, key + prefix);
    } else {
        value = below(evidence->config, key);
        if (!value)
            value = below(json_object_get(evidence->config, "text_config"), key);
    }
    if (!value)
        return xstrdup("-");
    if (json_is_string(value))
        return xstrdup(json_string_value(value));
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text)
        die("out of memory");
    return text;
}

static bool is_among(const char *value, const char *list)
{
    size_t length = strlen(value);
    if (!strcmp(list, "*"))
        return strcmp(value, "-") != 0;
    for (;;) {
        size_t next = strcspn(list, "|");
        if (next == length && !strncmp(list, value, length))
            return true;
        if (!list[next])
            return false;
        list += next + 1;
    }
}

bool rule_applies(const struct rule *rule, const struct evidence *evidence)
{
    if (rule->found && !(rule->found & evidence->found))
        return false;
    if (!rule->key)
        return true;
    char *value = value_at(evidence, rule->key);
    bool applies = !is_among(value, rule->unless);
    free(value);
    return applies;
}

char *rule_text(const struct rule *rule, const struct evidence *evidence)
{
    enum { VALUE_MAX = 60 };
    if (!rule->key)
        return xstrdup(rule->why);
    char *value = value_at(evidence, rule->key);
    char *text = strcmp(value, "-") ? xprintf("%s is %.*s%s: %s", rule->key, VALUE_MAX, value,
                                              strlen(value) > VALUE_MAX ? "…" : "", rule->why)
                                    : xprintf("%s is missing: %s", rule->key, rule->why);
    free(value);
    return text;
}
