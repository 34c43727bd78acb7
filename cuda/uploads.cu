/* The GPU as a device: how weights get there. A ring of page-locked pieces of memory is lent to
 * those who read; each goes to the GPU in a stream of its own, beside the operations. */
#include "gpu.cuh"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cufile.h"

/* A piece has room for pages at both ends. What is smaller than SMALL the driver takes away at
 * once, without a piece. */
enum { PIECES = 32, PAGE = 4096, PIECE_ROOM = DEVICE_PIECE + 2 * PAGE, SMALL = 32 << 10 };

struct sent {
    char *memory;
    bool staging, used; /* to a reader now; ever */
    cudaEvent_t til;    /* it is on the GPU */
};

/* Operations of a lane that wait. */
struct stall {
    cudaEvent_t from, til;
    bool beside; /* other lanes */
};

/* Memory that a lane gave back. */
struct left {
    void **memory;
    size_t count;
};

struct uploads {
    cudaStream_t stream;
    char *memory;
    char *direct;          /* the same on the GPU, which files are read into; or NULL */
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t given_back;
    struct sent piece[PIECES];
    unsigned next;
    cudaEvent_t busy;  /* since when pieces have been on their way in the stream, */
    struct sent *last; /* til this one came; or NULL: none are */
    double upload;     /* seconds before that */
    /* Of the thread of operations alone: */
    cudaEvent_t arrived;
    struct stall *stall;
    size_t stalls, stalls_used;
    double wait; /* seconds */
    struct left left[1 + DEVICE_STREAMS];
};

/* Seconds between two events that have happened. */
static double seconds(cudaEvent_t from, cudaEvent_t til)
{
    float milliseconds;
    gpu_check(cudaEventElapsedTime(&milliseconds, from, til), "event");
    return (double)milliseconds / 1000;
}

/* ---- pieces ---- */

/* The piece that was sent longest ago. */
static struct sent *piece_take(struct uploads *a)
{
    pthread_mutex_lock(&a->mutex);
    while (a->piece[a->next].staging)
        pthread_cond_wait(&a->given_back, &a->mutex);
    struct sent *piece = &a->piece[a->next];
    a->next = (a->next + 1) % PIECES;
    piece->staging = true;
    pthread_mutex_unlock(&a->mutex);
    if (piece->used)
        gpu_check(cudaEventSynchronize(piece->til), "upload");
    piece->used = true;
    return piece;
}

/* With the mutex held: wait for what has been sent, and count its time. */
static void busy_end(struct uploads *a)
{
    if (!a->last)
        return;
    gpu_check(cudaEventSynchronize(a->last->til), "upload");
    a->upload += seconds(a->busy, a->last->til);
    a->last = NULL;
}

/* With the mutex held: a piece is going to be sent in the stream, or in another one. While others
 * are on their way there is no event before it, since each event delays what is behind it. */
static void busy_begin(struct uploads *a, struct sent *piece, bool here)
{
    cudaError_t status = a->last ? cudaEventQuery(a->last->til) : cudaSuccess;
    if (status == cudaErrorNotReady)
        (void)cudaGetLastError(); /* it is none */
    else
        gpu_check(status, "upload");
    if (status == cudaSuccess || piece == a->last)
        busy_end(a);
    if (here && !a->last)
        gpu_check(cudaEventRecord(a->busy, a->stream), "upload");
    if (here)
        a->last = piece;
}

static void piece_send(struct uploads *a, struct sent *piece, cudaStream_t stream, void *to,
                       const void *from, size_t size)
{
    /* The copy and the event behind it, as one. */
    pthread_mutex_lock(&a->mutex);
    busy_begin(a, piece, stream == a->stream);
    gpu_check(cudaMemcpyAsync(to, from, size, cudaMemcpyDefault, stream), "upload");
    gpu_check(cudaEventRecord(piece->til, stream), "upload");
    piece->staging = false;
    pthread_cond_broadcast(&a->given_back);
    pthread_mutex_unlock(&a->mutex);
}

static void *acquire_staging(struct device *d, struct mat m, uint64_t at, size_t size, size_t phase)
{
    struct gpu *gpu = gpu_of(d);
    (void)m;
    (void)at;
    if (size > DEVICE_PIECE || phase >= PAGE)
        die("internal: a piece of %zu bytes", size);
    gpu_check(cudaSetDevice(gpu->number), "device"); /* maybe this thread's first call */
    return piece_take(gpu->uploads)->memory + phase;
}

static void submit_staging(struct device *d, struct mat m, uint64_t at, size_t size, void *staging)
{
    struct uploads *a = gpu_of(d)->uploads;
    struct sent *piece = &a->piece[((char *)staging - a->memory) / PIECE_ROOM];
    piece_send(a, piece, a->stream, (char *)m.at + at, staging, size);
}

static void *open_file(struct device *d, int fd)
{
    gpu_check(cudaSetDevice(gpu_of(d)->number), "device");
    return cufile_file(fd);
}

static void close_file(struct device *d, void *file)
{
    (void)d;
    cufile_file_end(file);
}

/* Whole pages into a piece on the GPU, and from there to where operations before are done with. A
 * piece that failed has been sent all the same, with nothing in it. */
static bool read_file(struct device *d, struct mat m, uint64_t at, size_t size, void *file,
                      uint64_t offset)
{
    struct gpu *gpu = gpu_of(d);
    struct uploads *a = gpu->uploads;
    size_t phase = (size_t)(offset % PAGE), pages = (phase + size + PAGE - 1) / PAGE * PAGE;
    gpu_check(cudaSetDevice(gpu->number), "device");
    struct sent *piece = piece_take(a);
    uint64_t own = (uint64_t)(piece - a->piece) * PIECE_ROOM;
    int64_t came = cufile_read(file, offset - phase, pages, a->direct, own);
    bool all = came >= (int64_t)(phase + size);
    piece_send(a, piece, a->stream, (char *)m.at + at, a->direct + own + phase, all ? size : 0);
    return all;
}

static void write_pieces(struct gpu *gpu, cudaStream_t stream, void *to, const void *data,
                         uint64_t bytes)
{
    struct uploads *a = gpu->uploads;
    if (bytes <= SMALL) {
        gpu_check(cudaMemcpyAsync(to, data, bytes, cudaMemcpyHostToDevice, stream), "write");
        return;
    }
    for (uint64_t at = 0; at < bytes; at += DEVICE_PIECE) {
        size_t size = bytes - at < DEVICE_PIECE ? (size_t)(bytes - at) : (size_t)DEVICE_PIECE;
        struct sent *piece = piece_take(a);
        memcpy(piece->memory, (const char *)data + at, size);
        piece_send(a, piece, stream, (char *)to + at, piece->memory, size);
    }
}

void gpu_write(struct gpu *gpu, void *to, const void *data, uint64_t bytes)
{
    write_pieces(gpu, gpu->stream, to, data, bytes);
}

/* ---- the stream ---- */

void *gpu_alloc_arriving(struct gpu *gpu, uint64_t bytes)
{
    void *memory = NULL;
    gpu_check(cudaSetDevice(gpu->number), "device");
    gpu_check(cudaMallocAsync(&memory, bytes ? bytes : 1, gpu->uploads->stream),
              "memory for weights");
    return memory;
}

void gpu_send(struct gpu *gpu, void *to, const void *data, uint64_t bytes)
{
    write_pieces(gpu, gpu->uploads->stream, to, data, bytes);
}

void gpu_free_arriving(struct gpu *gpu, void *memory)
{
    struct left *left = &gpu->uploads->left[gpu->stream_number];
    if (!memory)
        return;
    left->memory = (void **)xgrow(left->memory, left->count + 1, sizeof *left->memory);
    left->memory[left->count++] = memory;
}

static void free_left(struct gpu *gpu, struct left *left)
{
    while (left->count)
        gpu_free(gpu, left->memory[--left->count]);
}

void gpu_wait(struct gpu *gpu, cudaEvent_t event)
{
    struct uploads *a = gpu->uploads;
    if (a->stalls_used == a->stalls) {
        a->stall = (struct stall *)xgrow(a->stall, ++a->stalls, sizeof *a->stall);
        gpu_event(&a->stall[a->stalls_used].from, cudaEventDefault);
        gpu_event(&a->stall[a->stalls_used].til, cudaEventDefault);
    }
    struct stall *stall = &a->stall[a->stalls_used++];
    stall->beside = gpu->stream_number != 0;
    gpu_check(cudaEventRecord(stall->from, gpu->stream), "wait");
    gpu_check(cudaStreamWaitEvent(gpu->stream, event, 0), "wait");
    gpu_check(cudaEventRecord(stall->til, gpu->stream), "wait");
}

void gpu_arrive(struct gpu *gpu)
{
    struct uploads *a = gpu->uploads;
    gpu_check(cudaEventRecord(a->arrived, a->stream), "upload");
    gpu_wait(gpu, a->arrived);
    free_left(gpu, &a->left[gpu->stream_number]);
}

/* What waits beside other lanes is a lane's share of the time. */
static void spent(struct device *d, double *upload, double *wait)
{
    struct gpu *gpu = gpu_of(d);
    struct uploads *a = gpu->uploads;
    gpu_check(cudaStreamSynchronize(gpu->stream), "wait");
    for (size_t i = 0; i < a->stalls_used; i++)
        a->wait +=
            seconds(a->stall[i].from, a->stall[i].til) / (a->stall[i].beside ? DEVICE_STREAMS : 1);
    a->stalls_used = 0;
    pthread_mutex_lock(&a->mutex);
    busy_end(a);
    *upload = a->upload;
    pthread_mutex_unlock(&a->mutex);
    *wait = a->wait;
}

cudaStream_t gpu_arriving(struct device *device)
{
    return gpu_of(device)->uploads->stream;
}

/* Read files through cuFile, if that is to be used. */
static void use_cufile(struct device *d, struct uploads *a)
{
    const size_t size = (size_t)PIECES * PIECE_ROOM;
    if (!cufile_open())
        return;
    gpu_check(cudaMalloc((void **)&a->direct, size), "memory for cuFile");
    if (!cufile_memory(a->direct, size)) {
        gpu_check(cudaFree(a->direct), "memory for cuFile");
        a->direct = NULL;
        return;
    }
    d->open_file = open_file;
    d->close_file = close_file;
    d->read_file = read_file;
}

void gpu_arrivals(struct device *d)
{
    int least, most;
    struct uploads *a = (struct uploads *)xalloc(1, sizeof *a);
    pthread_mutex_init(&a->mutex, NULL);
    pthread_cond_init(&a->given_back, NULL);
    /* Before other streams: what ranks send each other takes some of the GPU, too. */
    gpu_check(cudaDeviceGetStreamPriorityRange(&least, &most), "stream");
    gpu_check(cudaStreamCreateWithPriority(&a->stream, cudaStreamNonBlocking, most), "stream");
    gpu_check(cudaHostAlloc((void **)&a->memory, (size_t)PIECES * PIECE_ROOM, cudaHostAllocDefault),
              "page-locked memory");
    gpu_event(&a->arrived, cudaEventDisableTiming);
    for (unsigned i = 0; i < PIECES; i++) {
        a->piece[i].memory = a->memory + (size_t)i * PIECE_ROOM;
        gpu_event(&a->piece[i].til, cudaEventDefault);
    }
    gpu_event(&a->busy, cudaEventDefault);
    gpu_of(d)->uploads = a;
    use_cufile(d, a);
    d->stages_pages = true;
    d->acquire_staging = acquire_staging;
    d->submit_staging = submit_staging;
    d->spent = spent;
}

void gpu_arrivals_end(struct gpu *gpu)
{
    struct uploads *a = gpu->uploads;
    gpu_check(cudaStreamSynchronize(a->stream), "end");
    for (unsigned i = 0; i <= DEVICE_STREAMS; i++) {
        free_left(gpu, &a->left[i]);
        free(a->left[i].memory);
    }
    for (unsigned i = 0; i < PIECES; i++)
        gpu_check(cudaEventDestroy(a->piece[i].til), "end");
    gpu_check(cudaEventDestroy(a->busy), "end");
    for (size_t i = 0; i < a->stalls; i++) {
        gpu_check(cudaEventDestroy(a->stall[i].from), "end");
        gpu_check(cudaEventDestroy(a->stall[i].til), "end");
    }
    gpu_check(cudaEventDestroy(a->arrived), "end");
    gpu_check(cudaFreeHost(a->memory), "end");
    if (a->direct) {
        cufile_memory_end(a->direct);
        gpu_check(cudaFree(a->direct), "end");
    }
    gpu_check(cudaStreamDestroy(a->stream), "end");
    pthread_mutex_destroy(&a->mutex);
    pthread_cond_destroy(&a->given_back);
    free(a->stall);
    free(a);
}
