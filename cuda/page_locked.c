#include "page_locked.h"

#include <cuda_runtime.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/die.h"

/* Chunks are of huge pages if possible: fewer pages are locked faster. Locking one chunk keeps
 * calls to CUDA waiting, so they are small. */
enum { LARGE_PAGE = 2 << 20, PAGE = 4096, CHUNK = 256 << 20, THREADS = 8 };

struct page_locked {
    char *memory;
    size_t bytes, chunks;
    int gpu;
    pthread_t thread[THREADS];
    unsigned threads;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    size_t next; /* chunk to lock */
    bool *locked;
    bool stop;
};

static size_t chunk_bytes(const struct page_locked *l, size_t chunk)
{
    return (size_t)at_most(l->bytes - chunk * CHUNK, CHUNK);
}

static void lock_chunk(const struct page_locked *l, size_t chunk)
{
    char *memory = l->memory + chunk * CHUNK;
    size_t bytes = chunk_bytes(l, chunk);
    for (size_t at = 0; at < bytes; at += PAGE) /* cleared by this thread, not in CUDA's lock */
        *(volatile char *)(memory + at) = 0;
    cudaError_t status = cudaSetDevice(l->gpu);
    if (status == cudaSuccess)
        status = cudaHostRegister(memory, bytes, cudaHostRegisterDefault);
    if (status != cudaSuccess)
        die("CUDA: cannot lock %zu bytes of memory for what does not fit on the GPU: %s; fewer "
            "--samples need less",
            l->bytes, cudaGetErrorString(status));
}

static void *lock_chunks(void *context)
{
    struct page_locked *l = context;
    pthread_mutex_lock(&l->mutex);
    while (l->next < l->chunks && !l->stop) {
        size_t chunk = l->next++;
        pthread_mutex_unlock(&l->mutex);
        lock_chunk(l, chunk);
        pthread_mutex_lock(&l->mutex);
        l->locked[chunk] = true;
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

struct page_locked *page_locked_begin(size_t bytes, int gpu)
{
    struct page_locked *l = xalloc(1, sizeof *l);
    size_t chunks = bytes / CHUNK + (bytes % CHUNK != 0);
    *l = (struct page_locked){.bytes = bytes, .chunks = chunks, .gpu = gpu};
    l->memory = aligned_alloc(LARGE_PAGE, (bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE);
    if (!l->memory)
        die("cannot allocate %zu bytes of memory for what does not fit on the GPU; fewer --samples "
            "need less",
            bytes);
    (void)madvise(l->memory, bytes, MADV_HUGEPAGE);
    l->locked = xalloc(chunks ? chunks : 1, sizeof *l->locked);
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->changed, NULL);
    for (; l->threads < THREADS && l->threads < chunks; l->threads++)
        if (pthread_create(&l->thread[l->threads], NULL, lock_chunks, l))
            die("cannot start a thread; are there too many processes?");
    return l;
}

void *page_locked_memory(const struct page_locked *l)
{
    return l->memory;
}

size_t page_locked_wait(struct page_locked *l, const void *at)
{
    size_t offset = (size_t)((const char *)at - l->memory), chunk = offset / CHUNK;
    if (offset >= l->bytes)
        die("internal: byte %zu of %zu page-locked ones", offset, l->bytes);
    pthread_mutex_lock(&l->mutex);
    while (!l->locked[chunk])
        pthread_cond_wait(&l->changed, &l->mutex);
    pthread_mutex_unlock(&l->mutex);
    return chunk * CHUNK + chunk_bytes(l, chunk) - offset;
}

void page_locked_end(struct page_locked *l)
{
    pthread_mutex_lock(&l->mutex);
    l->stop = true;
    pthread_mutex_unlock(&l->mutex);
    for (unsigned i = 0; i < l->threads; i++)
        pthread_join(l->thread[i], NULL);
    for (size_t i = 0; i < l->chunks; i++)
        if (l->locked[i] && cudaHostUnregister(l->memory + i * CHUNK) != cudaSuccess)
            die("CUDA: page-locked memory: %s", cudaGetErrorString(cudaGetLastError()));
    pthread_mutex_destroy(&l->mutex);
    pthread_cond_destroy(&l->changed);
    free(l->memory);
    free(l->locked);
    free(l);
}
