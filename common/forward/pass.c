#include "forward/pass.h"

#include <string.h>

#include "base/die.h"
#include "base/progress.h"
#include "stream/scales.h"

/* For prefetch_plan.look. */
static void look_at_scale(void *context, uint32_t line, uint64_t at, const void *bytes, size_t size)
{
    const struct pass *pass = context;
    scales_check(weight_of(&pass->needed.weights, line), pass->run->in, line, at, bytes, size);
}

void pass_digest_begin(struct pass *pass)
{
    pass->feed.digest = digest_new();
    digest_add(pass->feed.digest, pass->digest, strlen(pass->digest));
}

void pass_digest_end(struct pass *pass)
{
    digest_end(pass->feed.digest, pass->digest);
    pass->feed.digest = NULL;
}

/* Read the layers before the first one for the digest only. */
static void skip_layers(struct pass *pass)
{
    for (uint64_t i = 0; i < pass->run->first; i++) {
        pass_digest_begin(pass);
        feed_skip(&pass->feed, pass->needed.wanted, i);
        pass_digest_end(pass);
    }
}

static struct prefetch *prefetch_weights(struct pass *pass)
{
    const struct forward *run = pass->run;
    const struct prefetch_plan plan = {.wanted = pass->needed.wanted,
                                       .on_device = pass->needed.on_device,
                                       .unseen = pass->needed.unseen,
                                       .by_rows = pass->needed.by_rows,
                                       .device = run->device,
                                       .look = look_at_scale,
                                       .context = pass,
                                       .budget = pass->memory.ahead,
                                       .ranks = run->ranks,
                                       .gather = run->gather};
    return prefetch_begin(run->in, &plan);
}

void pass_begin(struct pass *pass, const struct forward *run)
{
    struct network *n = run->network;
    *pass = (struct pass){.run = run, .network = n, .device = run->device, .begin = now()};
    n->begin(n, run->device, run->tokens->length);
    needed_find(&pass->needed, run);
    rows_begin(&pass->rows, run->device, run->tokens);
    memory_plan(&pass->memory, run, &pass->rows, pass->needed.largest, pass->needed.together);
    if (needs_embedding(run))
        embedding_open(&pass->embedding, n, run->in, &pass->needed.weights, pass->needed.wanted);
    pass->feed =
        (struct feed){.in = run->in, .network = n, .weights = &pass->needed.weights, .run = run};
    skip_layers(pass);
    pass->feed.prefetch = prefetch_weights(pass);
}

void pass_end(struct pass *pass)
{
    prefetch_end(pass->feed.prefetch);
    embedding_close(&pass->embedding);
    rows_end(&pass->rows);
    needed_free(&pass->needed);
    pass->network->end(pass->network);
}

struct times pass_times(const struct pass *pass)
{
    return times_so_far(pass->begin, pass->feed.prefetch, pass->embedding.seconds, pass->device,
                        pass->run->gather);
}
