/* rules.h: the tables of rules, by family of models. Only files in engines/ include it.
 *
 * An engine's rules are in the order in which it comes to them: the first that applies decides.
 * Comments say where a rule was read. "tried": the engine's own loader, on a CPU, was given a
 * checkpoint with this fault. */
#ifndef RULES_H
#define RULES_H

#include "engines/rule.h"

enum { ENGINE_VLLM, ENGINE_SGLANG, ENGINE_TRTLLM, ENGINE_TRANSFORMERS, ENGINES };

/* What engines make of the checkpoints of a family. */
struct family_rules {
    const char *types; /* config.json's model_type, as in struct rule's `unless` */
    const struct rule *const *of[ENGINES]; /* each engine's tables in order, ended by NULL */
};

#define TABLES(...) ((const struct rule *const[]){__VA_ARGS__, NULL})

extern const struct family_rules rules_deepseek_v3, rules_deepseek_v4;

/* Routed experts in NVFP4, and any NVFP4. */
#define NVFP4_EXPERTS FACT(EXPERTS_NVFP4)
#define NVFP4 (FACT(EXPERTS_NVFP4) | FACT(DENSE_NVFP4))

/* What an expert, or a matrix, lacks. */
#define LACKS                                                                                      \
    (FACT(EXPERT) | FACT(INCOMPLETE) | FACT(WEIGHT) | FACT(WEIGHT_SCALE) | FACT(WEIGHT_SCALE_2) |  \
     FACT(INPUT_SCALE))

/* ---- tables that several engines or families share ---- */

/* Loaders that do not look whether a parameter was loaded, and whether its parts fit together: of
 * vLLM and SGLang. */
extern const struct rule rules_unchecked[];

/* Values that no arithmetic survives, and what is not known of any engine. */
extern const struct rule rules_values[];

/* transformers, for models that it has. */
extern const struct rule rules_transformers[];

#endif
