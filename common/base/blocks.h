/* blocks.h: large blocks of memory that are kept when they are no longer needed, for work that
 * needs the same sizes again and again: the pages of fresh memory take longer than many an
 * operation on them. Any thread may take and give blocks.
 *
 * Where memory lies on a machine of several nodes: a page is on the node of the thread that wrote
 * it first, and stays there as long as its block is kept. The threads of a loop write a block's
 * pieces as they come to take them, so blocks that loops fill are spread over the nodes of these
 * threads, and so is the load of reading them. No piece is bound to a node: threads that others
 * hold up would then hold up the loop. */
#ifndef BLOCKS_H
#define BLOCKS_H

#include <stddef.h>
#include <stdint.h>

struct blocks;

/* Without a block; blocks_free() frees those that are kept. */
struct blocks *blocks_new(void);
void blocks_free(struct blocks *blocks);

/* An uninitialized block of count elements of `size` bytes, aligned as xaligned()'s, which the
 * caller gives back. Ends the process if memory is exhausted. */
void *blocks_take(struct blocks *blocks, uint64_t count, size_t size);

/* Give a block back; NULL is none. What is taken and kept together is at most a quarter more than
 * what was taken at any one time. */
void blocks_give(struct blocks *blocks, void *block);

#endif
