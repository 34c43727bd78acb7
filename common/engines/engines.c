#include "engines/engines.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/text.h"
#include "engines/rules.h"

const struct engine engines[] = {
    [ENGINE_VLLM] = {.name = "vllm",
                     .title = "vLLM",
                     .version = "0.33.0",
                     .serve = "vllm serve .",
                     .speculate = "--speculative-config '{\"method\": \"mtp\", "
                                  "\"num_speculative_tokens\": 1}'"},
    [ENGINE_SGLANG] = {.name = "sglang",
                       .title = "SGLang",
                       .version = "0.5.23",
                       .serve = "python3 -m sglang.launch_server --model-path .",
                       .speculate = "--speculative-algorithm EAGLE"},
    [ENGINE_TRTLLM] = {.name = "trtllm",
                       .title = "TensorRT-LLM",
                       .version = "main (008e0af)",
                       .serve = "trtllm-serve ."},
    [ENGINE_TRANSFORMERS] = {.name = "transformers", .title = "transformers", .version = "5.24.0"},
    [ENGINES] = {0},
};

/* ---- verdicts ---- */

/* Of every engine: the safetensors library (safetensors/src/tensor.rs: Metadata::validate), and
 * what is no checkpoint that rules are of. */
static const struct rule first[] = {
    {VERDICT_REFUSES, "a shard is not there, or the safetensors library refuses it",
     .found = FACT(SHARD)},
    {VERDICT_REFUSES, "no engine knows what model it is", .key = "model_type", .unless = "*"},
    {VERDICT_UNKNOWN, "the rules are of NVFP4 and of unquantized checkpoints",
     .found = FACT(NO_NVFP4)},
    {0},
};

/* Of a model that no family's rules are of. */
static const struct rule no_family = {VERDICT_UNKNOWN, "no rules are known for that model",
                                      .key = "model_type", .unless = ""};

static const struct rule no_drafts = {.verdict = VERDICT_REFUSES,
                                      .why = "the checkpoint has no drafts"};

const struct engine *engine_find(const char *name)
{
    const struct engine *engine = engines;
    while (engine->name && strcmp(engine->name, name) != 0)
        engine++;
    return engine->name ? engine : NULL;
}

bool engines_know(const struct evidence *evidence)
{
    return evidence->found & (FACT(EXPERTS_NVFP4) | FACT(DENSE_NVFP4) | FACT(EXPERTS_PLAIN));
}

/* The rules of the checkpoint's family, or NULL. */
static const struct family_rules *rules_of(const struct evidence *evidence)
{
    static const struct family_rules *const all[] = {&rules_deepseek_v3, &rules_deepseek_v4};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const struct rule others = {.key = "model_type", .unless = all[i]->types};
        if (!rule_applies(&others, evidence))
            return all[i];
    }
    return NULL;
}

/* The first rule of a table that applies, or NULL. */
static const struct rule *deciding(const struct rule *rule, const struct evidence *evidence,
                                   bool drafts)
{
    for (; rule->why; rule++)
        if ((drafts || !rule->drafts) && rule_applies(rule, evidence))
            return rule;
    return NULL;
}

/* The same of tables, ended by NULL. */
static const struct rule *deciding_of(const struct rule *const *table,
                                      const struct evidence *evidence, bool drafts)
{
    const struct rule *found = NULL;
    while (!found && *table)
        found = deciding(*table++, evidence, drafts);
    return found;
}

enum verdict engine_judge(const struct engine *engine, const struct evidence *evidence, bool drafts,
                          const struct rule **rule)
{
    const struct family_rules *family = rules_of(evidence);
    *rule = deciding(first, evidence, drafts);
    if (!*rule && !family)
        *rule = &no_family;
    if (!*rule)
        *rule = deciding_of(family->of[engine - engines], evidence, drafts);
    if (!*rule && drafts && !(evidence->found & FACT(DRAFTS)))
        *rule = &no_drafts;
    return *rule ? (*rule)->verdict : VERDICT_LOADS;
}

char *engine_command(const struct engine *engine, const struct evidence *evidence, bool drafts)
{
    const struct rule *rule;
    bool known =
        engine->serve && (!drafts || (engine->speculate && !(evidence->found & FACT(DRAFTS_MANY))));
    for (int speculates = 0; known && speculates <= drafts; speculates++)
        known = engine_judge(engine, evidence, speculates, &rule) == VERDICT_LOADS;
    return !known   ? NULL
           : drafts ? xprintf("%s %s", engine->serve, engine->speculate)
                    : xstrdup(engine->serve);
}

const char *verdict_name(enum verdict verdict)
{
    static const char *const name[] = {[VERDICT_LOADS] = "loads",
                                       [VERDICT_REFUSES] = "refuses",
                                       [VERDICT_WRONG] = "loads silently wrong",
                                       [VERDICT_UNKNOWN] = "not known"};
    return name[verdict];
}

/* "loads", or "refuses: why". The caller frees it. */
static char *verdict_text(enum verdict verdict, const struct rule *rule,
                          const struct evidence *evidence)
{
    char *why = rule ? rule_text(rule, evidence) : xstrdup("");
    char *text = xprintf("%s%s%s", verdict_name(verdict), rule ? ": " : "", why);
    free(why);
    return text;
}

char *engine_line(const struct engine *engine, const struct evidence *evidence)
{
    const struct rule *rule[2];
    enum verdict verdict[2];
    char *text[2];
    for (int drafts = 0; drafts < 2; drafts++) {
        verdict[drafts] = engine_judge(engine, evidence, drafts, &rule[drafts]);
        text[drafts] = verdict_text(verdict[drafts], rule[drafts], evidence);
    }
    bool same = verdict[0] == verdict[1] && rule[0] == rule[1];
    char *line =
        same ? xprintf("%s %s, also with speculation: %s", engine->title, engine->version, text[0])
             : xprintf("%s %s: %s; with speculation: %s", engine->title, engine->version, text[0],
                       text[1]);
    free(text[0]);
    free(text[1]);
    return line;
}
