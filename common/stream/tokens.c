#include "stream/tokens.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "stream/ts.h"

/* The current tensor's integers, which the caller frees. */
static int64_t *read_integers(struct ts_in *in)
{
    const struct tensor *tensor = ts_present(in);
    if (tensor->dtype != DTYPE_I32 && tensor->dtype != DTYPE_I64)
        die("%s: %s: wanted I32 or I64, got %s", ts_name(in), tensor->name,
            dtype_name(tensor->dtype));
    size_t count = (size_t)(tensor->size / dtype_size(tensor->dtype));
    void *raw = ts_read_all(in);
    if (tensor->dtype == DTYPE_I64)
        return raw;
    int64_t *wide = xalloc(count, sizeof *wide);
    for (size_t i = 0; i < count; i++)
        wide[i] = ((const int32_t *)raw)[i];
    free(raw);
    return wide;
}

static void check_shape(struct ts_in *in, bool right, const char *wanted)
{
    char shape[TENSOR_SHAPE_TEXT];
    if (!right)
        die("%s: %s: wanted shape %s, got %s", ts_name(in), ts_present(in)->name, wanted,
            tensor_shape(ts_present(in), shape));
}

/* What st-tokenize says of its texts in a stream's history, or NULL. The caller owns it. */
static json_t *texts_of(struct ts_in *in)
{
    size_t i;
    json_t *stage, *texts = NULL;
    json_array_foreach(json_object_get(ts_header(in), "history"), i, stage)
    {
        const char *program = json_string_value(json_object_get(stage, "program"));
        if (program && !strcmp(program, "st-tokenize"))
            texts = json_object_get(stage, "sources");
    }
    return json_incref(texts);
}

/* Check the ids and concatenate the samples. */
static void collect(struct tokens *tokens, const char *name, const int64_t *ids,
                    const int64_t *lengths, uint64_t vocabulary, uint64_t shortest)
{
    tokens->start = xalloc((size_t)tokens->samples + 1, sizeof *tokens->start);
    tokens->id = xalloc((size_t)(tokens->samples * tokens->length), sizeof *tokens->id);
    int32_t *next = tokens->id;
    for (uint64_t i = 0; i < tokens->samples; i++) {
        int64_t length = lengths ? lengths[i] : (int64_t)tokens->length;
        if (length < (int64_t)shortest || length > (int64_t)tokens->length)
            die("%s: sample %" PRIu64 " has %" PRId64 " tokens, wanted %" PRIu64 " to %" PRIu64
                "; leave such samples out",
                name, i, length, shortest, tokens->length);
        for (uint64_t j = 0; j < (uint64_t)length; j++) {
            int64_t id = ids[i * tokens->length + j];
            if (id < 0 || (uint64_t)id >= vocabulary)
                die("%s: sample %" PRIu64 ", token %" PRIu64 ": id %" PRId64
                    " is not in the model's vocabulary of %" PRIu64
                    "; tokenize with the tokenizer of this checkpoint",
                    name, i, j, id, vocabulary);
            *next++ = (int32_t)id;
        }
        tokens->start[i + 1] = (uint64_t)(next - tokens->id);
    }
    struct digest *digest = digest_new();
    digest_add(digest, tokens->start, ((size_t)tokens->samples + 1) * sizeof *tokens->start);
    digest_add(digest, tokens->id, (size_t)(next - tokens->id) * sizeof *tokens->id);
    digest_end(digest, tokens->digest);
}

void tokens_load(struct tokens *tokens, const char *path, uint64_t vocabulary, uint64_t shortest,
                 uint64_t most)
{
    struct ts_in *in = ts_open(path, NULL);
    int64_t *ids = NULL, *lengths = NULL;
    uint64_t counted = 0;
    *tokens = (struct tokens){0};
    for (const struct tensor *tensor; (tensor = ts_next(in));) {
        if (!strcmp(tensor->name, "input_ids") && !ids) {
            check_shape(in, tensor->rank == 2, "[samples,length]");
            tokens->samples = tensor->dim[0];
            tokens->length = tensor->dim[1];
            ids = read_integers(in);
        } else if (!strcmp(tensor->name, "lengths") && !lengths) {
            check_shape(in, tensor->rank == 1, "[samples]");
            counted = tensor->dim[0];
            lengths = read_integers(in);
        }
    }
    char *name = xstrdup(ts_name(in));
    json_t *texts = texts_of(in);
    if (ts_plan_only(in))
        die("%s: is a plan, without tensors; make it without -n", name);
    ts_close(in);
    if (!ids)
        die("%s: no tensor input_ids in it; make one with st-tokenize", name);
    if (lengths && counted != tokens->samples)
        die("%s: lengths: wanted %" PRIu64 " of them, one a sample, got %" PRIu64, name,
            tokens->samples, counted);
    if (!tokens->samples || !tokens->length || tokens->length > INT32_MAX)
        die("%s: input_ids: no sample in it", name);
    if (most && tokens->samples > most)
        tokens->samples = most;
    collect(tokens, name, ids, lengths, vocabulary, shortest);
    tokens->counts = json_pack("{s:I, s:I, s:o*}", "samples", (json_int_t)tokens->samples, "tokens",
                               (json_int_t)tokens->start[tokens->samples], "texts", texts);
    free(ids);
    free(lengths);
    free(name);
}

void tokens_keep(struct tokens *tokens, uint64_t first, uint64_t count)
{
    uint64_t begin = tokens->start[first];
    for (uint64_t i = 0; i <= count; i++)
        tokens->start[i] = tokens->start[first + i] - begin;
    memmove(tokens->id, tokens->id + begin, (size_t)tokens->start[count] * sizeof *tokens->id);
    tokens->samples = count;
}

void tokens_free(struct tokens *tokens)
{
    free(tokens->start);
    free(tokens->id);
    json_decref(tokens->counts);
    *tokens = (struct tokens){0};
}
