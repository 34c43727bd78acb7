/* The GPU as a device: lanes, a stream each. */
#include "gpu.cuh"

#include <stdlib.h>

struct lane {
    cudaStream_t stream;
    cudaEvent_t reached; /* what other lanes wait for: recorded anew each time */
    bool used;           /* since lane 0 */
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

static void lane(struct device *d, unsigned number)
{
    struct gpu *gpu = gpu_of(d);
    struct lane *main = gpu->lanes->lane, *next = &main[number];
    if (number > DEVICE_LANES)
        die("internal: lane %u", number);
    if (number && !next->used)
        wait_for(next, main);
    for (unsigned i = 1; !number && i <= DEVICE_LANES; i++) {
        if (main[i].used)
            wait_for(main, &main[i]);
        main[i].used = false;
    }
    next->used = true;
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

static void event_new(cudaEvent_t *event)
{
    gpu_check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "lane");
}

void gpu_lanes(struct device *d)
{
    struct gpu *gpu = gpu_of(d);
    struct lanes *lanes = (struct lanes *)xalloc(1, sizeof *lanes);
    for (unsigned i = 0; i <= DEVICE_LANES; i++) {
        gpu_check(cudaStreamCreateWithFlags(&lanes->lane[i].stream, cudaStreamNonBlocking), "lane");
        event_new(&lanes->lane[i].reached);
    }
    event_new(&lanes->turn);
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
