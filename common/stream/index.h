/* index.h: the index of a checkpoint, which says in which shard each tensor is. */
#ifndef INDEX_H
#define INDEX_H

#include <stdint.h>

#include "tensor/toc.h"

#define CHECKPOINT_INDEX "model.safetensors.index.json"

/* Read the index from the descriptor `fd`: append to `index` a line for each name of weight_map,
 * with its shard and without a form. *total_size = metadata.total_size, or -1 without it; if NULL,
 * the metadata are not looked at. Returns NULL, or an error text that the caller frees. */
char *index_read(int fd, struct toc *index, int64_t *total_size);

#endif
