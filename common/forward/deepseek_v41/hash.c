#include "forward/deepseek_v41/hash.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/die.h"
#include "text/token_classes.h"

/* Far beyond what releases have; that each range has a prime of its own is found in a time that
 * grows with the square of their number. */
enum { TABLES_MOST = 16, NGRAM_MOST = 8, HEADS_MOST = 32 };

/* ---- constants ---- */

static bool is_prime(uint64_t n)
{
    for (uint64_t i = 2; i * i <= n; i++)
        if (n % i == 0)
            return false;
    return n > 1;
}

static bool is_taken(const struct engram *engram, uint64_t layer, uint64_t columns, uint64_t n)
{
    for (uint64_t l = 0; l <= layer; l++)
        for (uint64_t i = 0; i < (l < layer ? engram_columns(engram) : columns); i++)
            if (engram->hash[l].prime[i] == n)
                return true;
    return false;
}

/* Every range of every table has a prime of its own, the first from `least` on. */
static void find_primes(struct engram *engram, uint64_t layer, uint64_t least)
{
    struct engram_hash *hash = &engram->hash[layer];
    uint64_t columns = engram_columns(engram), sum = 0;
    hash->prime = xalloc((size_t)columns, sizeof *hash->prime);
    for (uint64_t i = 0; i < columns; i++) {
        uint64_t n = i % engram->heads ? hash->prime[i - 1] + 1 : least;
        while (!is_prime(n) || is_taken(engram, layer, i, n))
            n++;
        hash->prime[i] = n;
        sum += n;
    }
    if (sum != hash->rows)
        die("layer %" PRIu64 "'s Engram table: engram_num_embeddings is %" PRIu64
            ", but the sizes of its ranges add up to %" PRIu64
            "; is config.json as the release has it?",
            hash->layer, hash->rows, sum);
}

/* Odd, and small enough that a class times it is below 2^63. */
static void find_multipliers(const struct engram *engram, struct engram_hash *hash,
                             uint64_t classes)
{
    hash->multiplier = xalloc((size_t)engram->ngram, sizeof *hash->multiplier);
    engram_random(10007 * hash->layer, INT64_MAX / classes / 2, hash->multiplier, engram->ngram);
    for (uint64_t i = 0; i < engram->ngram; i++)
        hash->multiplier[i] = 2 * hash->multiplier[i] + 1;
}

/* ---- opening ---- */

static struct tokenizer *tokenizer_of(struct ts_in *in)
{
    struct tokenizer *tokenizer;
    uint64_t size;
    int64_t i = ts_file_find(in, "tokenizer.json");
    if (i < 0)
        die("%s: no tokenizer.json in it; Engram tables are looked up by what tokens spell",
            ts_name(in));
    (void)ts_file(in, (size_t)i, &size);
    char *text = ts_file_read(in, (size_t)i);
    char *error = tokenizer_parse(&tokenizer, text, (size_t)size);
    if (error)
        die("%s: tokenizer.json: %s", ts_name(in), error);
    free(text);
    return tokenizer;
}

static void read_classes(struct engram *engram, const struct config *config, struct ts_in *in)
{
    uint64_t vocabulary = config_size(config, "vocab_size");
    uint64_t wanted = config_size(config, "engram_compressed_vocab_size");
    uint64_t pad = config_count(config, "engram_pad_token_id", 0);
    struct tokenizer *tokenizer = tokenizer_of(in);
    engram->class = xalloc((size_t)vocabulary, sizeof *engram->class);
    uint64_t classes = token_classes(tokenizer, engram->class, vocabulary);
    if (classes != wanted)
        die("%s: the tokens of tokenizer.json make %" PRIu64
            " classes, config.json's engram_compressed_vocab_size is %" PRIu64
            ": use the tokenizer.json of the release",
            ts_name(in), classes, wanted);
    config_check(config, pad < vocabulary && engram->class[pad] >= 0,
                 "engram_pad_token_id: there is no such token");
    engram->pad = engram->class[pad];
    tokenizer_free(tokenizer);
}

void engram_open(struct engram *engram, const struct config *config, struct ts_in *in)
{
    uint64_t layers = json_array_size(config_member(config, "engram_layer_ids"));
    *engram = (struct engram){.layers = layers};
    if (!layers)
        return;
    config_check(config, layers <= TABLES_MOST, "engram_layer_ids: more than 16 Engram tables");
    engram->ngram = config_within(config, "engram_max_ngram_size", 2, NGRAM_MOST);
    engram->heads = config_within(config, "engram_n_heads", 1, HEADS_MOST);
    engram->dim = config_size(config, "engram_head_dim");
    uint64_t *id = config_list(config, "engram_layer_ids", layers, "one per Engram table");
    const json_t *rows = config_member(config, "engram_num_embeddings");
    read_classes(engram, config, in);
    engram->hash = xalloc((size_t)layers, sizeof *engram->hash);
    for (uint64_t i = 0; i < layers; i++) {
        engram->hash[i].layer = id[i];
        engram->hash[i].rows = (uint64_t)json_integer_value(json_array_get(rows, (size_t)i));
        config_check(config, engram->hash[i].rows <= INT32_MAX,
                     "engram_num_embeddings: a table has more than 2147483647 rows");
        find_primes(engram, i, config_size(config, "engram_vocab_size"));
        find_multipliers(engram, &engram->hash[i],
                         config_size(config, "engram_compressed_vocab_size"));
    }
    free(id);
}

void engram_close(struct engram *engram)
{
    for (uint64_t i = 0; i < engram->layers; i++) {
        free(engram->hash[i].prime);
        free(engram->hash[i].multiplier);
    }
    free(engram->hash);
    free(engram->class);
}

const struct engram_hash *engram_hash_of(const struct engram *engram, uint64_t layer)
{
    for (uint64_t i = 0; i < engram->layers; i++)
        if (engram->hash[i].layer == layer)
            return &engram->hash[i];
    return NULL;
}

/* ---- hashing ---- */

static uint64_t class_before(const struct engram *engram, const int32_t *id, uint64_t token,
                             uint64_t back)
{
    if (token < back)
        return (uint64_t)engram->pad;
    int32_t class = engram->class[id[token - back]];
    if (class < 0)
        die("token %" PRId32 " is not in tokenizer.json, so that Engram cannot look it up",
            id[token - back]);
    return (uint64_t) class;
}

void engram_rows(const struct engram *engram, const struct engram_hash *hash, const int32_t *id,
                 uint64_t first, uint64_t count, int32_t *row)
{
    for (uint64_t token = first; token < first + count; token++) {
        uint64_t mixed = class_before(engram, id, token, 0) * hash->multiplier[0], offset = 0;
        const uint64_t *prime = hash->prime;
        for (uint64_t back = 1; back < engram->ngram; back++) {
            mixed ^= class_before(engram, id, token, back) * hash->multiplier[back];
            for (uint64_t head = 0; head < engram->heads; head++) {
                *row++ = (int32_t)(mixed % *prime + offset);
                offset += *prime++;
            }
        }
    }
}
