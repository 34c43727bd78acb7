/* rule.h: what follows from what a checkpoint has, or from what its configs say. */
#ifndef RULE_H
#define RULE_H

#include <jansson.h>
#include <stdbool.h>

#include "engines/facts.h"

enum verdict {
    VERDICT_LOADS,
    VERDICT_REFUSES, /* says that something is wrong, and ends */
    VERDICT_WRONG,   /* loads without a word, and computes something else */
    VERDICT_UNKNOWN, /* no rule is known for such a checkpoint */
};

/* A checkpoint as rules see it. What it points to is borrowed. */
struct evidence {
    const json_t *config;   /* config.json, or NULL */
    const json_t *hf_quant; /* hf_quant_config.json, or NULL */
    uint64_t found;         /* the set of facts about it (facts.h) */
};

/* A rule applies if all of what follows `why` holds. Tables of rules are ended by one without a
 * `why`. */
struct rule {
    enum verdict verdict;
    const char *why;
    uint64_t found;     /* one of these facts was found; 0: whatever was */
    const char *key;    /* the value at this path is none of `unless`; NULL: whatever it is */
    const char *unless; /* "fp8|modelopt"; "-": null or not there; "*": anything else */
    bool drafts;        /* it matters only to an engine that speculates */
};

/* Paths begin in config.json, or its text_config: "quantization_config.quant_method". With this
 * prefix they begin in hf_quant_config.json. */
#define RULE_HF_QUANT "hf_quant_config.json:"

/* The two configs' objects about quantization, as beginnings of a path. */
#define RULE_Q "quantization_config."
#define RULE_HF RULE_HF_QUANT "quantization."

bool rule_applies(const struct rule *rule, const struct evidence *evidence);

/* Why, with the value that decided: "quantization_config.quant_method is modelopt: …". The caller
 * frees it. */
char *rule_text(const struct rule *rule, const struct evidence *evidence);

#endif
