/* hash.h: which rows of Engram's tables a token sees: n-grams that end at it are hashed, each n by
 * several heads. Source: DeepSeek-V4.1's inference/engram.py. */
#ifndef ENGRAM_HASH_H
#define ENGRAM_HASH_H

#include <stdint.h>

#include "forward/config.h"

/* The hashes of one layer. A table has a range of rows for each n and head; its size is a prime. */
struct engram_hash {
    uint64_t layer;
    uint64_t rows;        /* of its table */
    uint64_t *prime;      /* [(ngram - 1) * heads] */
    uint64_t *multiplier; /* [ngram] */
};

/* All layers' hashes. */
struct engram {
    uint64_t layers, ngram, heads;
    uint64_t dim;             /* columns of a table */
    struct engram_hash *hash; /* [layers], in the order of config.json */
    int32_t *class;           /* of each token, see text/token_classes.h */
    int32_t pad;              /* the class that stands for what is before a sample */
};

/* Read config.json's engram_ keys; the classes come from the tokenizer.json in `in`. Whatever does
 * not fit together ends the process. The caller frees it with engram_close(). */
void engram_open(struct engram *engram, const struct config *config, struct ts_in *in);
void engram_close(struct engram *engram);

/* The hashes of a layer, or NULL if it has none. */
const struct engram_hash *engram_hash_of(const struct engram *engram, uint64_t layer);

/* Rows of a layer's table for one token each: engram_rows() columns. */
static inline uint64_t engram_columns(const struct engram *engram)
{
    return (engram->ngram - 1) * engram->heads;
}

/* row[count][columns] = the rows for the tokens first … first + count - 1 of a sample's ids. */
void engram_rows(const struct engram *engram, const struct engram_hash *hash, const int32_t *id,
                 uint64_t first, uint64_t count, int32_t *row);

/* The `count` numbers below `bound` that numpy's default_rng(seed).integers() gives; bound is above
 * 2^32. */
void engram_random(uint64_t seed, uint64_t bound, uint64_t *number, uint64_t count);

#endif
