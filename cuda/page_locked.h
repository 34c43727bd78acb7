/* page_locked.h: memory of the host from and to which a GPU copies by itself. Locking its pages
 * takes time, most of it for the kernel to clear them. So threads lock chunk after chunk from the
 * first on, and each can be used as soon as it is locked. */
#ifndef PAGE_LOCKED_H
#define PAGE_LOCKED_H

#include <stddef.h>

struct page_locked;

/* Begin to lock so much memory for GPU number `gpu`, which page_locked_end() frees. What goes wrong
 * ends the process. */
struct page_locked *page_locked_begin(size_t bytes, int gpu);
void page_locked_end(struct page_locked *locked);

/* Where it lies. Its contents are undefined. */
void *page_locked_memory(const struct page_locked *locked);

/* Wait until the byte at `at` is locked; returns how many bytes from there on are in its chunk,
 * which one copy may take. */
size_t page_locked_wait(struct page_locked *locked, const void *at);

#endif
