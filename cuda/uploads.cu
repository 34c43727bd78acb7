/* The GPU as a device: uploads of weights. Readers fill pieces of a page-locked ring buffer; each
 * is copied to the GPU in the upload stream, concurrently with operations. */
#include "gpu.cuh"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cufile.h"

/* A piece has a spare page at both ends. The driver buffers copies of up to SMALL bytes itself;
 * they need no piece. What operations write is copied so up to SMALL_MOST: a piece would wait for
 * the GPU's one copy engine, which may be bringing offloaded rows, some 8 ms for a batch. */
enum {
    PIECES = 32,
    PAGE = 4096,
    PIECE_ROOM = DEVICE_PIECE + 2 * PAGE,
    SMALL = 32 << 10,
    SMALL_MOST = 1 << 20
};

struct piece {
    char *memory;
    bool staging, used; /* acquired by a reader now; ever */
    bool counted;       /* last copied in the upload stream */
    cudaEvent_t uploaded;
};

/* The time that a stream's operations wait. */
struct timed_wait {
    cudaEvent_t begin, end;
    bool concurrent; /* with other streams */
};

/* When a matrix has its bytes, whether they were submitted or come from other GPUs; found by its
 * address. */
struct arrival {
    struct arrival *next;
    const void *at;
    cudaEvent_t event;
};
enum { ARRIVAL_LISTS = 4096, ALLOCATED_STEP = 512 }; /* bytes between addresses of two matrices */

/* Memory that a stream's next wait for all uploads frees. */
struct deferred {
    void **memory;
    size_t count;
};

struct uploads {
    cudaStream_t stream;
    char *memory;
    char *direct;          /* as many bytes on the GPU, for cuFile to read into; or NULL */
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t submitted;
    struct piece piece[PIECES];
    unsigned next;
    cudaEvent_t busy;   /* start of the current run of uploads, */
    struct piece *last; /* and its last piece; NULL: none in flight */
    double upload;      /* seconds of earlier runs */
    struct arrival *arrival[ARRIVAL_LISTS];
    /* Used only by the thread that calls operations: */
    cudaEvent_t uploaded;
    struct timed_wait *timed;
    size_t timed_count, timed_used;
    double wait; /* seconds */
    struct deferred deferred[1 + DEVICE_STREAMS];
};

/* Seconds between two completed events. */
static double seconds(cudaEvent_t from, cudaEvent_t end)
{
    float milliseconds;
    gpu_check(cudaEventElapsedTime(&milliseconds, from, end), "event");
    return (double)milliseconds / 1000;
}

static bool complete(cudaEvent_t event)
{
    cudaError_t status = cudaEventQuery(event);
    if (status == cudaErrorNotReady) {
        (void)cudaGetLastError(); /* not an error */
        return false;
    }
    gpu_check(status, "upload");
    return true;
}

/* ---- pieces ---- */

/* The piece that was submitted longest ago. */
static struct piece *piece_acquire(struct uploads *a)
{
    pthread_mutex_lock(&a->mutex);
    while (a->piece[a->next].staging)
        pthread_cond_wait(&a->submitted, &a->mutex);
    struct piece *piece = &a->piece[a->next];
    a->next = (a->next + 1) % PIECES;
    piece->staging = true;
    pthread_mutex_unlock(&a->mutex);
    if (piece->used)
        gpu_check(cudaEventSynchronize(piece->uploaded), "upload");
    piece->used = true;
    return piece;
}

/* With the mutex held: wait for the current run of uploads, and add up its time. */
static void busy_end(struct uploads *a)
{
    if (!a->last)
        return;
    gpu_check(cudaEventSynchronize(a->last->uploaded), "upload");
    a->upload += seconds(a->busy, a->last->uploaded);
    a->last = NULL;
}

/* With the mutex held, before a piece is copied, in the upload stream (`here`) or another. A run of
 * uploads records one event at its start, since each event delays the copies after it. */
static void busy_begin(struct uploads *a, struct piece *piece, bool here)
{
    if (a->last && (complete(a->last->uploaded) || piece == a->last))
        busy_end(a);
    if (here && !a->last)
        gpu_check(cudaEventRecord(a->busy, a->stream), "upload");
    if (here)
        a->last = piece;
    piece->counted = here;
}

/* With the mutex held: seconds of the current run of uploads up to the last complete one. */
static double run_so_far(struct uploads *a)
{
    double most = 0;
    bool begun = a->last && complete(a->busy);
    for (const struct piece *p = a->piece; begun && p < a->piece + PIECES; p++)
        if (p->counted && complete(p->uploaded))
            most = fmax(most, seconds(a->busy, p->uploaded)); /* of earlier runs: negative */
    return most;
}

/* With the mutex held: the link to a matrix's arrival, which may be NULL. */
static struct arrival **arrival_of(struct uploads *a, const void *at)
{
    struct arrival **link = &a->arrival[(uintptr_t)at / ALLOCATED_STEP % ARRIVAL_LISTS];
    while (*link && (*link)->at != at)
        link = &(*link)->next;
    return link;
}

/* With the mutex held. */
static void set_arrival(struct uploads *a, const void *at, cudaEvent_t event)
{
    struct arrival **link = arrival_of(a, at);
    if (!*link) {
        *link = (struct arrival *)xalloc(1, sizeof **link);
        (*link)->at = at;
    }
    (*link)->event = event;
}

/* Copy a piece to `to`; it is of the matrix at `matrix`, or of none. Its event may be recorded
 * again before an operation waits for it, but only after this copy is complete. */
static void piece_submit(struct uploads *a, struct piece *piece, cudaStream_t stream,
                         const void *matrix, void *to, const void *from, size_t size)
{
    /* Copy and event must not be separated. */
    pthread_mutex_lock(&a->mutex);
    busy_begin(a, piece, stream == a->stream);
    gpu_check(cudaMemcpyAsync(to, from, size, cudaMemcpyDefault, stream), "upload");
    gpu_check(cudaEventRecord(piece->uploaded, stream), "upload");
    if (matrix)
        set_arrival(a, matrix, piece->uploaded);
    piece->staging = false;
    pthread_cond_broadcast(&a->submitted);
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
    return piece_acquire(gpu->uploads)->memory + phase;
}

static void submit_staging(struct device *d, struct mat m, uint64_t at, size_t size, void *staging)
{
    struct uploads *a = gpu_of(d)->uploads;
    struct piece *piece = &a->piece[((char *)staging - a->memory) / PIECE_ROOM];
    piece_submit(a, piece, a->stream, m.at, (char *)m.at + at, staging, size);
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

/* Read whole pages into a piece on the GPU, and copy them from there in the upload stream. A failed
 * read submits an empty piece. */
static bool read_file(struct device *d, struct mat m, uint64_t at, size_t size, void *file,
                      uint64_t offset)
{
    struct gpu *gpu = gpu_of(d);
    struct uploads *a = gpu->uploads;
    size_t phase = (size_t)(offset % PAGE), pages = (phase + size + PAGE - 1) / PAGE * PAGE;
    gpu_check(cudaSetDevice(gpu->number), "device");
    struct piece *piece = piece_acquire(a);
    uint64_t own = (uint64_t)(piece - a->piece) * PIECE_ROOM;
    int64_t got = cufile_read(file, offset - phase, pages, a->direct, own);
    bool all = got >= (int64_t)(phase + size);
    piece_submit(a, piece, a->stream, m.at, (char *)m.at + at, a->direct + own + phase,
                 all ? size : 0);
    return all;
}

static void write_small(cudaStream_t stream, void *to, const void *data, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += SMALL) {
        uint64_t size = min(bytes - at, (uint64_t)SMALL);
        gpu_check(cudaMemcpyAsync((char *)to + at, (const char *)data + at, size,
                                  cudaMemcpyHostToDevice, stream),
                  "write");
    }
}

static void upload_pieces(struct gpu *gpu, cudaStream_t stream, void *to, const void *data,
                          uint64_t bytes)
{
    struct uploads *a = gpu->uploads;
    for (uint64_t at = 0; at < bytes; at += DEVICE_PIECE) {
        size_t size = bytes - at < DEVICE_PIECE ? (size_t)(bytes - at) : (size_t)DEVICE_PIECE;
        struct piece *piece = piece_acquire(a);
        memcpy(piece->memory, (const char *)data + at, size);
        piece_submit(a, piece, stream, NULL, (char *)to + at, piece->memory, size);
    }
}

void gpu_write(struct gpu *gpu, void *to, const void *data, uint64_t bytes)
{
    if (bytes <= SMALL_MOST)
        write_small(gpu->stream, to, data, bytes);
    else
        upload_pieces(gpu, gpu->stream, to, data, bytes);
}

/* ---- the stream ---- */

void *gpu_alloc_upload(struct gpu *gpu, uint64_t bytes)
{
    void *memory = NULL;
    gpu_check(cudaSetDevice(gpu->number), "device");
    gpu_check(cudaMallocAsync(&memory, bytes ? bytes : 1, gpu->uploads->stream),
              "memory for weights");
    return memory;
}

void gpu_upload(struct gpu *gpu, void *to, const void *data, uint64_t bytes)
{
    if (bytes <= SMALL)
        write_small(gpu->uploads->stream, to, data, bytes);
    else
        upload_pieces(gpu, gpu->uploads->stream, to, data, bytes);
}

/* ---- waiting ---- */

void gpu_arrives(struct device *device, const void *at, cudaEvent_t event)
{
    struct uploads *a = gpu_of(device)->uploads;
    pthread_mutex_lock(&a->mutex);
    set_arrival(a, at, event);
    pthread_mutex_unlock(&a->mutex);
}

/* The current stream waits until a matrix has its bytes; with `last`, nothing else will. False if
 * that is not known of it alone. */
static bool wait_arrival(struct gpu *gpu, const void *at, bool last)
{
    struct uploads *a = gpu->uploads;
    pthread_mutex_lock(&a->mutex);
    struct arrival **link = arrival_of(a, at), *arrival = *link;
    if (arrival)
        gpu_check(cudaStreamWaitEvent(gpu->stream, arrival->event, 0), "wait");
    if (arrival && last) {
        *link = arrival->next;
        free(arrival);
    }
    pthread_mutex_unlock(&a->mutex);
    return arrival != NULL;
}

void gpu_free_upload(struct gpu *gpu, void *memory)
{
    struct deferred *deferred = &gpu->uploads->deferred[gpu->stream_number];
    if (!memory)
        return;
    if (wait_arrival(gpu, memory, true)) {
        gpu_free(gpu, memory);
        return;
    }
    deferred->memory =
        (void **)xgrow(deferred->memory, deferred->count + 1, sizeof *deferred->memory);
    deferred->memory[deferred->count++] = memory;
}

static void free_deferred(struct gpu *gpu, struct deferred *deferred)
{
    while (deferred->count)
        gpu_free(gpu, deferred->memory[--deferred->count]);
}

/* The current stream's waits between these are timed. */
static void timed_begin(struct gpu *gpu)
{
    struct uploads *a = gpu->uploads;
    if (a->timed_used == a->timed_count) {
        a->timed = (struct timed_wait *)xgrow(a->timed, ++a->timed_count, sizeof *a->timed);
        gpu_event(&a->timed[a->timed_used].begin, cudaEventDefault);
        gpu_event(&a->timed[a->timed_used].end, cudaEventDefault);
    }
    struct timed_wait *timed = &a->timed[a->timed_used];
    timed->concurrent = gpu->stream_number != 0;
    gpu_check(cudaEventRecord(timed->begin, gpu->stream), "wait");
}

static void timed_end(struct gpu *gpu)
{
    struct uploads *a = gpu->uploads;
    gpu_check(cudaEventRecord(a->timed[a->timed_used++].end, gpu->stream), "wait");
}

void gpu_wait(struct gpu *gpu, cudaEvent_t event)
{
    timed_begin(gpu);
    gpu_check(cudaStreamWaitEvent(gpu->stream, event, 0), "wait");
    timed_end(gpu);
}

/* All uploads so far, and what they may not overwrite. */
static void wait_all(struct gpu *gpu)
{
    struct uploads *a = gpu->uploads;
    gpu_check(cudaEventRecord(a->uploaded, a->stream), "upload");
    gpu_check(cudaStreamWaitEvent(gpu->stream, a->uploaded, 0), "wait");
    free_deferred(gpu, &a->deferred[gpu->stream_number]);
}

void gpu_wait_uploads(struct gpu *gpu, const void *at, const void *other)
{
    timed_begin(gpu);
    bool known = wait_arrival(gpu, at, false);
    if (other && !wait_arrival(gpu, other, false))
        known = false;
    if (!known)
        wait_all(gpu);
    timed_end(gpu);
}

/* A wait that is concurrent with other streams counts as one stream's share. */
static void spent(struct device *d, double *upload, double *wait)
{
    struct gpu *gpu = gpu_of(d);
    struct uploads *a = gpu->uploads;
    gpu_check(cudaStreamSynchronize(gpu->stream), "wait");
    for (size_t i = 0; i < a->timed_used; i++)
        a->wait += seconds(a->timed[i].begin, a->timed[i].end) /
                   (a->timed[i].concurrent ? DEVICE_STREAMS : 1);
    a->timed_used = 0;
    pthread_mutex_lock(&a->mutex);
    *upload = a->upload + run_so_far(a);
    pthread_mutex_unlock(&a->mutex);
    *wait = a->wait;
}

cudaStream_t gpu_upload_stream(struct device *device)
{
    return gpu_of(device)->uploads->stream;
}

/* Read files through cuFile if it is to be used. */
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

void gpu_uploads(struct device *d)
{
    struct uploads *a = (struct uploads *)xalloc(1, sizeof *a);
    pthread_mutex_init(&a->mutex, NULL);
    pthread_cond_init(&a->submitted, NULL);
    gpu_check(cudaStreamCreateWithFlags(&a->stream, cudaStreamNonBlocking), "stream");
    gpu_check(cudaHostAlloc((void **)&a->memory, (size_t)PIECES * PIECE_ROOM, cudaHostAllocDefault),
              "page-locked memory");
    gpu_event(&a->uploaded, cudaEventDisableTiming);
    for (unsigned i = 0; i < PIECES; i++) {
        a->piece[i].memory = a->memory + (size_t)i * PIECE_ROOM;
        gpu_event(&a->piece[i].uploaded, cudaEventDefault);
    }
    gpu_event(&a->busy, cudaEventDefault);
    gpu_of(d)->uploads = a;
    use_cufile(d, a);
    d->stages_pages = true;
    d->acquire_staging = acquire_staging;
    d->submit_staging = submit_staging;
    d->spent = spent;
}

void gpu_uploads_end(struct gpu *gpu)
{
    struct uploads *a = gpu->uploads;
    gpu_check(cudaStreamSynchronize(a->stream), "end");
    for (unsigned i = 0; i <= DEVICE_STREAMS; i++) {
        free_deferred(gpu, &a->deferred[i]);
        free(a->deferred[i].memory);
    }
    for (unsigned i = 0; i < PIECES; i++)
        gpu_check(cudaEventDestroy(a->piece[i].uploaded), "end");
    gpu_check(cudaEventDestroy(a->busy), "end");
    for (size_t i = 0; i < a->timed_count; i++) {
        gpu_check(cudaEventDestroy(a->timed[i].begin), "end");
        gpu_check(cudaEventDestroy(a->timed[i].end), "end");
    }
    gpu_check(cudaEventDestroy(a->uploaded), "end");
    gpu_check(cudaFreeHost(a->memory), "end");
    if (a->direct) {
        cufile_memory_end(a->direct);
        gpu_check(cudaFree(a->direct), "end");
    }
    gpu_check(cudaStreamDestroy(a->stream), "end");
    pthread_mutex_destroy(&a->mutex);
    pthread_cond_destroy(&a->submitted);
    free(a->timed);
    free(a);
}
