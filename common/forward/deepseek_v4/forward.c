/* DeepSeek-V4's forward pass over all samples, layer by layer, while the weights go by. */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/progress.h"
#include "base/text.h"
#include "forward/deepseek_v4/feed.h"
#include "forward/states.h"
#include "stream/scales.h"

enum {
    EXPERT_ROWS = 2048, /* tokens that go through an expert at a time */
    HEAD_ROWS = 256,    /* the same for the vocabulary */
    EMBEDDING_READERS = 32,
};

/* Rows of tokens, sample by sample. */
struct rows {
    uint64_t samples;
    uint64_t *start;
    const int32_t *id; /* by row */
};

struct pass {
    const struct forward *run;
    struct v4 v4;
    struct weights weights;
    bool *wanted, *on_device, *unseen; /* by line, see prefetch_plan */
    struct feed feed;
    bool resident;  /* a whole layer's experts stay; else they come, and go, one by one */
    uint64_t group; /* samples that go through the experts together */
    struct rows rows;
    struct offloaded hidden;  /* [rows, copies * dim] BF16 */
    char digest[DIGEST_TEXT]; /* of the layers so far, see forward.h, states */
    struct ts_held *embedding;
    int embedding_fd; /* of its file, for threads that read beside the feed; -1 if it is inline */
    const char *embedding_path;
    uint64_t embedding_offset;
    double embedding_read; /* seconds */
    double begin;
};

/* Seconds so far. */
struct times {
    double all, read, upload, wait; /* wait: for weights */
};

/* A layer while samples go through it. */
struct layer_pass {
    struct pass *pass;
    struct times begin;
    struct v4_layer layer;
    struct held *held; /* by expert and matrix, if resident */
    struct mat seen;   /* [experts * V4_EXPERT_MATRICES, V4_SEEN] */
    uint64_t *rows;    /* by expert: that went through it */
    uint64_t *routed;  /* by expert: that the router sent there */
};

/* Samples on their way through the experts. */
struct group {
    uint64_t first, rows; /* of pass->hidden */
    struct mat hidden;    /* these */
    struct mat x;         /* [rows, dim] BF16: what goes into the experts */
    struct mat y;         /* [rows, dim] F32: what has come out */
    struct mat post, comb;
    struct mat weights, experts, all_weights; /* see v4_route() */
    /* Rows by expert: those of expert e from offset[e] to offset[e + 1] - 1. */
    uint64_t *offset;
    struct mat row, weight; /* [rows * experts_used, 1] I32 and F32 */
};

/* ---- hidden states ---- */

static uint64_t total_rows(const struct pass *pass)
{
    return pass->rows.start[pass->rows.samples];
}

/* Up to `rows` of them from `first` on, as many of which follow next. */
static struct mat fetch_rows(const struct pass *pass, uint64_t first, uint64_t rows)
{
    struct device *d = pass->v4.device;
    uint64_t left = total_rows(pass) - first, now = at_most(left, rows);
    return d->fetch(d, pass->hidden, first, now, at_most(left - now, rows));
}

/* ---- experts ---- */

/* Sort rows by expert: the one place where the host has to know what the device found. */
static void sort_rows(struct layer_pass *lp, struct group *g)
{
    struct device *d = lp->pass->v4.device;
    uint64_t experts = lp->pass->v4.config.experts, used = g->experts.cols;
    size_t count = (size_t)(g->rows * used);
    int32_t *expert = xalloc(count, sizeof *expert);
    float *weight = xalloc(count, sizeof *weight);
    d->read(d, expert, g->experts);
    d->read(d, weight, g->weights);
    g->offset = xalloc((size_t)experts + 2, sizeof *g->offset);
    int32_t *row = xalloc(count, sizeof *row);
    float *sorted = xalloc(count, sizeof *sorted);
    for (size_t i = 0; i < count; i++)
        g->offset[expert[i] + 2]++;
    for (uint64_t e = 0; e < experts; e++)
        g->offset[e + 2] += g->offset[e + 1];
    for (size_t i = 0; i < count; i++) { /* offset[e + 1] runs up to where e + 1 begins */
        uint64_t at = g->offset[expert[i] + 1]++;
        row[at] = (int32_t)(i / used);
        sorted[at] = weight[i];
    }
    g->row = d->make(d, DTYPE_I32, count, 1);
    g->weight = d->make(d, DTYPE_F32, count, 1);
    d->write(d, g->row, row);
    d->write(d, g->weight, sorted);
    free(expert);
    free(weight);
    free(row);
    free(sorted);
}

/* The rows that were routed to an expert. */
static void run_routed(struct layer_pass *lp, struct group *g, struct v4_linear *linear,
                       uint64_t first, uint64_t count)
{
    const struct v4 *v4 = &lp->pass->v4;
    struct device *d = v4->device;
    struct mat index = mat_rows(g->row, first, count), weight = mat_rows(g->weight, first, count);
    struct mat x = d->make(d, DTYPE_BF16, count, g->x.cols);
    struct mat y = d->make(d, DTYPE_BF16, count, g->x.cols);
    d->gather(d, x, g->x, index);
    v4_ffn(v4, &linear[V4_W1], &linear[V4_W3], &linear[V4_W2], v4->config.swiglu_limit, y, x,
           weight);
    d->scatter_add(d, g->y, y, index);
    d->drop(d, x);
    d->drop(d, y);
}

/* All rows through an expert, only to see what it sees. */
static void run_all(struct layer_pass *lp, struct group *g, struct v4_linear *linear, uint64_t e,
                    uint64_t first, uint64_t count)
{
    const struct v4 *v4 = &lp->pass->v4;
    struct device *d = v4->device;
    struct mat y = d->make(d, DTYPE_BF16, count, g->x.cols);
    v4_ffn(v4, &linear[V4_W1], &linear[V4_W3], &linear[V4_W2], v4->config.swiglu_limit, y,
           mat_rows(g->x, first, count), mat_cols(mat_rows(g->all_weights, first, count), e, 1));
    d->drop(d, y);
}

static void run_expert(struct layer_pass *lp, struct group *g, uint64_t e)
{
    struct pass *pass = lp->pass;
    struct held taken[V4_EXPERT_MATRICES], *held = &lp->held[e * V4_EXPERT_MATRICES];
    struct v4_linear linear[V4_EXPERT_MATRICES];
    if (!pass->resident)
        feed_expert(&pass->feed, &lp->layer, e, held = taken);
    for (unsigned i = 0; i < V4_EXPERT_MATRICES; i++)
        v4_load_expert(&pass->v4, &linear[i], &held[i].from,
                       mat_rows(lp->seen, e * V4_EXPERT_MATRICES + i, 1));
    for (unsigned i = 0; i < V4_EXPERT_MATRICES && !pass->resident; i++)
        held_free(&pass->feed, &held[i]);
    for (uint64_t i = g->offset[e]; i < g->offset[e + 1]; i += EXPERT_ROWS)
        run_routed(lp, g, linear, i, at_most(g->offset[e + 1] - i, EXPERT_ROWS));
    for (uint64_t i = 0; i < g->all_weights.rows; i += EXPERT_ROWS)
        run_all(lp, g, linear, e, i, at_most(g->rows - i, EXPERT_ROWS));
    lp->rows[e] += linear[V4_W1].rows;
    lp->routed[e] += g->offset[e + 1] - g->offset[e];
    v4_expert_end(&pass->v4, linear);
}

/* ---- one layer ---- */

/* Attention, and all that comes before the experts, of some samples of a group. */
static void run_batch(struct layer_pass *lp, struct group *g, uint64_t sample, uint64_t samples)
{
    struct pass *pass = lp->pass;
    const struct v4 *v4 = &pass->v4;
    struct device *d = v4->device;
    struct v4_layer *layer = &lp->layer;
    const uint64_t *start = pass->rows.start + sample;
    uint64_t rows = start[samples] - start[0], at = start[0] - g->first, dim = v4->config.dim;
    struct mat hidden = mat_rows(g->hidden, at, rows);
    struct mat x = mat_rows(g->x, at, rows), y = d->make(d, DTYPE_BF16, rows, dim);
    struct mat post = mat_rows(g->post, at, rows), comb = mat_rows(g->comb, at, rows);
    struct v4_batch batch;
    v4_batch_begin(v4, &batch, start, samples, layer->ratio);
    v4_hc_in(v4, layer, V4_HC_ATTN_FN, x, post, comb, hidden);
    v4_norm(v4, layer, V4_ATTN_NORM, x, x);
    v4_attention(v4, layer, &batch, y, x);
    d->hc_out(d, hidden, y, post, comb);
    v4_hc_in(v4, layer, V4_HC_FFN_FN, x, post, comb, hidden);
    v4_norm(v4, layer, V4_FFN_NORM, x, x);
    struct mat all = g->all_weights.rows ? mat_rows(g->all_weights, at, rows) : g->all_weights;
    v4_route(v4, layer, mat_rows(g->weights, at, rows), mat_rows(g->experts, at, rows), all,
             pass->rows.id + start[0], x);
    v4_shared(v4, layer, y, x);
    d->copy(d, mat_rows(g->y, at, rows), y);
    v4_batch_end(v4, &batch);
    d->drop(d, y);
}

static void group_begin(struct pass *pass, struct group *g, uint64_t sample, uint64_t samples)
{
    const struct v4_config *c = &pass->v4.config;
    struct device *d = pass->v4.device;
    const uint64_t *start = pass->rows.start + sample;
    uint64_t rows = start[samples] - start[0];
    uint64_t behind = at_most(pass->rows.samples - sample - samples, samples);
    *g = (struct group){.first = start[0], .rows = rows};
    g->hidden = d->fetch(d, pass->hidden, g->first, rows, start[samples + behind] - start[samples]);
    g->x = d->make(d, DTYPE_BF16, rows, c->dim);
    g->y = d->make(d, DTYPE_F32, rows, c->dim);
    g->post = d->make(d, DTYPE_F32, rows, c->copies);
    g->comb = d->make(d, DTYPE_F32, rows, c->copies * c->copies);
    g->weights = d->make(d, DTYPE_F32, rows, c->experts_used);
    g->experts = d->make(d, DTYPE_I32, rows, c->experts_used);
    g->all_weights = d->make(d, DTYPE_F32, pass->run->all_experts ? rows : 0, c->experts);
}

static void group_end(struct pass *pass, struct group *g)
{
    struct device *d = pass->v4.device;
    const struct mat mats[] = {g->x,       g->y,       g->post,        g->comb,  g->row,
                               g->weights, g->experts, g->all_weights, g->weight};
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
        d->drop(d, mats[i]);
    d->store(d, pass->hidden, g->first, g->hidden);
    free(g->offset);
}

static void run_group(struct layer_pass *lp, uint64_t sample, uint64_t samples)
{
    struct pass *pass = lp->pass;
    struct device *d = pass->v4.device;
    uint64_t batch = pass->run->batch;
    struct group g;
    group_begin(pass, &g, sample, samples);
    for (uint64_t i = 0; i < samples; i += batch)
        run_batch(lp, &g, sample + i, at_most(samples - i, batch));
    sort_rows(lp, &g);
    for (uint64_t e = 0; e < pass->v4.config.experts; e++) {
        d->stream(d, 1 + (unsigned)(e % DEVICE_STREAMS));
        run_expert(lp, &g, e);
    }
    d->stream(d, 0);
    d->copy(d, g.x, g.y);
    d->hc_out(d, g.hidden, g.x, g.post, g.comb);
    group_end(pass, &g);
}

/* ---- what a layer saw ---- */

static void check_finite(const struct linear_seen *seen, float output)
{
    const char *what = !isfinite(seen->weight_amax)  ? "its weight holds"
                       : !isfinite(seen->input_amax) ? "its input holds"
                       : !isfinite(output)           ? "its output holds"
                                                     : NULL;
    if (what)
        die("%s: %s NaN or infinity; is the checkpoint whole, and of this model?", seen->module,
            what);
}

static void report(const struct pass *pass, const char *module, bool expert, uint64_t rows,
                   const float *magnitude)
{
    const struct linear_seen seen = {.module = module,
                                     .expert = expert,
                                     .rows = rows,
                                     .input_amax = magnitude[V4_SEEN_INPUT],
                                     .weight_amax = magnitude[V4_SEEN_WEIGHT]};
    check_finite(&seen, magnitude[V4_SEEN_OUTPUT]);
    if (pass->run->linear)
        pass->run->linear(pass->run->context, &seen);
}

static void report_layer(const struct pass *pass, const struct v4_layer *layer)
{
    struct device *d = pass->v4.device;
    float magnitude[V4_SLOTS * V4_SEEN];
    uint64_t rows[V4_SLOTS];
    d->read(d, magnitude, layer->seen);
    for (unsigned i = 0; i < V4_SLOTS; i++)
        rows[i] = layer->linear[i].rows;
    ranks_max(pass->run->ranks, magnitude, (size_t)V4_SLOTS * V4_SEEN);
    ranks_sum(pass->run->ranks, rows, V4_SLOTS);
    for (unsigned i = 0; i < V4_SLOTS; i++)
        if (layer->linear[i].module)
            report(pass, layer->linear[i].module, false, rows[i], magnitude + (size_t)i * V4_SEEN);
}

static void report_experts(const struct layer_pass *lp)
{
    static const char *const matrix[V4_EXPERT_MATRICES] = {"w1", "w3", "w2"};
    const struct pass *pass = lp->pass;
    struct device *d = pass->v4.device;
    uint64_t experts = pass->v4.config.experts;
    size_t magnitudes = (size_t)experts * V4_EXPERT_MATRICES * V4_SEEN;
    float *magnitude = xalloc(magnitudes, sizeof *magnitude);
    d->read(d, magnitude, lp->seen);
    ranks_max(pass->run->ranks, magnitude, magnitudes);
    ranks_sum(pass->run->ranks, lp->rows, (size_t)experts);
    ranks_sum(pass->run->ranks, lp->routed, (size_t)experts);
    for (uint64_t e = 0; e < experts; e++) {
        char *expert = xprintf("%sffn.experts.%" PRIu64, lp->layer.prefix, e);
        for (unsigned i = 0; i < V4_EXPERT_MATRICES; i++) {
            char *module = xprintf("%s.%s", expert, matrix[i]);
            report(pass, module, true, lp->rows[e],
                   magnitude + (e * V4_EXPERT_MATRICES + i) * V4_SEEN);
            free(module);
        }
        if (pass->run->routed)
            pass->run->routed(pass->run->context, expert, lp->routed[e]);
        free(expert);
    }
    free(magnitude);
}

/* ---- time ---- */

static struct times times_so_far(const struct pass *pass)
{
    struct device *d = pass->v4.device;
    struct prefetch_time prefetch = prefetch_time(pass->feed.prefetch);
    struct times t = {.read = prefetch.reading + pass->embedding_read};
    d->spent(d, &t.upload, &t.wait);
    t.wait += prefetch.waiting + pass->embedding_read;
    t.all = now() - pass->begin;
    return t;
}

static struct times tell_times(const char *what, const struct pass *pass, const struct times *from)
{
    struct times til = times_so_far(pass);
    til.all -= from->all;
    til.read -= from->read;
    til.upload -= from->upload;
    til.wait -= from->wait;
    warn("%s %.3f s: read %.3f, upload %.3f, compute %.3f, wait %.3f", what, til.all, til.read,
         til.upload, til.all - til.wait, til.wait);
    return til;
}

/* What more of would have made the run faster. */
static void tell_bound(const struct pass *pass)
{
    struct times t = tell_times("all:", pass, &(struct times){0});
    warn("the bound was %s", t.wait < t.all / 2  ? "computing"
                             : t.read < t.upload ? "the way to the device"
                                                 : "reading the weights");
}

/* ---- layers ---- */

/* A layer's digest begins with that of the layers before it. */
static struct digest *digest_begin(const struct pass *pass)
{
    struct digest *digest = digest_new();
    digest_add(digest, pass->digest, strlen(pass->digest));
    return digest;
}

static void layer_begin(struct pass *pass, struct layer_pass *lp, uint64_t number)
{
    const struct v4 *v4 = &pass->v4;
    struct device *d = v4->device;
    size_t experts = (size_t)v4->config.experts, matrices = experts * V4_EXPERT_MATRICES;
    *lp = (struct layer_pass){.pass = pass, .begin = times_so_far(pass)};
    pass->feed.digest = digest_begin(pass);
    v4_layer_begin(v4, &lp->layer, number);
    feed_layer(&pass->feed, v4, &lp->layer, V4_ENORM, V4_SHARED_W2);
    lp->held = xalloc(matrices, sizeof *lp->held);
    for (size_t e = 0; e < experts && pass->resident; e++)
        feed_expert(&pass->feed, &lp->layer, e, &lp->held[e * V4_EXPERT_MATRICES]);
    float *zero = xalloc(matrices * V4_SEEN, sizeof *zero);
    lp->seen = d->make(d, DTYPE_F32, matrices, V4_SEEN);
    d->write(d, lp->seen, zero);
    free(zero);
    lp->rows = xalloc(experts, sizeof *lp->rows);
    lp->routed = xalloc(experts, sizeof *lp->routed);
}

static void layer_end(struct layer_pass *lp)
{
    struct pass *pass = lp->pass;
    const struct v4 *v4 = &pass->v4;
    digest_end(pass->feed.digest, pass->digest);
    pass->feed.digest = NULL;
    report_layer(pass, &lp->layer);
    report_experts(lp);
    if (lp->pass->run->verbose)
        tell_times(lp->layer.prefix, lp->pass, &lp->begin);
    for (size_t i = 0; i < v4->config.experts * V4_EXPERT_MATRICES; i++)
        held_free(&lp->pass->feed, &lp->held[i]);
    v4->device->drop(v4->device, lp->seen);
    free(lp->held);
    free(lp->rows);
    free(lp->routed);
    v4_layer_end(v4, &lp->layer);
}

/* All samples through a layer whose attention and router are loaded. */
static void run_layer(struct layer_pass *lp)
{
    struct pass *pass = lp->pass;
    uint64_t samples = pass->rows.samples, group = pass->resident ? pass->group : samples;
    for (uint64_t i = 0; i < samples; i += group)
        run_group(lp, i, at_most(samples - i, group));
}

/* ---- embeddings ---- */

/* Open the held tensor's file, if it has one. */
static void open_embedding(struct pass *pass)
{
    struct sources *sources = ts_sources(pass->run->in);
    size_t source;
    pass->embedding_fd = -1;
    if (!pass->embedding || !ts_held_ref(pass->embedding, &source, &pass->embedding_offset))
        return;
    pass->embedding_path = sources->file[source].path;
    pass->embedding_fd = sources_dup(sources, source);
}

static void read_embedding(const struct pass *pass, uint64_t at, void *raw, size_t size)
{
    if (pass->embedding_fd < 0)
        ts_held_read(pass->embedding, at, raw, size);
    else
        source_read(pass->embedding_fd, pass->embedding_path, pass->embedding_offset + at, raw,
                    size, ts_held_tensor(pass->embedding)->name);
}

/* y = the embeddings of ids, read from the stream's held tensor, each row when it is needed, and
 * many at a time, since a disk takes its time for each. */
static void embed(struct pass *pass, struct mat y, const int32_t *id)
{
    const struct tensor *tensor = ts_held_tensor(pass->embedding);
    const struct weight *w =
        weight_of(&pass->weights, (size_t)toc_find(ts_toc(pass->run->in), tensor->name));
    const struct scales none = {0};
    size_t row_bytes = (size_t)weight_row_bytes(w, tensor);
    char *raw = xalloc((size_t)y.rows, row_bytes);
    uint16_t *rows = xalloc((size_t)(y.rows * y.cols), sizeof *rows);
    double begin = now();
#pragma omp parallel for num_threads(pass->embedding_fd < 0 ? 1 : EMBEDDING_READERS)
    for (uint64_t i = 0; i < y.rows; i++) {
        char *own = raw + i * row_bytes;
        read_embedding(pass, (uint64_t)id[i] * row_bytes, own, row_bytes);
        weight_rows(w, tensor, &none, (uint64_t)id[i], 1, own, rows + i * y.cols);
    }
    pass->embedding_read += now() - begin;
    pass->v4.device->write(pass->v4.device, y, rows);
    free(raw);
    free(rows);
}

/* The hidden states before the first layer: every copy is the embedding. */
static void embed_all(struct pass *pass)
{
    const struct v4_config *c = &pass->v4.config;
    struct device *d = pass->v4.device;
    for (uint64_t first = 0; first < total_rows(pass); first += EXPERT_ROWS) {
        struct mat hidden = fetch_rows(pass, first, EXPERT_ROWS);
        struct mat e = d->make(d, DTYPE_BF16, hidden.rows, c->dim);
        embed(pass, e, pass->rows.id + first);
        for (uint64_t i = 0; i < c->copies; i++)
            d->copy(d, mat_cols(hidden, i * c->dim, c->dim), e);
        d->drop(d, e);
        d->store(d, pass->hidden, first, hidden);
    }
}

/* ---- the head ---- */

/* What follows each row: the next token of its sample, or -1 behind the last. */
static int32_t *targets(const struct rows *rows)
{
    int32_t *target = xalloc((size_t)rows->start[rows->samples], sizeof *target);
    for (uint64_t s = 0; s < rows->samples; s++)
        for (uint64_t i = rows->start[s]; i < rows->start[s + 1]; i++)
            target[i] = i + 1 < rows->start[s + 1] ? rows->id[i + 1] : -1;
    return target;
}

/* norm: the layer that has the norm and the hyper-connection; the vocabulary is always the same. */
static void run_head(struct pass *pass, struct v4_layer *norm, struct v4_layer *head, unsigned mtp)
{
    const struct v4 *v4 = &pass->v4;
    struct device *d = v4->device;
    int32_t *target = targets(&pass->rows);
    for (uint64_t first = 0; first < total_rows(pass); first += HEAD_ROWS) {
        struct mat hidden = fetch_rows(pass, first, HEAD_ROWS);
        struct mat x = d->make(d, DTYPE_BF16, hidden.rows, v4->config.dim);
        struct mat logits = d->make(d, DTYPE_F32, hidden.rows, v4->config.vocabulary);
        v4_hc_head(v4, norm, x, hidden);
        d->store(d, pass->hidden, first, hidden);
        v4_norm(v4, norm, V4_NORM, x, x);
        v4_linear(v4, &head->linear[V4_HEAD], logits, x);
        pass->run->logits(pass->run->context, mtp, first, logits, target + first);
        d->drop(d, x);
        d->drop(d, logits);
    }
    free(target);
}

/* ---- multi-token prediction ---- */

/* Rows of the hidden states move to the front, over others. */
static void move_rows(const struct pass *pass, uint64_t to, uint64_t from, uint64_t rows)
{
    struct device *d = pass->v4.device;
    struct mat between = d->make(d, DTYPE_BF16, rows, pass->hidden.all.cols);
    struct mat hidden = d->fetch(d, pass->hidden, from, rows, 0);
    d->copy(d, between, hidden);
    d->store(d, pass->hidden, from, hidden);
    hidden = d->fetch(d, pass->hidden, to, rows, 0);
    d->copy(d, hidden, between);
    d->store(d, pass->hidden, to, hidden);
    d->drop(d, between);
}

/* Move on by a token: every sample loses its last hidden state, and its first id. */
static void shift_rows(struct pass *pass)
{
    struct rows *rows = &pass->rows;
    uint64_t kept = 0;
    int32_t *id = xalloc((size_t)total_rows(pass), sizeof *id);
    for (uint64_t s = 0, first = 0; s < rows->samples; s++) {
        uint64_t end = rows->start[s + 1], left = end - first - (end > first);
        if (left && kept != first)
            move_rows(pass, kept, first, left);
        memcpy(id + kept, rows->id + first + 1, (size_t)left * sizeof *id);
        kept += left;
        first = end;
        rows->start[s + 1] = kept;
    }
    free((int32_t *)rows->id);
    rows->id = id;
}

static void run_mtp(struct pass *pass, struct v4_layer *head, unsigned mtp)
{
    const struct v4 *v4 = &pass->v4;
    struct device *d = v4->device;
    struct layer_pass lp;
    layer_begin(pass, &lp, v4->config.layers + mtp);
    shift_rows(pass);
    for (uint64_t first = 0; first < total_rows(pass); first += EXPERT_ROWS) {
        struct mat hidden = fetch_rows(pass, first, EXPERT_ROWS);
        struct mat e = d->make(d, DTYPE_BF16, hidden.rows, v4->config.dim);
        embed(pass, e, pass->rows.id + first);
        v4_mtp_input(v4, &lp.layer, hidden, e);
        d->drop(d, e);
        d->store(d, pass->hidden, first, hidden);
    }
    run_layer(&lp);
    feed_layer(&pass->feed, v4, &lp.layer, V4_NORM, V4_HEAD); /* it comes behind the experts */
    if (pass->run->head)
        run_head(pass, &lp.layer, head, mtp + 1);
    layer_end(&lp);
}

/* ---- which tensors ---- */

static bool runs_to_the_end(const struct pass *pass)
{
    return pass->run->last == pass->v4.config.layers - 1;
}

static bool runs_mtp(const struct pass *pass)
{
    return pass->run->mtp && runs_to_the_end(pass);
}

static bool runs_head(const struct pass *pass)
{
    return pass->run->head && runs_to_the_end(pass);
}

static bool needs_embedding(const struct pass *pass)
{
    return !pass->run->states_in || runs_mtp(pass);
}

static bool is_wanted(const struct pass *pass, const char *name)
{
    uint32_t number;
    if (name_number(&name, "layers.", &number))
        return number >= pass->run->first && number <= pass->run->last;
    if (name_number(&name, "mtp.", &number))
        return runs_mtp(pass) && number < pass->v4.config.mtp_layers;
    return runs_head(pass) && (starts_with(name, "norm.") || starts_with(name, "hc_head_") ||
                               starts_with(name, "head."));
}

/* See that all that is wanted is there, before anything is computed with. */
static void check_all(struct pass *pass)
{
    const struct v4 *v4 = &pass->v4;
    uint64_t layers = v4->config.layers + (runs_mtp(pass) ? v4->config.mtp_layers : 0);
    struct v4_layer layer;
    for (uint64_t i = pass->run->first; i < layers; i++) {
        if (i > pass->run->last && i < v4->config.layers)
            continue;
        v4_layer_begin(v4, &layer, i);
        v4_layer_check(v4, &layer, &pass->weights, true);
        v4_layer_end(v4, &layer);
    }
    if (runs_head(pass)) {
        v4_layer_begin(v4, &layer, UINT64_MAX);
        v4_layer_check(v4, &layer, &pass->weights, false);
        v4_layer_end(v4, &layer);
    }
    const struct toc *toc = ts_toc(pass->run->in);
    int64_t line = toc_find(ts_toc(pass->run->in), "embed.weight");
    if (needs_embedding(pass) &&
        (line < 0 || toc->tensor[line].rank != 2 ||
         toc->tensor[line].dim[0] != v4->config.vocabulary ||
         toc->tensor[line].dim[1] != v4->config.dim || !weight_of(&pass->weights, (size_t)line)))
        die("%s: embed.weight is missing, or not %" PRIu64 " x %" PRIu64, ts_name(pass->run->in),
            v4->config.vocabulary, v4->config.dim);
}

/* Read up to the embeddings, which come first. */
static void find_embedding(struct pass *pass)
{
    struct ts_in *in = pass->run->in;
    while (needs_embedding(pass) && !pass->embedding) {
        const struct tensor *tensor = ts_next(in);
        if (!tensor || pass->wanted[tensor - ts_toc(in)->tensor])
            die("%s: embed.weight does not come before the layers", ts_name(in));
        if (!strcmp(tensor->name, "embed.weight"))
            pass->embedding = ts_hold(in);
    }
}

/* The line of the table that comes next, or NULL. */
static const struct tensor *next_line(struct ts_in *in)
{
    const struct toc *toc = ts_toc(in);
    const struct tensor *present = ts_present(in);
    size_t line = present ? (size_t)(present - toc->tensor) + 1 : 0;
    return line < toc->count ? &toc->tensor[line] : NULL;
}

/* Read over a layer that comes before the first one, for the digest only. */
static void skip_layer(struct pass *pass, uint64_t layer)
{
    struct ts_in *in = pass->run->in;
    struct digest *digest = digest_begin(pass);
    char *data = xalloc(FEED_DIGESTED, 1);
    for (const struct tensor *tensor; (tensor = next_line(in));) {
        const char *name = tensor->name;
        uint32_t number;
        bool in_layer = name_number(&name, "layers.", &number);
        if (pass->wanted[tensor - ts_toc(in)->tensor] || (in_layer && number > layer))
            break;
        ts_next(in);
        if (in_layer && number == layer) {
            size_t line = (size_t)(tensor - ts_toc(in)->tensor);
            size_t size = feed_digested(&pass->weights, line, tensor);
            ts_read(in, data, size);
            feed_digest(digest, tensor, data, size);
        }
    }
    free(data);
    digest_end(digest, pass->digest);
}

/* Bytes of the largest layer. */
static uint64_t largest_layer(const struct pass *pass)
{
    const struct toc *toc = ts_toc(pass->run->in);
    uint64_t most = 0, bytes = 0;
    uint32_t present = UINT32_MAX;
    for (size_t i = 0; i < toc->count; i++) {
        const char *name = toc->tensor[i].name;
        uint32_t number;
        if (!name_number(&name, "layers.", &number) && !name_number(&name, "mtp.", &number))
            continue;
        bytes = number == present ? bytes + toc->tensor[i].size : toc->tensor[i].size;
        present = number;
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* Bytes that a token takes in a group: what goes into the experts and comes out, and hidden states
 * that are away, with those of the next group. */
static uint64_t token_bytes(const struct pass *pass)
{
    const struct v4_config *c = &pass->v4.config;
    uint64_t hidden = pass->hidden.on_host ? 2 * c->copies * sizeof(uint16_t) : 0;
    return c->dim * (sizeof(uint16_t) + sizeof(float) + hidden);
}

/* How many samples may go through the experts together, when weights stay: as many as make up for
 * the work of getting the weights ready, but not so many that they take more memory than those.
 * Where hidden states are away, their memory is there for groups, too. */
static uint64_t group_size(const struct pass *pass, uint64_t memory)
{
    uint64_t sample = (total_rows(pass) / pass->rows.samples + 1) * token_bytes(pass);
    uint64_t batches = memory / (pass->hidden.on_host ? 2 : 4) / sample / pass->run->batch;
    return pass->run->batch * (batches ? batches : 1);
}

/* Where hidden states are, whether a layer stays, and how many samples are a group. Of hidden
 * states that are away there may be more than could go through the experts at once, so the layer
 * has to stay. */
static void plan_memory(struct pass *pass, uint64_t memory, uint64_t layer)
{
    const struct v4_config *c = &pass->v4.config;
    struct device *d = pass->v4.device;
    uint64_t samples = pass->rows.samples, rows = total_rows(pass);
    uint64_t weights = at_most(toc_bytes(ts_toc(pass->run->in), true), memory);
    uint64_t group = at_most(group_size(pass, memory), samples);
    bool stays = group < samples && memory / 2 >= layer;
    uint64_t besides = weights + token_bytes(pass) * (stays ? rows / samples * group : rows);
    pass->hidden = d->make_offloaded(d, DTYPE_BF16, rows, c->copies * c->dim, besides);
    pass->group = group_size(pass, memory);
    pass->resident = pass->group < samples && (memory / 2 >= layer || pass->hidden.on_host);
    if (pass->resident && memory < layer)
        die("%" PRIu64
            " tokens do not fit on the device at once, so that a layer's weights have to "
            "stay there: --mem is %" PRIu64 " bytes, give at least %" PRIu64 ", or fewer --samples",
            rows, memory, layer);
}

/* For prefetch_plan.look. */
static void look_at_scale(void *context, uint32_t line, uint64_t at, const void *bytes, size_t size)
{
    const struct pass *pass = context;
    scales_check(weight_of(&pass->weights, line), pass->run->in, line, at, bytes, size);
}

static void pass_begin(struct pass *pass, const struct forward *run)
{
    const struct tokens *tokens = run->tokens;
    struct toc *toc = ts_toc(run->in);
    *pass = (struct pass){.run = run, .begin = now()};
    v4_begin(&pass->v4, run, tokens->length);
    weights_find(&pass->weights, ts_model(run->in), toc, ts_name(run->in));
    check_all(pass);
    pass->wanted = xalloc(toc->count, sizeof *pass->wanted);
    pass->on_device = xalloc(toc->count, sizeof *pass->on_device);
    pass->unseen = xalloc(toc->count, sizeof *pass->unseen);
    for (size_t i = 0; i < toc->count; i++) {
        const struct weight *w = weight_of(&pass->weights, i);
        pass->wanted[i] = is_wanted(pass, toc->tensor[i].name);
        bool bytes = w && (w->format == FORMAT_MXFP4 || w->format == FORMAT_NVFP4);
        pass->on_device[i] = w && (i == w->line || (bytes && i == w->scale));
        pass->unseen[i] = w && i == w->line;
    }
    size_t starts_bytes = ((size_t)tokens->samples + 1) * sizeof *tokens->start;
    size_t id_bytes = (size_t)tokens->start[tokens->samples] * sizeof *tokens->id;
    int32_t *id = xgrow(NULL, id_bytes, 1);
    pass->rows = (struct rows){tokens->samples, xgrow(NULL, starts_bytes, 1), id};
    memcpy(pass->rows.start, tokens->start, starts_bytes);
    memcpy(id, tokens->id, id_bytes);
    uint64_t layer = largest_layer(pass), memory = run->memory ? run->memory : run->device->memory;
    plan_memory(pass, memory, layer);
    find_embedding(pass);
    open_embedding(pass);
    const struct prefetch_plan plan = {.wanted = pass->wanted,
                                       .on_device = pass->on_device,
                                       .unseen = pass->unseen,
                                       .device = run->device,
                                       .look = look_at_scale,
                                       .context = pass,
                                       .budget = pass->resident ? memory - layer : memory,
                                       .ranks = run->ranks,
                                       .gather = run->gather};
    for (uint64_t i = 0; i < run->first; i++)
        skip_layer(pass, i);
    pass->feed = (struct feed){.in = run->in,
                               .weights = &pass->weights,
                               .prefetch = prefetch_begin(run->in, &plan),
                               .device = run->device};
}

static void pass_end(struct pass *pass)
{
    prefetch_end(pass->feed.prefetch);
    ts_release(pass->embedding);
    if (pass->embedding_fd >= 0)
        close(pass->embedding_fd);
    pass->v4.device->drop_offloaded(pass->v4.device, pass->hidden);
    free(pass->rows.start);
    free((int32_t *)pass->rows.id);
    free(pass->wanted);
    free(pass->on_device);
    free(pass->unseen);
    weights_free(&pass->weights);
    v4_end(&pass->v4);
}

void deepseek_v4_forward(const struct forward *run)
{
    struct pass pass;
    struct layer_pass lp;
    pass_begin(&pass, run);
    const struct v4_config *c = &pass.v4.config;
    if (run->states_in)
        states_load(run, &(struct states){run->first - 1, c->copies, pass.hidden, pass.digest});
    else
        embed_all(&pass);
    if (run->verbose && run->device->read_file)
        warn("files are read right into the device's memory");
    if (run->verbose)
        tell_times("start:", &pass, &(struct times){0});
    for (uint64_t i = run->first; i <= run->last; i++) {
        layer_begin(&pass, &lp, i);
        run_layer(&lp);
        layer_end(&lp);
        if (run->states)
            run->states(run->context, &(struct states){i, c->copies, pass.hidden, pass.digest});
    }
    struct v4_layer head;
    v4_layer_begin(&pass.v4, &head, UINT64_MAX);
    if (runs_head(&pass)) {
        feed_layer(&pass.feed, &pass.v4, &head, V4_NORM, V4_HEAD);
        run_head(&pass, &head, &head, 0);
    }
    for (unsigned i = 0; i < c->mtp_layers && runs_mtp(&pass); i++)
        run_mtp(&pass, &head, i);
    report_layer(&pass, &head);
    if (run->verbose)
        tell_bound(&pass);
    v4_layer_end(&pass.v4, &head);
    pass_end(&pass);
}
