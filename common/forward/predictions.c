#include "forward/predictions.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "stream/ts.h"

void predictions_add(struct predictions *p, float loss, const float *logprob, const int32_t *id)
{
    if (p->count == p->capacity) {
        p->capacity = p->capacity ? 2 * p->capacity : 1024;
        p->loss = xgrow(p->loss, (size_t)p->capacity, sizeof *p->loss);
        p->id = xgrow(p->id, (size_t)(p->capacity * p->top), sizeof *p->id);
        p->logprob = xgrow(p->logprob, (size_t)(p->capacity * p->top), sizeof *p->logprob);
    }
    p->loss[p->count] = loss;
    memcpy(p->id + p->count * p->top, id, (size_t)p->top * sizeof *id);
    memcpy(p->logprob + p->count * p->top, logprob, (size_t)p->top * sizeof *logprob);
    p->count++;
}

double predictions_sum(const struct predictions *p)
{
    double sum = 0;
    for (uint64_t i = 0; i < p->count; i++)
        sum += (double)p->loss[i];
    return sum;
}

void predictions_free(struct predictions *p)
{
    free(p->loss);
    free(p->id);
    free(p->logprob);
    *p = (struct predictions){0};
}

/* A message from one rank: losses, log-probabilities, candidates. */
static bool take_others(void *context, const void *data, size_t size)
{
    struct predictions *p = context;
    uint64_t each = sizeof(float) * (1 + 2 * p->top), count = size / each;
    const float *loss = data, *logprob = loss + count;
    const int32_t *id = (const int32_t *)(logprob + count * p->top);
    if (size % each)
        return false;
    for (uint64_t i = 0; i < count; i++)
        predictions_add(p, loss[i], logprob + i * p->top, id + i * p->top);
    return true;
}

void predictions_gather(struct predictions *p, struct ranks *ranks)
{
    size_t losses = (size_t)p->count, best = (size_t)(p->count * p->top);
    float *message = xalloc(losses + 2 * best, sizeof *message);
    if (losses) {
        memcpy(message, p->loss, losses * sizeof *p->loss);
        memcpy(message + losses, p->logprob, best * sizeof *p->logprob);
        memcpy(message + losses + best, p->id, best * sizeof *p->id);
    }
    ranks_gather(ranks, message, (losses + 2 * best) * sizeof *message, take_others, p);
    free(message);
}

/* ---- streams ---- */

static void plan(struct toc *toc, const char *name, enum dtype dtype, unsigned rank, uint64_t rows,
                 uint64_t cols)
{
    toc_append(toc, "predictions.safetensors", name, dtype, rank, (const uint64_t[]){rows, cols});
}

void predictions_save(const struct predictions *p, const struct stage *stage, const char *path)
{
    struct stage file = {.output = path, .entry = stage->entry};
    struct toc *toc = toc_new();
    plan(toc, "tokens", DTYPE_U8, 1, DIGEST_TEXT - 1, 0);
    plan(toc, "nll", DTYPE_F32, 1, p->count, 0);
    plan(toc, "top_ids", DTYPE_I32, 2, p->count, p->top);
    plan(toc, "top_logprobs", DTYPE_F32, 2, p->count, p->top);
    struct ts_out *out = ts_create(&file, NULL, toc);
    const void *const data[] = {p->tokens, p->loss, p->id, p->logprob};
    for (size_t i = 0; i < toc->count; i++)
        ts_put(out, toc->tensor[i].name, data[i], (size_t)toc->tensor[i].size);
    ts_finish(out, NULL, NULL);
    toc_free(toc);
}

/* Read the current tensor, which must have that dtype and rank. */
static void *read_as(struct ts_in *in, enum dtype dtype, unsigned rank)
{
    const struct tensor *tensor = ts_present(in);
    if (tensor->dtype != dtype || tensor->rank != rank)
        die("%s: %s: wanted %s of rank %u, got %s of rank %u", ts_name(in), tensor->name,
            dtype_name(dtype), rank, dtype_name(tensor->dtype), tensor->rank);
    void *data = xgrow(NULL, (size_t)tensor->size, 1);
    ts_read(in, data, (size_t)tensor->size);
    return data;
}

void predictions_load(struct predictions *p, const char *path)
{
    struct ts_in *in = ts_open(path, NULL);
    uint64_t ids = 0, logprobs = 0;
    *p = (struct predictions){0};
    for (const struct tensor *tensor; (tensor = ts_next(in));) {
        uint64_t elements = tensor->size / dtype_size(tensor->dtype);
        if (!strcmp(tensor->name, "tokens")) {
            char *digest = read_as(in, DTYPE_U8, 1);
            if (elements == DIGEST_TEXT - 1)
                memcpy(p->tokens, digest, DIGEST_TEXT - 1);
            free(digest);
        } else if (!strcmp(tensor->name, "nll") && !p->loss) {
            p->loss = read_as(in, DTYPE_F32, 1);
            p->count = p->capacity = elements;
        } else if (!strcmp(tensor->name, "top_ids") && !p->id) {
            p->id = read_as(in, DTYPE_I32, 2);
            p->top = tensor->dim[1];
            ids = elements;
        } else if (!strcmp(tensor->name, "top_logprobs") && !p->logprob) {
            p->logprob = read_as(in, DTYPE_F32, 2);
            logprobs = elements;
        }
    }
    if (!p->count || !p->top || !*p->tokens || ids != p->count * p->top || logprobs != ids)
        die("%s: not a run that st-eval --save wrote", path);
    ts_close(in);
}

/* ---- comparing ---- */

static double log_rest(double sum)
{
    return log(fmax(1 - sum, 1e-12));
}

/* One token's candidates in a and b. */
static double divergence(const struct predictions *a, const struct predictions *b, uint64_t i)
{
    double kl = 0, sum_a = 0, sum_b = 0;
    for (uint64_t j = i * a->top; j < (i + 1) * a->top; j++)
        for (uint64_t k = i * b->top; k < (i + 1) * b->top; k++)
            if (a->id[j] == b->id[k]) {
                double p = exp((double)a->logprob[j]);
                sum_a += p;
                sum_b += exp((double)b->logprob[k]);
                kl += p * ((double)a->logprob[j] - (double)b->logprob[k]);
            }
    double rest = fmax(1 - sum_a, 0);
    return kl + rest * (log_rest(sum_a) - log_rest(sum_b));
}

void predictions_compare(struct comparison *c, const struct predictions *a, const char *name_a,
                         const struct predictions *b, const char *name_b)
{
    if (memcmp(a->tokens, b->tokens, DIGEST_TEXT) != 0 || a->count != b->count)
        die("%s and %s are runs over different tokens; give both the same", name_a, name_b);
    uint64_t agree = 0;
    double sum = 0;
    for (uint64_t i = 0; i < a->count; i++) {
        agree += a->id[i * a->top] == b->id[i * b->top];
        sum += divergence(a, b, i);
    }
    double count = (double)a->count;
    *c = (struct comparison){.divergence = sum / count,
                             .agreement = (double)agree / count,
                             .ratio = exp((predictions_sum(b) - predictions_sum(a)) / count)};
}
