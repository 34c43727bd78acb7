/* pickle.h: the state dict in a PyTorch file, read without running it.
 *
 * A pickle is a program for a stack machine, and it may call whatever Python has. The machine here
 * knows the opcodes and globals that torch.save() needs for a dict of tensors (protocol 2), calls
 * nothing, and refuses all others by name and offset. */
#ifndef PICKLE_H
#define PICKLE_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/toc.h"

/* One tensor of the dict, as the pickle describes it: its form is not yet compared with the bytes
 * that are there. */
struct pickle_tensor {
    const char *name;    /* the dict's key: printable ASCII, at most TENSOR_NAME_MAX bytes */
    const char *storage; /* the key of the storage that holds its bytes; text as above */
    uint64_t elements;   /* how many of its dtype the storage is said to hold */
    uint64_t offset;     /* of its first one there */
    uint64_t dim[TENSOR_RANK_MAX];
    uint64_t stride[TENSOR_RANK_MAX]; /* elements */
    uint8_t rank;
    uint8_t dtype; /* enum dtype */
};

/* A dict. Owns its strings. */
struct pickle {
    struct pickle_tensor *tensor; /* in the dict's order */
    size_t count, capacity;
    struct arena *arena;
};

/* Parse `size` bytes, all of them. Numbers in the result are below 2^63. Memory is bounded: a dict
 * of a million tensors is read, and nothing takes more than 1 GiB. A key that comes twice is not
 * noticed. Returns NULL, or what is wrong, with the key that is concerned and the offset (the
 * caller frees the text); pickle_free() in either case. */
char *pickle_parse(struct pickle *pickle, const void *data, size_t size);
void pickle_free(struct pickle *pickle);

#endif
