/* predictions.h: what a model predicted, token by token: the loss of each next token, and the best
 * candidates; kept in memory, saved as a stream, and compared with another model's.
 *
 *   tokens        U8 [64]: the digest of the token ids
 *   nll           F32 [count]
 *   top_ids       I32 [count, top], best first
 *   top_logprobs  F32 [count, top] */
#ifndef PREDICTIONS_H
#define PREDICTIONS_H

#include "base/args.h"
#include "base/digest.h"
#include "base/ranks.h"

struct predictions {
    char tokens[DIGEST_TEXT];
    uint64_t top;
    uint64_t count, capacity;
    float *loss;    /* [count] */
    int32_t *id;    /* [count, top] */
    float *logprob; /* [count, top] */
};

/* One more token: its loss, and `top` candidates with their log-probabilities. */
void predictions_add(struct predictions *p, float loss, const float *logprob, const int32_t *id);
double predictions_sum(const struct predictions *p); /* of losses */
void predictions_free(struct predictions *p);

/* Rank 0's, and behind them those of the other ranks. */
void predictions_gather(struct predictions *p, struct ranks *ranks);

/* To and from a stream; `stage` is the program's, for the history. */
void predictions_save(const struct predictions *p, const struct stage *stage, const char *path);
void predictions_load(struct predictions *p, const char *path);

/* How b differs from a, on average over tokens. The divergence is that of the distributions over
 * the candidates that both lists have and "any other token": a lower bound of the whole one, and
 * close to it where the lists hold most of the probability. */
struct comparison {
    double divergence; /* Kullback-Leibler, of b from a, in nats */
    double agreement;  /* share of tokens with the same best candidate */
    double ratio;      /* of perplexities, b to a */
};

/* Runs over different tokens end the process; the names are for that. */
void predictions_compare(struct comparison *c, const struct predictions *a, const char *name_a,
                         const struct predictions *b, const char *name_b);

#endif
