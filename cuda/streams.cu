/* The GPU as a device: its streams. */
#include "gpu.cuh"

#include <stdlib.h>

struct stream_state {
    cudaStream_t stream;
    cudaEvent_t reached; /* recorded each time another stream waits for this one */
    bool used;           /* since stream 0 was last selected; not for stream 0 */
};

struct streams {
    struct stream_state state[1 + DEVICE_STREAMS];
    cudaEvent_t order;
};

static void wait_for(struct stream_state *state, struct stream_state *other)
{
    gpu_check(cudaEventRecord(other->reached, other->stream), "stream");
    gpu_check(cudaStreamWaitEvent(state->stream, other->reached, 0), "stream");
}

/* Stream 0 waits for all others. */
static void join(struct streams *streams)
{
    for (unsigned i = 1; i <= DEVICE_STREAMS; i++) {
        struct stream_state *state = &streams->state[i];
        if (state->used)
            wait_for(&streams->state[0], state);
        state->used = false;
    }
}

static void stream(struct device *d, unsigned number)
{
    struct gpu *gpu = gpu_of(d);
    if (number > DEVICE_STREAMS)
        die("internal: stream %u", number);
    struct stream_state *next = &gpu->streams->state[number];
    if (!number)
        join(gpu->streams);
    else if (!next->used)
        wait_for(next, &gpu->streams->state[0]);
    next->used = number != 0;
    gpu->stream_number = number;
    gpu->stream = next->stream;
}

void gpu_ordered_begin(struct gpu *gpu)
{
    gpu_check(cudaStreamWaitEvent(gpu->stream, gpu->streams->order, 0), "stream");
}

void gpu_ordered_end(struct gpu *gpu)
{
    gpu_check(cudaEventRecord(gpu->streams->order, gpu->stream), "stream");
}

void gpu_streams(struct device *d)
{
    struct gpu *gpu = gpu_of(d);
    struct streams *streams = (struct streams *)xalloc(1, sizeof *streams);
    for (unsigned i = 0; i <= DEVICE_STREAMS; i++) {
        gpu_check(cudaStreamCreateWithFlags(&streams->state[i].stream, cudaStreamNonBlocking),
                  "stream");
        gpu_event(&streams->state[i].reached, cudaEventDisableTiming);
    }
    gpu_event(&streams->order, cudaEventDisableTiming);
    gpu->streams = streams;
    gpu->stream = streams->state[0].stream;
    d->stream = stream;
}

void gpu_streams_end(struct gpu *gpu)
{
    struct streams *streams = gpu->streams;
    for (unsigned i = 0; i <= DEVICE_STREAMS; i++) {
        gpu_check(cudaStreamDestroy(streams->state[i].stream), "end");
        gpu_check(cudaEventDestroy(streams->state[i].reached), "end");
    }
    gpu_check(cudaEventDestroy(streams->order), "end");
    free(streams);
}
