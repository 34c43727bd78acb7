/* rows.h: the tokens of all samples, one per row, and their hidden states between two layers. */
#ifndef ROWS_H
#define ROWS_H

#include "forward/device.h"
#include "stream/tokens.h"

struct rows {
    struct device *device;
    uint64_t samples;
    uint64_t *start;         /* sample s has rows start[s] to start[s + 1] - 1 */
    int32_t *id;             /* the token of each row */
    struct offloaded hidden; /* [rows, copies * dim + carried] BF16, see network.h */
};

/* The rows of `tokens`, without hidden states. rows_end() drops hidden states, too. */
void rows_begin(struct rows *rows, struct device *d, const struct tokens *tokens);
void rows_end(struct rows *rows);

/* The number of all rows, and that of `samples` samples from `sample` on. */
uint64_t rows_count(const struct rows *rows);
uint64_t rows_of(const struct rows *rows, uint64_t sample, uint64_t samples);

/* The hidden states of up to `count` rows from `first` on; as many are fetched next. The caller
 * returns them with rows_store(). */
struct mat rows_fetch(const struct rows *rows, uint64_t first, uint64_t count);
void rows_store(const struct rows *rows, uint64_t first, struct mat hidden);

/* The token after each row in its sample, or -1 after the last. The caller frees it. */
int32_t *rows_targets(const struct rows *rows);

/* Advance by one token: each sample loses its last hidden state and its first token. */
void rows_shift(struct rows *rows);

#endif
