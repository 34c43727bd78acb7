/* gpu-profile: which kernels a program's time on a GPU goes to. A library that CUDA loads into any
 * program, built and used by `gpu-bench profile`:
 *
 *   cc -shared -fPIC -I$CUDA/include -o gpu-profile.so gpu-profile.c -L$CUDA/lib64 -lcupti
 *   CUDA_INJECTION64_PATH=$PWD/gpu-profile.so GPU_PROFILE=FILE amax-calib --device cuda ...
 *
 * FILE gets a line for each kernel when the program ends: milliseconds, starts, name, separated by
 * tabs; and lines "all", the sum, and "busy", the time in which at least one kernel ran. Kernels of
 * several streams run at the same time, so that their sum may be more than that. Copies between
 * host and GPU are left out. Source: CUPTI's documentation, activity API. */
#include <cupti.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER = 8 << 20, ALIGNMENT = 8, NAMES = 4096, NAME = 200 };

struct kernel {
    char name[NAME];
    uint64_t starts, nanoseconds;
};

struct span {
    uint64_t start, end;
};

/* CUPTI's callbacks have no argument for it. */
static struct {
    pthread_mutex_t lock;
    struct kernel kernel[NAMES];
    size_t kernels;
    struct span *span;
    size_t spans, room;
} profile = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void fail(const char *problem)
{
    fprintf(stderr, "gpu-profile: %s\n", problem);
    exit(1);
}

static struct kernel *kernel_of(const char *name)
{
    size_t i = 0;
    while (i < profile.kernels && strncmp(profile.kernel[i].name, name, NAME - 1) != 0)
        i++;
    if (i == NAMES)
        fail("the program has more kernels than there is room for");
    if (i == profile.kernels) {
        snprintf(profile.kernel[i].name, NAME, "%s", name);
        profile.kernels++;
    }
    return &profile.kernel[i];
}

static void count(const CUpti_ActivityKernel9 *record)
{
    struct kernel *kernel = kernel_of(record->name);
    kernel->starts++;
    kernel->nanoseconds += record->end - record->start;
    if (profile.spans == profile.room) {
        profile.room = profile.room ? 2 * profile.room : 1 << 16;
        profile.span = realloc(profile.span, profile.room * sizeof *profile.span);
        if (!profile.span)
            fail("out of memory");
    }
    profile.span[profile.spans++] = (struct span){record->start, record->end};
}

static void CUPTIAPI give_buffer(uint8_t **buffer, size_t *size, size_t *most)
{
    *buffer = aligned_alloc(ALIGNMENT, BUFFER);
    *size = *buffer ? BUFFER : 0;
    *most = 0;
}

static void CUPTIAPI take_buffer(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size,
                                 size_t valid)
{
    CUpti_Activity *record = NULL;
    (void)context, (void)stream, (void)size;
    pthread_mutex_lock(&profile.lock);
    while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS)
        if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL)
            count((const CUpti_ActivityKernel9 *)record);
    pthread_mutex_unlock(&profile.lock);
    free(buffer);
}

static int by_time(const void *a, const void *b)
{
    const struct kernel *x = a, *y = b;
    return (x->nanoseconds < y->nanoseconds) - (x->nanoseconds > y->nanoseconds);
}

static int by_start(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

/* The nanoseconds that the spans cover together. */
static uint64_t busy(void)
{
    uint64_t sum = 0, until = 0;
    qsort(profile.span, profile.spans, sizeof *profile.span, by_start);
    for (size_t i = 0; i < profile.spans; i++) {
        uint64_t start = profile.span[i].start > until ? profile.span[i].start : until;
        if (profile.span[i].end > start) {
            sum += profile.span[i].end - start;
            until = profile.span[i].end;
        }
    }
    return sum;
}

static void report(void)
{
    const char *path = getenv("GPU_PROFILE");
    cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
    FILE *out = path ? fopen(path, "w") : stderr;
    if (!out)
        fail("the file in $GPU_PROFILE cannot be written");
    uint64_t all = 0;
    qsort(profile.kernel, profile.kernels, sizeof *profile.kernel, by_time);
    for (size_t i = 0; i < profile.kernels; i++) {
        const struct kernel *kernel = &profile.kernel[i];
        fprintf(out, "%.3f\t%llu\t%s\n", (double)kernel->nanoseconds / 1e6,
                (unsigned long long)kernel->starts, kernel->name);
        all += kernel->nanoseconds;
    }
    fprintf(out, "%.3f\t%zu\tall\n%.3f\t%zu\tbusy\n", (double)all / 1e6, profile.spans,
            (double)busy() / 1e6, profile.spans);
    fflush(out);
}

int InitializeInjection(void)
{
    if (cuptiActivityRegisterCallbacks(give_buffer, take_buffer) != CUPTI_SUCCESS ||
        cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) != CUPTI_SUCCESS)
        fail("CUPTI does not start");
    atexit(report);
    return 1;
}
