#include "engines/facts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/die.h"
#include "base/text.h"

static const struct {
    const char *name;
    enum level level;
} facts_known[FACT_COUNT] = {
    [FACT_SHARD] = {"shard", LEVEL_FAULT},
    [FACT_INDEX] = {"index", LEVEL_FAULT},
    [FACT_TOTAL_SIZE] = {"total-size", LEVEL_FAULT},
    [FACT_ALIGNMENT] = {"alignment", LEVEL_WARNING},
    [FACT_EXPERT] = {"expert", LEVEL_FAULT},
    [FACT_INCOMPLETE] = {"incomplete", LEVEL_FAULT},
    [FACT_WEIGHT] = {"weight", LEVEL_FAULT},
    [FACT_WEIGHT_SCALE] = {"weight-scale", LEVEL_FAULT},
    [FACT_WEIGHT_SCALE_2] = {"weight-scale-2", LEVEL_FAULT},
    [FACT_INPUT_SCALE] = {"input-scale", LEVEL_FAULT},
    [FACT_LEFT_OVER] = {"left-over-scale", LEVEL_FAULT},
    [FACT_WEIGHT_FORM] = {"weight-form", LEVEL_FAULT},
    [FACT_SCALE_FORM] = {"scale-form", LEVEL_FAULT},
    [FACT_SCALAR_FORM] = {"scalar-form", LEVEL_FAULT},
    [FACT_SCALAR_SHAPE] = {"scalar-shape", LEVEL_WARNING},
    [FACT_OTHER_SCALE] = {"other-scale", LEVEL_FAULT},
    [FACT_MIXED] = {"mixed-experts", LEVEL_FAULT},
    [FACT_NO_NVFP4] = {"no-nvfp4", LEVEL_FAULT},
    [FACT_NAN] = {"nan", LEVEL_FAULT},
    [FACT_NEGATIVE] = {"negative", LEVEL_FAULT},
    [FACT_ZERO] = {"zero", LEVEL_WARNING},
    [FACT_SCALAR] = {"scalar", LEVEL_FAULT},
    [FACT_SUBNORMAL] = {"subnormal", LEVEL_WARNING},
    [FACT_SHARED_SCALE_2] = {"shared-scale-2", LEVEL_FAULT},
    [FACT_SHARED_INPUT] = {"shared-input-scale", LEVEL_FAULT},
    [FACT_OWN_SCALE_2] = {"own-scale-2", LEVEL_WARNING},
    [FACT_SPREAD] = {"input-spread", LEVEL_WARNING},
    [FACT_CONFIG] = {"config", LEVEL_FAULT},
    [FACT_HF_QUANT] = {"hf-quant-config", LEVEL_FAULT},
    [FACT_LAYERS] = {"quantized-layers", LEVEL_FAULT},
    [FACT_IGNORE] = {"ignore", LEVEL_FAULT},
    [FACT_NOT_IGNORED] = {"not-ignored", LEVEL_FAULT},
    [FACT_NOT_IGNORED_DRAFT] = {"not-ignored", LEVEL_FAULT},
    [FACT_IGNORED_LAYERS] = {"ignored-layers", LEVEL_FAULT},
    [FACT_DISAGREE] = {"configs-disagree", LEVEL_FAULT},
    [FACT_SIDE_FILE] = {"side-file", LEVEL_WARNING},
    [FACT_DESCRIBES_SOURCE] = {"describes-source", LEVEL_WARNING},
    [FACT_PASSED] = {"passed-through", LEVEL_FAULT},
    [FACT_VALUES] = {"values", LEVEL_FAULT},
};

void facts_add(struct facts *facts, enum fact fact, const char *format, ...)
{
    struct seen *seen = &facts->of[fact];
    va_list arguments;
    if (seen->count++ >= FACT_CASES)
        return;
    va_start(arguments, format);
    if (vasprintf(&seen->found[seen->count - 1], format, arguments) < 0)
        die("out of memory");
    va_end(arguments);
    printable(seen->found[seen->count - 1]);
}

void facts_add_set(struct facts *facts, uint64_t set)
{
    for (size_t i = 0; i < FACT_COUNT; i++)
        facts->of[i].count += set >> i & 1;
}

void facts_free(struct facts *facts)
{
    for (size_t i = 0; i < FACT_COUNT; i++)
        for (size_t j = 0; j < FACT_CASES; j++)
            free(facts->of[i].found[j]);
    *facts = (struct facts){0};
}

uint64_t facts_found(const struct facts *facts)
{
    uint64_t found = 0;
    for (size_t i = 0; i < FACT_COUNT; i++)
        if (facts->of[i].count)
            found |= UINT64_C(1) << i;
    return found;
}

const char *fact_name(enum fact fact)
{
    return facts_known[fact].name;
}

enum level fact_level(enum fact fact)
{
    return facts_known[fact].level;
}
