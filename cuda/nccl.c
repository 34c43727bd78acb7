/* NCCL, loaded at run time (see library.h), gathers what the ranks have read.
 *
 * Exchanges run in a stream of their own, each ordered after the uploads submitted before it. So
 * this rank's next pieces are read and uploaded while it waits for slower ranks, and operations
 * wait for no exchange but that of the matrices they use. The stream has the highest priority: the
 * sooner an exchange's few thread blocks start, the shorter the other ranks' blocks spin. */
#include <cuda_runtime.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/die.h"
#include "base/library.h"
#include "forward/gather.h"
#include "uploads.h"

/* The part of NCCL 2's nccl.h that is needed; CUDA's toolkit does not have that header. A result is
 * 0 or an error number; type 0 is bytes. The config is as of version 2.17; later members get their
 * defaults, as those here that are INT_MIN or NULL do. */
struct group;
struct unique_id {
    char internal[128];
};
struct config {
    size_t size;
    unsigned magic, version;
    int blocking, cga_cluster_size, min_ctas, max_ctas;
    const char *net_name;
};
static struct {
    int (*broadcast)(const void *from, void *to, size_t count, int type, int root,
                     struct group *group, cudaStream_t stream);
    int (*comm_destroy)(struct group *group);
    int (*comm_init_rank)(struct group **group, int ranks, struct unique_id id, int rank,
                          struct config *config);
    const char *(*error_string)(int result);
    int (*group_end)(void);
    int (*group_start)(void);
    int (*unique_id)(struct unique_id *id);
} nccl;

/* An exchange's kernel keeps as many multiprocessors from computing as it has thread blocks (CTAs),
 * each of which moves some 20 GB/s over NVLink in one direction at a time. More of them keep more
 * for a shorter time, until ranks wait for each other, when fewer are better. Sixteen exchange a
 * layer in less than half of the time that its uploads take, which are what limits it. Blocks are
 * not tied to clusters, which would have to wait until enough neighbouring multiprocessors are
 * free. NCCL_MAX_CTAS and NCCL_CGA_CLUSTER_SIZE overrule both. */
enum { CTAS = 16, NO_CLUSTERS = 0, MAGIC = (int)0xcafebeef, VERSION = 21700 };

/* The bytes of one exchange: large enough that starting it costs little in comparison, and small
 * enough that the next ones are read and uploaded meanwhile. */
enum { BATCH = 128 << 20 };

/* Exchanges whose times are not read yet; the oldest one is complete long before the next uses its
 * place. */
enum { EXCHANGES = 1024 };

static bool load(char **why)
{
    const struct library_function functions[] = {
        {"ncclBroadcast", &nccl.broadcast},
        {"ncclCommDestroy", &nccl.comm_destroy},
        {"ncclCommInitRankConfig", &nccl.comm_init_rank},
        {"ncclGetErrorString", &nccl.error_string},
        {"ncclGroupEnd", &nccl.group_end},
        {"ncclGroupStart", &nccl.group_start},
        {"ncclGetUniqueId", &nccl.unique_id},
        {NULL, NULL},
    };
    /* Multicast over NVLink reduces; to gather bytes it brings nothing, and it takes more of the
     * switches than plain copies do. Before any call, since NCCL reads its environment once. */
    setenv("NCCL_NVLS_ENABLE", "0", false);
    return library_load("libnccl.so.2", functions, why);
}

static void check(int result, const char *what)
{
    if (result)
        die("NCCL: %s: %s; set NCCL_DEBUG=INFO for details", what, nccl.error_string(result));
}

static void check_cuda(cudaError_t status, const char *what)
{
    if (status != cudaSuccess)
        die("CUDA: %s: %s", what, cudaGetErrorString(status));
}

struct nccl_gather {
    struct gather gather; /* first: a struct gather * is a struct nccl_gather *, too */
    struct device *device;
    struct group *group;
    int gpu;
    cudaStream_t stream;
    cudaEvent_t uploaded;
    pthread_mutex_t mutex; /* guards what follows */
    struct exchange {
        cudaEvent_t begin, end;
    } exchange[EXCHANGES];
    uint64_t begun, counted; /* so far; of those, how many have their times in `seconds` */
    double seconds;
};

/* With the mutex held: add up the times of exchanges that are complete; wait for those before
 * `needed`. */
static void count_exchanges(struct nccl_gather *g, uint64_t needed)
{
    for (; g->counted < g->begun; g->counted++) {
        const struct exchange *e = &g->exchange[g->counted % EXCHANGES];
        float milliseconds;
        cudaError_t status =
            g->counted < needed ? cudaEventSynchronize(e->end) : cudaEventQuery(e->end);
        if (status == cudaErrorNotReady) {
            (void)cudaGetLastError(); /* not an error */
            return;
        }
        check_cuda(status, "exchange");
        check_cuda(cudaEventElapsedTime(&milliseconds, e->begin, e->end), "exchange");
        g->seconds += (double)milliseconds / 1000;
    }
}

/* In place. A rank sends the pieces that it has read whole: half as many uploads of twice the size,
 * compared with a share of each piece, and uploads are what takes longest. */
static void broadcast(struct nccl_gather *g, const struct gathered *part, size_t count)
{
    check(nccl.group_start(), "exchange");
    for (size_t i = 0; i < count; i++) {
        char *at = (char *)part[i].bytes.at + part[i].at;
        check(nccl.broadcast(at, at, part[i].size, 0, (int)part[i].owner, g->group, g->stream),
              "exchange");
    }
    check(nccl.group_end(), "exchange");
}

static void all(struct gather *gather, const struct gathered *part, size_t count)
{
    struct nccl_gather *g = (struct nccl_gather *)gather;
    check_cuda(cudaSetDevice(g->gpu), "device"); /* this thread may not have set one */
    pthread_mutex_lock(&g->mutex);
    count_exchanges(g, g->begun < EXCHANGES ? 0 : g->begun - EXCHANGES + 1);
    const struct exchange *e = &g->exchange[g->begun % EXCHANGES];
    check_cuda(cudaEventRecord(g->uploaded, gpu_upload_stream(g->device)), "exchange");
    check_cuda(cudaStreamWaitEvent(g->stream, g->uploaded, 0), "exchange");
    check_cuda(cudaEventRecord(e->begin, g->stream), "exchange");
    broadcast(g, part, count);
    check_cuda(cudaEventRecord(e->end, g->stream), "exchange");
    for (size_t i = 0; i < count; i++)
        if (!part[i].at)
            gpu_arrives(g->device, part[i].bytes.at, e->end);
    g->begun++;
    pthread_mutex_unlock(&g->mutex);
}

static double spent(struct gather *gather)
{
    struct nccl_gather *g = (struct nccl_gather *)gather;
    pthread_mutex_lock(&g->mutex);
    count_exchanges(g, 0);
    double seconds = g->seconds;
    pthread_mutex_unlock(&g->mutex);
    return seconds;
}

static void close_gather(struct gather *gather)
{
    struct nccl_gather *g = (struct nccl_gather *)gather;
    check_cuda(cudaStreamSynchronize(g->stream), "end");
    check(nccl.comm_destroy(g->group), "end");
    for (unsigned i = 0; i < EXCHANGES; i++) {
        check_cuda(cudaEventDestroy(g->exchange[i].begin), "end");
        check_cuda(cudaEventDestroy(g->exchange[i].end), "end");
    }
    check_cuda(cudaEventDestroy(g->uploaded), "end");
    check_cuda(cudaStreamDestroy(g->stream), "end");
    pthread_mutex_destroy(&g->mutex);
    free(g);
}

static struct nccl_gather *new_gather(struct device *device)
{
    int least, most;
    struct nccl_gather *g = xalloc(1, sizeof *g);
    g->gather = (struct gather){BATCH, all, spent, close_gather};
    g->device = device;
    pthread_mutex_init(&g->mutex, NULL);
    check_cuda(cudaGetDevice(&g->gpu), "device");
    check_cuda(cudaDeviceGetStreamPriorityRange(&least, &most), "stream");
    check_cuda(cudaStreamCreateWithPriority(&g->stream, cudaStreamNonBlocking, most), "stream");
    check_cuda(cudaEventCreateWithFlags(&g->uploaded, cudaEventDisableTiming), "event");
    for (unsigned i = 0; i < EXCHANGES; i++) {
        check_cuda(cudaEventCreate(&g->exchange[i].begin), "event");
        check_cuda(cudaEventCreate(&g->exchange[i].end), "event");
    }
    return g;
}

struct gather *gather_nccl(struct ranks *ranks, struct device *device, char **why)
{
    *why = NULL;
    uint64_t missing = !load(why);
    ranks_sum(ranks, &missing, 1);
    if (missing) {
        if (!*why)
            *why = xstrdup("another rank has no NCCL");
        return NULL;
    }
    struct nccl_gather *g = new_gather(device);
    struct config config = {
        sizeof config, MAGIC, VERSION, INT_MIN, NO_CLUSTERS, INT_MIN, CTAS, NULL,
    };
    struct unique_id id = {0};
    if (!ranks_rank(ranks))
        check(nccl.unique_id(&id), "start");
    ranks_broadcast(ranks, &id, sizeof id);
    check(nccl.comm_init_rank(&g->group, (int)ranks_count(ranks), id, (int)ranks_rank(ranks),
                              &config),
          "connecting GPUs");
    return &g->gather;
}
