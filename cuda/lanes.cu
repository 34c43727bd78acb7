/* The GPU as a device: lanes, a stream each. */
#include "gpu.cuh"

#include <stdlib.h>

struct lane {
    cudaStream_t stream;
    cudaEvent_t reached; /* what other lanes wait for: recorded anew each time */
    bool used;           /* since lane 0; not for lane 0 */
};

struct lanes {
    struct lane lane[1 + DEVICE_LANES];
    cudaEvent_t turn;
};

static void wait_for(struct lane *lane, struct lane *other)
{
    gpu_check(cudaEventRecord(other->reached, other->stream), "lane");
    gpu_check(cudaStreamWaitEvent(lane->stream, other->reached, 0), "lane");
}

/* What comes in lane 0 now waits for all others. */
static void join(struct lanes *lanes)
{
    for (unsigned i = 1; i <= DEVICE_LANES; i++) {
        struct lane *lane = &lanes->lane[i];
        if (lane->used)
            wait_for(&lanes->lane[0], lane);
        lane->used = false;
    }
}

static void lane(struct device *d, unsigned number)
{
    struct gpu *gpu = gpu_of(d);
    if (number > DEVICE_LANES)
        die("internal: lane %u", number);
    struct lane *next = &gpu->lanes->lane[number];
    if (!number)
        join(gpu->lanes);
    else if (!next->used)
        wait_for(next, &gpu->lanes->lane[0]);
    next->used = number != 0;
    gpu->lane = number;
    gpu->stream = next->stream;
}

void gpu_turn_begin(struct gpu *gpu)
{
    gpu_check(cudaStreamWaitEvent(gpu->stream, gpu->lanes->turn, 0), "lane");
}

void gpu_turn_end(struct gpu *gpu)
{
    gpu_check(cudaEventRecord(gpu->lanes->turn, gpu->stream), "lane");
}

void gpu_lanes(struct device *d)
{
    struct gpu *gpu = gpu_of(d);
    struct lanes *lanes = (struct lanes *)xalloc(1, sizeof *lanes);
    for (unsigned i = 0; i <= DEVICE_LANES; i++) {
        gpu_check(cudaStreamCreateWithFlags(&lanes->lane[i].stream, cudaStreamNonBlocking), "lane");
        gpu_event(&lanes->lane[i].reached, cudaEventDisableTiming);
    }
    gpu_event(&lanes->turn, cudaEventDisableTiming);
    gpu->lanes = lanes;
    gpu->stream = lanes->lane[0].stream;
    d->lane = lane;
}

void gpu_lanes_end(struct gpu *gpu)
{
    struct lanes *lanes = gpu->lanes;
    for (unsigned i = 0; i <= DEVICE_LANES; i++) {
        gpu_check(cudaStreamDestroy(lanes->lane[i].stream), "end");
        gpu_check(cudaEventDestroy(lanes->lane[i].reached), "end");
    }
    gpu_check(cudaEventDestroy(lanes->turn), "end");
    free(lanes);
}
