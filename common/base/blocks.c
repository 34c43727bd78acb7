#include "base/blocks.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"

/* Smaller blocks are the C library's: it keeps them itself. */
enum { SMALL = 1 << 16 };

/* In front of a block, in as many bytes as keep it aligned. */
enum { HEAD = XALIGN };

struct head {
    size_t size; /* of the block and its head */
};

struct blocks {
    pthread_mutex_t mutex; /* guards what follows, of blocks that are not small */
    struct head **kept;    /* in the order in which they were given back */
    size_t count, capacity;
    size_t bytes;       /* of these */
    size_t taken, most; /* bytes that are taken, and were at most */
};

struct blocks *blocks_new(void)
{
    struct blocks *blocks = xalloc(1, sizeof *blocks);
    pthread_mutex_init(&blocks->mutex, NULL);
    return blocks;
}

void blocks_free(struct blocks *blocks)
{
    for (size_t i = 0; i < blocks->count; i++)
        free(blocks->kept[i]);
    free(blocks->kept);
    pthread_mutex_destroy(&blocks->mutex);
    free(blocks);
}

static struct head *remove_kept(struct blocks *blocks, size_t at)
{
    struct head *head = blocks->kept[at];
    memmove(blocks->kept + at, blocks->kept + at + 1,
            (--blocks->count - at) * sizeof *blocks->kept);
    blocks->bytes -= head->size;
    return head;
}

/* Free the blocks that have been kept longest, until all together are at most a quarter more than
 * was ever taken. */
static void drop_excess(struct blocks *blocks)
{
    while (blocks->count && blocks->taken + blocks->bytes > blocks->most + blocks->most / 4)
        free(remove_kept(blocks, 0));
}

/* The smallest block that is kept and fits, if at most an eighth of it is left over; or NULL. */
static struct head *find(struct blocks *blocks, size_t size)
{
    size_t best = SIZE_MAX, at = 0;
    for (size_t i = blocks->count; i-- > 0;) {
        size_t have = blocks->kept[i]->size;
        if (have >= size && have < best) {
            best = have;
            at = i;
        }
    }
    return best - size <= best / 8 && best < SIZE_MAX ? remove_kept(blocks, at) : NULL;
}

void *blocks_take(struct blocks *blocks, uint64_t count, size_t size)
{
    uint64_t bytes;
    if (!mul_fits(count, size, &bytes) || bytes > SIZE_MAX / 2)
        die("out of memory");
    size_t whole = (size_t)bytes + HEAD;
    struct head *head = NULL;
    if (whole > SMALL) {
        pthread_mutex_lock(&blocks->mutex);
        head = find(blocks, whole);
        blocks->taken += head ? head->size : whole;
        blocks->most = blocks->taken > blocks->most ? blocks->taken : blocks->most;
        drop_excess(blocks);
        pthread_mutex_unlock(&blocks->mutex);
    }
    if (!head) {
        head = xaligned(whole, 1);
        head->size = whole;
    }
    return (char *)head + HEAD;
}

void blocks_give(struct blocks *blocks, void *block)
{
    if (!block)
        return;
    struct head *head = (void *)((char *)block - HEAD);
    if (head->size <= SMALL) {
        free(head);
        return;
    }
    pthread_mutex_lock(&blocks->mutex);
    if (blocks->count == blocks->capacity) {
        blocks->capacity = 2 * blocks->capacity + 16;
        blocks->kept = xgrow(blocks->kept, blocks->capacity, sizeof *blocks->kept);
    }
    blocks->kept[blocks->count++] = head;
    blocks->bytes += head->size;
    blocks->taken -= head->size;
    pthread_mutex_unlock(&blocks->mutex);
}
