#include "text/pretokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/utf8.h"

enum { STEPS_MAX = 16, SHOWN_MAX = 200 }; /* SHOWN: of a pattern in a message, bytes */

/* One step of splitting. */
struct step {
    struct pattern *pattern; /* NULL: insert a space before text that does not begin with one */
    bool drop_match, drop_between;
    char *too_many; /* what is said when it takes too many steps */
};

struct pretokenizer {
    struct step step[STEPS_MAX];
    size_t steps;
};

/* The pattern of a ByteLevel with use_regex: GPT-2's. */
static const char gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- reading the description ---- */

static void free_step(struct step *step)
{
    pattern_free(step->pattern);
    free(step->too_many);
}

/* Append a step, which is taken over. */
static char *add_step(struct pretokenizer *p, struct step step)
{
    if (p->steps == STEPS_MAX) {
        free_step(&step);
        return xprintf("pre_tokenizer: more than %d steps", STEPS_MAX);
    }
    p->step[p->steps++] = step;
    return NULL;
}

static char *add_pattern(struct pretokenizer *p, const char *text, size_t length, bool drop_match,
                         bool drop_between)
{
    struct step step = {
        NULL, drop_match, drop_between,
        xprintf("the pre-tokenizer's pattern takes too many steps on this text: %.*s",
                length < SHOWN_MAX ? (int)length : SHOWN_MAX, text)};
    char *reason = pattern_new(&step.pattern, text, length);
    if (!reason)
        return add_step(p, step);
    char *error = xprintf("pre_tokenizer: %s", reason);
    free_step(&step);
    free(reason);
    return error;
}

static char *add_split(struct pretokenizer *p, const json_t *item)
{
    const json_t *regex = json_object_get(json_object_get(item, "pattern"), "Regex");
    const char *behavior = json_string_value(json_object_get(item, "behavior"));
    bool invert = json_is_true(json_object_get(item, "invert"));
    if (!json_is_string(regex))
        return xprintf("pre_tokenizer: Split: wanted a pattern of kind Regex");
    bool removed = behavior && !strcmp(behavior, "Removed");
    if (!removed && (!behavior || strcmp(behavior, "Isolated") != 0))
        return xprintf("pre_tokenizer: Split: behavior '%.40s' is not supported",
                       behavior ? behavior : "");
    return add_pattern(p, json_string_value(regex), json_string_length(regex), removed && !invert,
                       removed && invert);
}

/* Both options default to true in the reference. */
static char *add_byte_level(struct pretokenizer *p, const json_t *item)
{
    char *error = NULL;
    if (!json_is_false(json_object_get(item, "add_prefix_space")))
        error = add_step(p, (struct step){0});
    if (!error && !json_is_false(json_object_get(item, "use_regex")))
        error = add_pattern(p, gpt2, sizeof gpt2 - 1, false, false);
    return error;
}

static char *add_item(struct pretokenizer *p, const json_t *item, bool last)
{
    const char *type = json_string_value(json_object_get(item, "type"));
    if (type && !last && !strcmp(type, "Split"))
        return add_split(p, item);
    if (type && last && !strcmp(type, "ByteLevel"))
        return add_byte_level(p, item);
    return xprintf("pre_tokenizer: '%.40s' is not supported%s", type ? type : "without a type",
                   last ? " as the last step; wanted ByteLevel" : " before the last step");
}

char *pretokenizer_new(struct pretokenizer **out, const json_t *description)
{
    struct pretokenizer *p = *out = xalloc(1, sizeof *p);
    const char *type = json_string_value(json_object_get(description, "type"));
    if (!type || strcmp(type, "Sequence") != 0)
        return add_item(p, description, true);
    const json_t *items = json_object_get(description, "pretokenizers");
    char *error = NULL;
    for (size_t i = 0; !error && i < json_array_size(items); i++)
        error = add_item(p, json_array_get(items, i), i + 1 == json_array_size(items));
    if (!error && !json_array_size(items))
        error = xprintf("pre_tokenizer: an empty Sequence; wanted ByteLevel at its end");
    return error;
}

void pretokenizer_free(struct pretokenizer *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->steps; i++)
        free_step(&p->step[i]);
    free(p);
}

/* ---- cutting ---- */

struct cut {
    const struct pretokenizer *p;
    struct pattern_budget *budget;
    pretokenizer_take *take;
    void *context;
    const char *error;
};

static bool cut_from(struct cut *cut, size_t i, const char *text, size_t length);

static bool cut_prefixed(struct cut *cut, size_t step, const char *text, size_t length)
{
    if (*text == ' ')
        return cut_from(cut, step + 1, text, length);
    char *copy = xgrow(NULL, length + 1, 1);
    copy[0] = ' ';
    memcpy(copy + 1, text, length);
    bool more = cut_from(cut, step + 1, copy, length + 1);
    free(copy);
    return more;
}

/* The next match as the reference finds it: an empty match at the end of the last one does not
 * count. */
static enum pattern_result find(const struct step *step, const char *text, size_t length,
                                size_t done, struct pattern_budget *budget, size_t *start,
                                size_t *end)
{
    enum pattern_result result =
        pattern_find(step->pattern, text, length, done, budget, start, end);
    if (result != PATTERN_FOUND || *end > done)
        return result;
    bool valid;
    size_t next = done + utf8_step(text + done, length - done, &valid);
    return pattern_find(step->pattern, text, length, next, budget, start, end);
}

/* Each step sees one piece of the previous step, as if it were the whole text. False: stop. */
static bool cut_from(struct cut *cut, size_t i, const char *text, size_t length)
{
    if (i == cut->p->steps)
        return cut->take(cut->context, text, length);
    const struct step *step = &cut->p->step[i];
    if (!step->pattern)
        return cut_prefixed(cut, i, text, length);
    bool more = true;
    for (size_t done = 0, start, end; more && done < length; done = end) {
        enum pattern_result result = find(step, text, length, done, cut->budget, &start, &end);
        if (result == PATTERN_GAVE_UP) {
            cut->error = step->too_many;
            return false;
        }
        if (result == PATTERN_NONE)
            start = end = length;
        if (start > done && !step->drop_between)
            more = cut_from(cut, i + 1, text + done, start - done);
        if (more && end > start && !step->drop_match)
            more = cut_from(cut, i + 1, text + start, end - start);
    }
    return more;
}

const char *pretokenizer_cut(const struct pretokenizer *p, const char *text, size_t length,
                             struct pattern_budget *budget, pretokenizer_take *take, void *context)
{
    struct cut cut = {p, budget, take, context, NULL};
    cut_from(&cut, 0, text, length);
    return cut.error;
}
