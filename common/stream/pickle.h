/* pickle.h: the state dict in a PyTorch file, read without running it.
 *
 * A pickle is a program for a stack machine, and it may call anything in Python. This machine knows
 * only the opcodes and globals that torch.save() needs for a dict of tensors (protocol 2). It calls
 * nothing, and refuses all others by name and offset. */
#ifndef PICKLE_H
#define PICKLE_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/toc.h"

/* A tensor of the dict, as the pickle describes it. Nothing has been checked against the actual
 * bytes. */
struct pickle_tensor {
    const char *name;    /* the dict's key: printable ASCII, at most TENSOR_NAME_MAX bytes */
    const char *storage; /* the key of the storage that holds its bytes; text as above */
    uint64_t elements;   /* the storage's claimed size, in elements of this dtype */
    uint64_t offset;     /* of its first element in the storage */
    uint64_t dim[TENSOR_RANK_MAX];
    uint64_t stride[TENSOR_RANK_MAX]; /* elements */
    uint8_t rank;
    uint8_t dtype; /* enum dtype */
};

/* A dict. Owns its strings; pickle_free() frees the content. */
struct pickle {
    struct pickle_tensor *tensor; /* in the dict's order */
    size_t count, capacity;
    struct arena *arena;
};

/* Parse exactly `size` bytes. Numbers in the result are below 2^63. Memory is bounded: a dict of a
 * million tensors can be read, and nothing takes more than 1 GiB. Duplicate keys are not detected.
 * Returns NULL, or an error text with the key concerned and the offset, which the caller frees.
 * Call pickle_free() in either case. */
char *pickle_parse(struct pickle *pickle, const void *data, size_t size);
void pickle_free(struct pickle *pickle);

#endif
