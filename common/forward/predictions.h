/* predictions.h: a model's predictions, token by token: the loss of each next token and the best
 * candidates. They are kept in memory, saved as a stream, and compared with another model's.
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

/* Append a token: its loss, and `top` candidates with their log-probabilities. */
void predictions_add(struct predictions *p, float loss, const float *logprob, const int32_t *id);
double predictions_sum(const struct predictions *p); /* of losses */
void predictions_free(struct predictions *p);

/* On rank 0, append the predictions of the other ranks, in rank order. */
void predictions_gather(struct predictions *p, struct ranks *ranks);

/* Save to a stream, and load from one; `stage` is the program's, for the history. */
void predictions_save(const struct predictions *p, const struct stage *stage, const char *path);
void predictions_load(struct predictions *p, const char *path);

/* How b differs from a, averaged over tokens. The divergence is taken over the candidates in both
 * lists and "any other token": a lower bound of the full divergence, and close to it where the
 * lists hold most of the probability. */
struct comparison {
    double divergence; /* Kullback-Leibler, of b from a, in nats */
    double agreement;  /* fraction of tokens with the same best candidate */
    double ratio;      /* of perplexities, b to a */
};

/* Predictions for different tokens end the process, with a message that has the names. */
void predictions_compare(struct comparison *c, const struct predictions *a, const char *name_a,
                         const struct predictions *b, const char *name_b);

#endif
