/* zeros.h: weights and scales of zero bytes only: what a file holds where a download never arrived.
 * A trained weight has none, so they are counted and named; they are no error, because an expert
 * that was never used may be zero. */
#ifndef ZEROS_H
#define ZEROS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Starts as all zeros but for `verbose`. One thread at a time. */
struct zeros {
    bool verbose; /* warn of each tensor, too */
    uint64_t count;
    char *first; /* the first tensor's name */
};

/* True if there are bytes, and all of them are 0. */
bool zeros_only(const void *data, size_t size);

/* Count the tensor of that name. */
void zeros_add(struct zeros *zeros, const char *name);

/* Put them into a stage's counts, `zero_weights` and, if there are any, `zero_first`, and free the
 * name. */
void zeros_end(struct zeros *zeros, json_t *counts);

#endif
