/* counts.h: what the stages of a stream counted, as JSON.
 *
 * Counts are an object: a number that is not negative, a text (the first of what was counted), or
 * an object of such numbers under each key. They add up: of numbers the sum, of texts the first.
 *
 * A stage is identified by its index in the header's history, as text, not counting those that only
 * select tensors: "by stage" means an object {"2": COUNTS}. An entry .counts (tensor-stream(5)) has
 * them by shard: {"SHARD": {"2": COUNTS}}. The trailer, .end, has an array of all stages' that
 * counted, in the order of the history. */
#ifndef COUNTS_H
#define COUNTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* The number of stages in a history that do not only select tensors: the index of the next one. */
size_t counts_stages(const json_t *history);

/* True if `stages` are counts by stage, each of at most 256 keys and no number over 2^53, and no
 * index is as high as `end`. */
bool counts_valid(const json_t *stages, size_t end);

/* Add counts to counts, or the same by stage or by shard. False, with `sum` undefined, if one has a
 * number where the other has not, or a sum is over 2^53. */
bool counts_add(json_t *sum, const json_t *more);

/* True if `stages` can be a part of what `end`, the trailer's array, counted. */
bool counts_within(const json_t *stages, const json_t *end, const json_t *history);

/* Replace `part`, by stage, of what `end` counted by `whole`. False, with `end` undefined, if
 * that does not give counts. */
bool counts_replace(json_t *end, const json_t *history, const json_t *part, const json_t *whole);

#endif
