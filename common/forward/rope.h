/* rope.h: the angles of rotary position embeddings, with YaRN's interpolation beyond the original
 * training length. Source: DeepSeek's inference/model.py, precompute_freqs_cis. */
#ifndef ROPE_H
#define ROPE_H

#include "forward/config.h"
#include "forward/device.h"

struct rope {
    uint64_t dim; /* columns that are rotated, pair by pair: even */
    double theta;
    /* YaRN; not used where original_length is 0. */
    uint64_t original_length;
    double factor, beta_fast, beta_slow;
};

/* Read YaRN's parameters from config.json's rope_scaling. */
void rope_read_scaling(struct rope *rope, const struct config *config);

/* Cosine and sine for positions below `length`, as device.h's rotate() has them: [length, dim] F32,
 * which the caller drops. F32 where the reference has F32. */
struct mat rope_table(struct device *d, const struct rope *rope, uint64_t length);

#endif
