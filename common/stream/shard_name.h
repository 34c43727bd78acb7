/* shard_name.h: what the names of shards tell of each other. "model-00002-of-00003.safetensors" is
 * the second of three, of which each tensor is in one. "model1-mp2.safetensors" is of rank 1 of
 * two, model-parallel ones: they share out the experts and repeat most other names. */
#ifndef SHARD_NAME_H
#define SHARD_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True for a rank's. */
bool shard_is_rank(const char *name);

/* The name of rank `rank` of `ranks`, "model1-mp2.safetensors"; the caller frees it. *ranks = of
 * how many ranks a file of exactly such a name is, and *rank its own; false for any other name. */
char *shard_of_rank(uint64_t rank, uint64_t ranks);
bool shard_rank(const char *name, uint64_t *rank, uint64_t *ranks);

/* The name of shard `number` of `count`, from 1: "model-00002-of-00003.safetensors". The caller
 * frees it. */
char *shard_of_release(uint64_t number, uint64_t count);

/* The name of the first shard that others of these speak of, and that is not among them; NULL if
 * there is none. The caller frees it. */
char *shard_missing(char *const *name, size_t count);

#endif
