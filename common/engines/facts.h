/* facts.h: facts about a checkpoint: which there are, and, where a check counts them, how often and
 * the first few cases. */
#ifndef FACTS_H
#define FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In the order of the report. */
enum fact {
    /* what there is; not reported */
    FACT_FP8,        /* with a scale per block */
    FACT_PER_TENSOR, /* FP8 with one scale */
    FACT_MXFP4,
    FACT_EXPERTS_NVFP4,  /* routed experts of the layers */
    FACT_EXPERTS_PLAIN,  /* … unquantized */
    FACT_EXPERTS_ONLY,   /* NVFP4 in routed experts alone, and FP8 weights */
    FACT_EXPERTS_BESIDE, /* NVFP4 in routed experts, and FP8 or MXFP4 weights */
    FACT_DENSE_NVFP4,    /* NVFP4 matrices outside of routed experts */
    FACT_LATENT_NVFP4,   /* among them attention's first products (place.h) */
    FACT_ABSORBED,       /* quantized matrices that engines absorb */
    FACT_INDEXER,        /* … that engines fuse into a product in BF16 */
    FACT_DRAFTS,         /* MTP layers */
    FACT_DRAFTS_MANY,    /* several of them, as DSpark has */
    FACT_DRAFTS_NVFP4,   /* their routed experts */
    FACT_DRAFTS_MXFP4,
    FACT_DRAFTS_OTHER,       /* … in another format, beside NVFP4 */
    FACT_F32_SCALES,         /* X.scale in F32, as Base releases have, beside NVFP4 */
    FACT_DRAFTS_NOT_IGNORED, /* drafts' experts that are not NVFP4, and `ignore` lacks them */
    /* files */
    FACT_SHARD,
    FACT_INDEX,
    FACT_TOTAL_SIZE,
    FACT_ALIGNMENT,
    /* tensors */
    FACT_EXPERT,
    FACT_INCOMPLETE,
    FACT_WEIGHT,
    FACT_WEIGHT_SCALE,
    FACT_WEIGHT_SCALE_2,
    FACT_INPUT_SCALE,
    FACT_UNLOADED, /* outside of routed experts, block scales are missing or NaN; not reported */
    FACT_LEFT_OVER,
    FACT_WEIGHT_FORM,
    FACT_SCALE_FORM,
    FACT_SCALAR_FORM,
    FACT_SCALAR_SHAPE,
    FACT_OTHER_SCALE,
    FACT_MIXED,
    FACT_NO_NVFP4,
    /* their values */
    FACT_NAN,
    FACT_NEGATIVE,
    FACT_ZERO,
    FACT_SCALAR,
    FACT_SUBNORMAL,
    FACT_SHARED_SCALE_2,
    FACT_SHARED_INPUT,
    FACT_OWN_SCALE_2, /* of attention's first products */
    FACT_SPREAD,
    /* configs */
    FACT_CONFIG,
    FACT_HF_QUANT,
    FACT_LAYERS,
    FACT_IGNORE,
    FACT_IGNORED_PART, /* an entry of `ignore` stands within a module's name; not reported */
    FACT_NOT_IGNORED,
    FACT_NOT_IGNORED_DRAFT, /* the same in MTP layers */
    FACT_IGNORED_LAYERS,
    FACT_DISAGREE,
    /* side files, and the source */
    FACT_SIDE_FILE,
    FACT_DESCRIBES_SOURCE,
    FACT_PASSED,
    FACT_VALUES,
    FACT_COUNT,
};

/* A set of facts. */
#define FACT(name) (UINT64_C(1) << FACT_##name)
_Static_assert(FACT_COUNT <= 64, "a set of facts is a uint64_t");

enum level { LEVEL_NONE, LEVEL_WARNING, LEVEL_FAULT };

enum { FACT_CASES = 3 };

/* All 0 before the first use. */
struct facts {
    struct seen {
        size_t count;
        char *found[FACT_CASES]; /* texts of the first cases */
    } of[FACT_COUNT];
};

/* Count a fact, with what was found where, as a line of text. */
void facts_add(struct facts *facts, enum fact fact, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Count each fact of a set once, without a text. */
void facts_add_set(struct facts *facts, uint64_t set);
void facts_free(struct facts *facts);

/* The set of those that were found. */
uint64_t facts_found(const struct facts *facts);

/* The name of a fact in reports ("total-size"); static. And how grave it is. */
const char *fact_name(enum fact fact);
enum level fact_level(enum fact fact);

#endif
