/* NCCL, loaded at run time (see library.h), gathers what the ranks have read. */
#include <cuda_runtime.h>
#include <stdlib.h>

#include "base/die.h"
#include "base/library.h"
#include "forward/gather.h"
#include "uploads.h"

/* The part of NCCL 2's nccl.h that is needed; CUDA's toolkit does not have that header. A result is
 * 0 or an error number; type 0 is bytes. */
struct group;
struct unique_id {
    char internal[128];
};
static struct {
    int (*all_gather)(const void *from, void *to, size_t count, int type, struct group *group,
                      cudaStream_t stream);
    int (*comm_destroy)(struct group *group);
    int (*comm_init_rank)(struct group **group, int ranks, struct unique_id id, int rank);
    const char *(*error_string)(int result);
    int (*unique_id)(struct unique_id *id);
} nccl;

static bool load(char **why)
{
    const struct library_function functions[] = {
        {"ncclAllGather", &nccl.all_gather},        {"ncclCommDestroy", &nccl.comm_destroy},
        {"ncclCommInitRank", &nccl.comm_init_rank}, {"ncclGetErrorString", &nccl.error_string},
        {"ncclGetUniqueId", &nccl.unique_id},       {NULL, NULL},
    };
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
    const struct ranks *ranks;
    struct group *group;
    int gpu;
    cudaStream_t stream; /* the device's */
};

/* In place, ordered after the uploads of this rank's bytes. */
static void all(struct gather *gather, struct mat bytes, uint64_t piece)
{
    struct nccl_gather *g = (struct nccl_gather *)gather;
    const char *own = (char *)bytes.at + ranks_rank(g->ranks) * piece;
    check_cuda(cudaSetDevice(g->gpu), "device"); /* this thread may not have set one */
    check(nccl.all_gather(own, bytes.at, piece, 0, g->group, g->stream), "gather");
}

static void close_gather(struct gather *gather)
{
    struct nccl_gather *g = (struct nccl_gather *)gather;
    check_cuda(cudaStreamSynchronize(g->stream), "gather");
    check(nccl.comm_destroy(g->group), "end");
    free(g);
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
    struct nccl_gather *g = xalloc(1, sizeof *g);
    g->gather = (struct gather){all, close_gather};
    g->ranks = ranks;
    g->stream = gpu_upload_stream(device);
    struct unique_id id = {0};
    if (!ranks_rank(ranks))
        check(nccl.unique_id(&id), "start");
    ranks_broadcast(ranks, &id, sizeof id);
    check_cuda(cudaGetDevice(&g->gpu), "device");
    check(nccl.comm_init_rank(&g->group, (int)ranks_count(ranks), id, (int)ranks_rank(ranks)),
          "connecting GPUs");
    return &g->gather;
}
