#include "write/calibration.h"

#include <inttypes.h>
#include <string.h>

#include "base/die.h"
#include "base/text.h"

/* The counts of the stages that made the amaxes, or NULL. */
static const json_t *amax_counts(const json_t *counts)
{
    size_t i;
    const json_t *stage;
    json_array_foreach((json_t *)counts, i, stage)
    {
        const json_t *amax = json_object_get(stage, "amax");
        if (amax)
            return amax;
    }
    return NULL;
}

/* What one of them says replaces what those before it said. */
static void take(struct calibration *c, const json_t *stage)
{
    json_int_t samples, tokens, filled;
    const char *text = json_string_value(json_object_get(stage, "from"));
    if (!json_unpack((json_t *)stage, "{s:I, s:I}", "samples", &samples, "tokens", &tokens)) {
        c->samples = samples;
        c->tokens = tokens;
        c->texts = json_object_get(stage, "texts");
    }
    c->checkpoint |= text && !strcmp(text, "checkpoint");
    c->headroom |= json_is_true(json_object_get(stage, "headroom"));
    if (json_is_number(json_object_get(stage, "input_scale")))
        c->scale = json_object_get(stage, "input_scale");
    if (!json_unpack((json_t *)stage, "{s:I}", "input_fallback", &filled))
        c->filled = filled;
    if (!json_unpack((json_t *)stage, "{s:I}", "drafts_fallback", &filled))
        c->drafts = filled;
    if ((text = json_string_value(json_object_get(stage, "fallback"))))
        c->rule = text;
    if ((text = json_string_value(json_object_get(stage, "w2"))))
        c->w2 = text;
    if (json_is_array(json_object_get(stage, "input_scales")))
        c->scales = json_object_get(stage, "input_scales");
}

bool calibration_find(struct calibration *calibration, const json_t *counts)
{
    const json_t *amax = amax_counts(counts), *stage;
    size_t i;
    *calibration = (struct calibration){0};
    json_array_foreach((json_t *)amax, i, stage) take(calibration, stage);
    return amax;
}

size_t calibration_lines(const struct calibration *c, char *line[CALIBRATION_LINES])
{
    size_t count = 0;
    const char *rule = c->rule ? c->rule : "";
    if (c->checkpoint)
        line[count++] = xstrdup("They are those of another NVFP4 checkpoint of this model.");
    if (c->scale)
        line[count++] =
            xprintf("All are %.9g, without a calibration.", json_number_value(c->scale));
    if (c->filled)
        line[count++] =
            xprintf("Scales of experts that no token reached: %" PRId64 " filled in (%s).",
                    c->filled, rule);
    if (c->drafts)
        line[count++] = xprintf("Scales of drafts that were not calibrated: %" PRId64
                                " filled in from the last layer (%s).",
                                c->drafts, rule);
    if (c->headroom)
        line[count++] = xstrdup("They leave room above the largest inputs that were seen.");
    if (c->w2)
        line[count++] =
            xprintf("The inputs of experts' last matrix were measured %s.",
                    strcmp(c->w2, "engine") ? "with the router's weight, as the reference does"
                                            : "without the router's weight, as engines quantize "
                                              "them");
    for (size_t i = 0; i < count; i++)
        printable(line[i]);
    return count;
}
