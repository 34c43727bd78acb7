#include "forward/states.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/json.h"

char *states_fingerprint(const struct forward *run, char *hex)
{
    struct digest *digest = digest_new();
    char *text = json_text(run->network->config.json, false, true);
    char arithmetic = (char)('0' + run->arithmetic);
    digest_add(digest, run->tokens->digest, DIGEST_TEXT);
    digest_add(digest, text, strlen(text));
    digest_add(digest, &arithmetic, 1);
    if (run->recipe)
        digest_add(digest, run->recipe, strlen(run->recipe));
    free(text);
    return digest_end(digest, hex);
}

static uint64_t length_of(const struct tokens *tokens, uint64_t sample)
{
    return tokens->start[sample + 1] - tokens->start[sample];
}

/* ---- reading ---- */

static void check_present(struct ts_in *in, enum dtype dtype, unsigned rank, const uint64_t *dim)
{
    const struct tensor *tensor = ts_present(in);
    struct tensor wanted = {.dtype = (uint8_t)dtype, .rank = (uint8_t)rank};
    char want[TENSOR_SHAPE_TEXT], got[TENSOR_SHAPE_TEXT];
    for (unsigned i = 0; i < rank; i++)
        wanted.dim[i] = dim[i];
    if (!tensor_same_form(tensor, &wanted))
        die("%s: %s: wanted %s %s, got %s %s; are these states of these tokens and this model?",
            ts_name(in), tensor->name, dtype_name(dtype), tensor_shape(&wanted, want),
            dtype_name(tensor->dtype), tensor_shape(tensor, got));
}

/* Some columns of the hidden states. */
struct columns {
    const char *name; /* the tensor of the stream */
    uint64_t first, count;
    unsigned rank; /* of the tensor, and its shape */
    uint64_t dim[4];
};

/* The tensors of hidden states: returns their number, 1 or 2. */
static size_t columns_of(const struct forward *run, struct columns *columns)
{
    const struct network *n = run->network;
    const struct tokens *tokens = run->tokens;
    uint64_t copies = n->copies * n->dim;
    columns[0] = (struct columns){
        "hidden_states", 0, copies, 4, {tokens->samples, tokens->length, n->copies, n->dim}};
    columns[1] = (struct columns){
        "carried", copies, n->carried, 3, {tokens->samples, tokens->length, n->carried}};
    return n->carried ? 2 : 1;
}

/* Copy columns of `rows` rows, from or to whole rows of `wide` columns. */
static void copy_columns(uint16_t *whole, uint64_t wide, uint16_t *part, const struct columns *c,
                         uint64_t rows, bool out)
{
    for (uint64_t i = 0; i < rows; i++) {
        uint16_t *inside = whole + i * wide + c->first, *outside = part + i * c->count;
        memcpy(out ? outside : inside, out ? inside : outside, (size_t)c->count * sizeof *part);
    }
}

static void read_columns(const struct forward *run, struct ts_in *in, const struct states *states,
                         const struct columns *c)
{
    const struct tokens *tokens = run->tokens;
    struct device *d = run->device;
    uint64_t wide = states->hidden.all.cols;
    check_present(in, DTYPE_BF16, c->rank, c->dim);
    uint16_t *part = xalloc((size_t)(tokens->length * c->count), sizeof *part);
    uint16_t *whole = xalloc((size_t)(tokens->length * wide), sizeof *whole);
    for (uint64_t i = 0; i < tokens->samples; i++) {
        uint64_t first = tokens->start[i], length = length_of(tokens, i);
        struct mat rows = d->fetch(d, states->hidden, first, length);
        ts_read(in, part, (size_t)(tokens->length * c->count) * sizeof *part);
        d->read(d, whole, rows);
        copy_columns(whole, wide, part, c, length, false);
        d->write(d, rows, whole);
        d->store(d, states->hidden, first, rows);
    }
    free(part);
    free(whole);
}

static void check_layer(struct ts_in *in, const struct states *states)
{
    check_present(in, DTYPE_I64, 0, NULL);
    int64_t layer;
    ts_read(in, &layer, sizeof layer);
    if (layer != (int64_t)states->layer)
        die("%s: these are the states after layer %" PRId64 ", so continue with layer %" PRId64
            ", not %" PRIu64,
            ts_name(in), layer, layer + 1, states->layer + 1);
}

static void check_lengths(const struct forward *run, struct ts_in *in)
{
    check_present(in, DTYPE_I32, 1, &run->tokens->samples);
    int32_t *length = ts_read_all(in);
    for (uint64_t i = 0; i < run->tokens->samples; i++)
        if ((uint64_t)length[i] != length_of(run->tokens, i))
            die("%s: sample %" PRIu64 " had %" PRId32 " tokens, now %" PRIu64
                "; give the same tokens",
                ts_name(in), i, length[i], length_of(run->tokens, i));
    free(length);
}

static void check_digest(struct ts_in *in, const char *wanted, const char *what)
{
    char found[DIGEST_TEXT - 1];
    const uint64_t digits = sizeof found;
    check_present(in, DTYPE_U8, 1, &digits);
    ts_read(in, found, sizeof found);
    if (memcmp(found, wanted, sizeof found) != 0)
        die("%s: these states were made %s; give the same, or remove this file to start again",
            ts_name(in), what);
}

void states_check(const struct forward *run, struct ts_in *in)
{
    char hex[DIGEST_TEXT];
    check_digest(
        in, states_fingerprint(run, hex),
        "from other tokens, from another config.json, with other arithmetic, or for another "
        "recipe");
}

/* Read what the current tensor of `in` has of the hidden states, and clear its name; false if it is
 * another tensor. */
static bool read_states(const struct forward *run, struct ts_in *in, const struct states *states,
                        struct columns *columns, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (columns[i].name && !strcmp(ts_present(in)->name, columns[i].name)) {
            read_columns(run, in, states, &columns[i]);
            columns[i].name = NULL;
            return true;
        }
    return false;
}

void states_load(const struct forward *run, const struct states *states)
{
    struct ts_in *in = ts_open(run->states_in, NULL);
    struct columns columns[2];
    size_t count = columns_of(run, columns);
    bool needed = run->first <= run->last || run->mtp;
    for (const struct tensor *tensor; (tensor = ts_next(in));) {
        if (read_states(run, in, states, columns, count))
            continue;
        if (!strcmp(tensor->name, "layer")) {
            check_layer(in, states);
        } else if (!strcmp(tensor->name, "lengths")) {
            check_lengths(run, in);
        } else if (!strcmp(tensor->name, "fingerprint")) {
            states_check(run, in);
        } else if (!strcmp(tensor->name, "weights")) {
            check_digest(in, states->weights,
                         "with other weights than the previous layers have here");
        }
    }
    for (size_t i = 0; i < count && needed; i++)
        if (columns[i].name)
            die("%s: has no tensor %s; --states-out writes such a file", ts_name(in),
                columns[i].name);
    ts_close(in);
}

/* ---- writing ---- */

static void line(struct toc *toc, const char *name, enum dtype dtype, unsigned rank,
                 const uint64_t *dim)
{
    toc_append(toc, "states.safetensors", name, dtype, rank, dim);
}

static void write_columns(const struct forward *run, struct ts_out *out, struct offloaded hidden,
                          const struct columns *c)
{
    const struct tokens *tokens = run->tokens;
    struct device *d = run->device;
    uint64_t wide = hidden.all.cols;
    uint16_t *part = xalloc((size_t)(tokens->length * c->count), sizeof *part);
    uint16_t *whole = xalloc((size_t)(tokens->length * wide), sizeof *whole);
    ts_begin(out, c->name);
    for (uint64_t i = 0; i < tokens->samples; i++) {
        uint64_t first = tokens->start[i], length = length_of(tokens, i);
        struct mat rows = d->fetch(d, hidden, first, length);
        d->read(d, whole, rows);
        d->store(d, hidden, first, rows);
        copy_columns(whole, wide, part, c, length, true);
        memset(part + length * c->count, 0,
               (size_t)((tokens->length - length) * c->count) * sizeof *part);
        ts_write(out, part, (size_t)(tokens->length * c->count) * sizeof *part);
    }
    free(part);
    free(whole);
}

static struct toc *plan(const struct forward *run)
{
    const uint64_t digits = DIGEST_TEXT - 1;
    struct toc *toc = toc_new();
    struct columns columns[2];
    line(toc, "fingerprint", DTYPE_U8, 1, &digits);
    line(toc, "layer", DTYPE_I64, 0, NULL);
    line(toc, "weights", DTYPE_U8, 1, &digits);
    line(toc, "lengths", DTYPE_I32, 1, &run->tokens->samples);
    for (size_t i = 0, count = columns_of(run, columns); i < count; i++)
        line(toc, columns[i].name, DTYPE_BF16, columns[i].rank, columns[i].dim);
    return toc;
}

static void write_states(struct ts_out *out, const struct forward *run, const struct states *states)
{
    const struct tokens *tokens = run->tokens;
    char hex[DIGEST_TEXT];
    ts_put(out, "fingerprint", states_fingerprint(run, hex), DIGEST_TEXT - 1);
    int64_t layer = (int64_t)states->layer;
    ts_put(out, "layer", &layer, sizeof layer);
    ts_put(out, "weights", states->weights, DIGEST_TEXT - 1);
    int32_t *length = xalloc((size_t)tokens->samples, sizeof *length);
    for (uint64_t i = 0; i < tokens->samples; i++)
        length[i] = (int32_t)length_of(tokens, i);
    ts_put(out, "lengths", length, (size_t)tokens->samples * sizeof *length);
    free(length);
    struct columns columns[2];
    for (size_t i = 0, count = columns_of(run, columns); i < count; i++)
        write_columns(run, out, states->hidden, &columns[i]);
}

void states_save(const struct forward *run, const struct stage *stage, const char *path,
                 const struct states *states)
{
    struct stage file = {.output = path, .entry = stage->entry};
    struct toc *toc = plan(run);
    struct ts_out *out = ts_create(&file, NULL, toc);
    write_states(out, run, states);
    ts_finish(out, NULL, NULL);
    toc_free(toc);
}
