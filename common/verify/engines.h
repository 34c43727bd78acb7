/* engines.h: what serving engines make of a checkpoint. */
#ifndef VERIFY_ENGINES_H
#define VERIFY_ENGINES_H

#include "verify/rule.h"

struct engine {
    const char *name;    /* "vllm" */
    const char *title;   /* "vLLM" */
    const char *version; /* the one that the rules were read from */
    const struct rule *rule;
};

/* All engines, ended by one without a name. */
extern const struct engine engines[];

/* The engine of that name, or NULL. */
const struct engine *engine_find(const char *name);

/* What the engine makes of the folder, with speculation by its drafts or without. *rule = the rule
 * that decides, or NULL if it loads. `found` is facts_found() after all checks. */
enum verdict engine_judge(const struct engine *engine, const struct folder *folder, uint64_t found,
                          bool drafts, const struct rule **rule);

/* "loads", "refuses", "loads silently wrong", "not known"; static. */
const char *verdict_name(enum verdict verdict);

#endif
