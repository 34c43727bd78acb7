#include "forward/forward_options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/die.h"
#include "base/json.h"
#include "base/library.h"
#include "forward/needed.h"
#include "forward/states.h"

enum { THREADS_MOST = 1024 };

static const uint64_t BATCH_OF_DEVICE = UINT64_MAX; /* --batch was not given */

static struct arg device_arg(struct forward_options *o, unsigned in)
{
    return (struct arg){.name = "device",
                        .kind = ARG_CHOICE,
                        .to = &o->device,
                        .value = "which",
                        .choices = "cpu|cuda",
                        .help = "compute on the cpu (default) or on a GPU: cuda",
                        .in = in,
                        .silent = true};
}

static struct arg memory_arg(struct forward_options *o, unsigned in)
{
    return (struct arg){
        .name = "mem",
        .kind = ARG_BYTES,
        .to = &o->mem,
        .value = "size",
        .help = "memory for weights that wait or are in use (default: 4G, or a third of the "
                "GPU's)",
        .in = in,
        .silent = true};
}

struct arg *forward_options_args(struct forward_options *o, const struct arg *own,
                                 unsigned without_tokens)
{
    *o = (struct forward_options){.device = "cpu", .batch = BATCH_OF_DEVICE};
    const unsigned tokens = FORM(0), all = tokens | without_tokens;
    struct arg threads = arg_threads(&o->threads);
    threads.in = all;
    const struct arg shared[] = {
        {.name = "tokens",
         .kind = ARG_INPUT,
         .to = &o->tokens,
         .value = "file",
         .help = "token ids, from st-tokenize: a stream or .safetensors file with input_ids, and "
                 "lengths where rows are not full",
         .in = tokens,
         .required = tokens,
         .silent = true}, /* told by their digest */
        {.name = "samples",
         .kind = ARG_NUMBER,
         .to = &o->samples,
         .value = "N",
         .help = "only the first N samples",
         .in = tokens},
        {.name = "layers",
         .kind = ARG_RANGE,
         .to = &o->layers,
         .value = "A-B",
         .help = "only layers A to B",
         .in = tokens},
        {.name = "mtp",
         .to = &o->mtp,
         .help = "run the multi-token prediction layers, too",
         .in = tokens},
        {.name = "states-in",
         .kind = ARG_INPUT,
         .to = &o->states_in,
         .value = "file",
         .help = "begin with the hidden states in file instead of the embeddings",
         .in = tokens},
        {.name = "states-out",
         .kind = ARG_OUTPUT,
         .to = &o->states_out,
         .value = "file",
         .help = "write the hidden states after the last layer to file",
         .in = tokens,
         .silent = true},
        device_arg(o, all),
        {.name = "batch",
         .kind = ARG_NUMBER,
         .to = &o->batch,
         .value = "N",
         .help = "samples at a time outside the experts (default: of 2048 tokens, on a GPU 8192)",
         .in = tokens,
         .silent = true},
        memory_arg(o, all),
        threads,
        {0},
    };
    return args_join(own, shared);
}

static void check(const struct forward_options *o, bool over_tokens)
{
    if (over_tokens && !o->tokens)
        die_usage("--tokens is needed: what the model runs over");
    if (!o->batch)
        die_usage("--batch: at least 1 sample");
    if (o->threads > THREADS_MOST)
        die_usage("--threads: at most %d", THREADS_MOST);
}

/* Connect to the other processes that share the samples; NULL if there are none. */
static struct ranks *open_ranks(const struct forward_options *o, struct stage *stage)
{
    struct launch launch;
    struct stat status;
    const char *input = stage_input(stage);
    if (!launch_read(&launch))
        return NULL;
    if (!input || (!stat(input, &status) && !S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode)))
        die("each of %u ranks reads the weights, and a pipe reaches only one; give a checkpoint's "
            "folder, or a file with the stream",
            launch.count);
    if (o->states_in || o->states_out)
        die_usage("--states-in and --states-out do not go with several ranks: each has the states "
                  "of its own samples");
    if (!stage->quiet) /* before it waits for the others */
        warn("rank %u of %u, as $%s and $%s say (unset them to run alone)", launch.rank,
             launch.count, launch.rank_from, launch.count_from);
    struct ranks *ranks = ranks_open(&launch);
    if (launch.rank) {
        stage->quiet = true;
        stage->verbose = stage->progress = false;
    }
    return ranks;
}

/* --layers A-B, or all. */
static void set_layers(const struct forward_options *o, struct forward *run)
{
    uint64_t layers = run->network->layers;
    run->first = o->layers.text ? o->layers.a : 0;
    run->last = o->layers.text ? o->layers.b : layers - 1;
    if (run->last >= layers)
        die("%s: --layers %s: there are layers 0 to %" PRIu64, ts_name(run->in), o->layers.text,
            layers - 1);
    if (run->first > 0 && !o->states_in)
        die_usage("layer %" PRIu64 " needs the hidden states of the previous one; give them "
                  "with --states-in",
                  run->first);
}

/* Open the device; ranks with a GPU each share the reading. */
static void open_device(const struct forward_options *o, struct forward *run)
{
    const char *why;
    char *no_gather;
    if (!strcmp(o->device, "cpu")) {
        run->device = device_cpu((unsigned)o->threads);
        return;
    }
    run->device = device_cuda(ranks_local(run->ranks), &why);
    if (!run->device)
        die("--device %s: %s", o->device, why);
    if (ranks_count(run->ranks) == 1)
        return;
    run->gather = gather_nccl(run->ranks, run->device, &no_gather);
    if (!run->gather) {
        warn("each rank reads all of the weights: %s", no_gather);
        free(no_gather);
    }
}

/* As many samples of a mean length as have the rows that a device wants. */
static uint64_t batch_of(const struct device *device, const struct tokens *tokens)
{
    uint64_t rows = tokens->start[tokens->samples];
    uint64_t batch = device->rows * tokens->samples / (rows ? rows : 1);
    return batch ? batch : 1;
}

/* Check that all ranks have the same options, weights and tokens, and take this rank's samples. */
static void share_samples(const struct forward *run, const struct stage *stage,
                          struct tokens *tokens)
{
    const struct toc *toc = ts_toc(run->in);
    char *options = json_text(stage->entry, false, true);
    struct stat status = {0};
    stat(stage_input(stage), &status); /* tells streams of references apart */
    char *weights = xprintf("%zu tensors, %" PRIu64 " bytes, %jd", toc->count, toc_bytes(toc, true),
                            S_ISREG(status.st_mode) ? (intmax_t)status.st_size : 0);
    uint64_t samples = tokens->samples, first, count;
    ranks_agree(run->ranks, "other tokens", tokens->digest);
    ranks_agree(run->ranks, "other weights", weights);
    ranks_agree(run->ranks, "other options", options);
    ranks_share(run->ranks, samples, &first, &count);
    if (!count)
        die("there are only %" PRIu64 " samples, fewer than ranks; start fewer", samples);
    tokens_keep(tokens, first, count);
    free(options);
    free(weights);
}

void forward_options_open(const struct forward_options *o, struct stage *stage, struct forward *run,
                          struct tokens *tokens, uint64_t shortest)
{
    check(o, tokens != NULL);
    library_log_to_standard_error();
    *run = (struct forward){.tokens = tokens,
                            .ranks = tokens ? open_ranks(o, stage) : NULL,
                            .mtp = o->mtp,
                            .batch = o->batch,
                            .memory = o->mem,
                            .states_in = o->states_in};
    run->verbose = stage->verbose; /* of rank 0 only */
    run->quiet = stage->quiet;
    run->in = ts_open(stage_input(stage), tokens ? stage : NULL);
    run->network = network_open(run->in);
    set_layers(o, run);
    if (tokens) {
        tokens_load(tokens, o->tokens, run->network->vocabulary, shortest, o->samples);
        json_object_set_new(stage->entry, "tokens", json_string(tokens->digest));
        forward_check(run);
        if (run->ranks)
            share_samples(run, stage, tokens);
    }
    open_device(o, run);
    if (o->batch == BATCH_OF_DEVICE)
        run->batch = tokens ? batch_of(run->device, tokens) : 1;
    if (stage->plan) { /* it only had to be there */
        run->device->close(run->device);
        run->device = NULL;
    }
}

/* Close what is open of them. */
static void close_weights(struct forward *run)
{
    if (run->gather)
        run->gather->close(run->gather);
    if (run->device)
        run->device->close(run->device);
    if (run->in)
        ts_close(run->in);
    run->gather = NULL;
    run->device = NULL;
    run->in = NULL;
}

void forward_options_run(struct forward *run)
{
    if (run->device)
        forward_run(run);
    else
        needed_check(run);
    close_weights(run);
}

void forward_options_close(struct forward *run)
{
    close_weights(run);
    network_close(run->network);
    ranks_close(run->ranks);
}

void forward_options_states(const struct forward_options *o, const struct stage *stage,
                            const struct forward *run, const struct states *states)
{
    if (o->states_out && states->layer == run->last)
        states_save(run, stage, o->states_out, states);
}
