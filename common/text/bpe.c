#include "text/bpe.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/die.h"
#include "base/utf8.h"

enum {
    NONE = -1,
    WORD_BYTES = 30, /* largest piece that is cached */
    WORD_IDS = 8,
    WORDS = 1 << 16,
};

struct token {
    const char *bytes; /* NULL: no token has this id */
    uint32_t length;
    bool spelled; /* written in the alphabet: text can become this token */
};

struct merge {
    int32_t left, right, id; /* id NONE: an empty slot */
    uint32_t rank;
};

/* A cached piece. Words repeat, so most pieces are found here. */
struct word {
    uint8_t length, count; /* length 0: an empty slot */
    char bytes[WORD_BYTES];
    int32_t id[WORD_IDS];
};

struct symbol {
    int32_t id; /* NONE: merged into the previous one */
    uint32_t previous, next;
};

/* A possible merge at a symbol. */
struct candidate {
    uint32_t rank, at;
    int32_t id;
};

struct bpe {
    struct token *token; /* by id */
    uint32_t size;
    int32_t of_byte[256];
    struct merge *merge; /* a hash table */
    size_t merge_mask;
    int32_t *whole; /* ignore_merges: a hash table of ids by the token's bytes; or NULL */
    size_t whole_mask;
    struct word *word; /* one slot per hash value; the latest word stays */
    struct arena *arena;
    struct symbol *symbol; /* working memory */
    struct candidate *heap;
    size_t symbols_room, heap_count, heap_room;
};

static uint64_t hash_bytes(const char *bytes, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325 + length;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (uint8_t)bytes[i]) * 0x100000001b3;
    return hash ^ hash >> 29;
}

static uint64_t hash_pair(int32_t left, int32_t right)
{
    uint64_t hash = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15;
    return hash ^ hash >> 32;
}

/* ---- reading the model ---- */

uint32_t bpe_letter(unsigned char byte)
{
    static const struct {
        unsigned first, last;
    } other[] = {{0, 0x20}, {0x7f, 0xa0}, {0xad, 0xad}};
    uint32_t letter = 0x100;
    for (size_t i = 0; i < sizeof other / sizeof *other && byte >= other[i].first; i++) {
        if (byte <= other[i].last)
            return letter + byte - other[i].first;
        letter += other[i].last - other[i].first + 1;
    }
    return byte;
}

enum { LETTERS = 0x144 }; /* the highest letter + 1 */

/* Write the bytes that a token's text spells to out; false if it is not in the alphabet. */
static bool spell(const int16_t byte_of[LETTERS], const char *text, size_t length, char *out,
                  size_t *size)
{
    *size = 0;
    for (size_t at = 0; at < length;) {
        uint32_t letter = utf8_decode(text + at);
        if (letter >= LETTERS || byte_of[letter] < 0)
            return false;
        out[(*size)++] = (char)byte_of[letter];
        at += letter < 0x80 ? 1 : 2;
    }
    return true;
}

static char *read_vocabulary(struct bpe *bpe, const json_t *vocab)
{
    int16_t byte_of[LETTERS];
    memset(byte_of, 0xff, sizeof byte_of);
    for (unsigned byte = 0; byte < 256; byte++)
        byte_of[bpe_letter((unsigned char)byte)] = (int16_t)byte;

    const char *text;
    json_t *value;
    json_object_foreach((json_t *)vocab, text, value)
    {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : NONE;
        if (id < 0 || id >= BPE_IDS_MAX)
            return xprintf("vocab: the id of '%.40s' is not a number from 0 to %d", text,
                           BPE_IDS_MAX - 1);
        if ((uint32_t)id >= bpe->size)
            bpe->size = (uint32_t)id + 1;
    }
    bpe->token = xalloc(bpe->size, sizeof *bpe->token);
    char *bytes = NULL;
    char *error = NULL;
    json_object_foreach((json_t *)vocab, text, value)
    {
        struct token *token = &bpe->token[json_integer_value(value)];
        size_t length = strlen(text), size = 0;
        if (token->bytes) {
            error = xprintf("vocab: '%.40s' has the id of another token, %" JSON_INTEGER_FORMAT,
                            text, json_integer_value(value));
            break;
        }
        bytes = xgrow(bytes, length + 1, 1);
        token->spelled = length && spell(byte_of, text, length, bytes, &size);
        token->length = (uint32_t)(token->spelled ? size : length);
        token->bytes = arena_copy(bpe->arena, token->spelled ? bytes : text, token->length);
        if (token->spelled && size == 1)
            bpe->of_byte[(uint8_t)*bytes] = (int32_t)json_integer_value(value);
    }
    free(bytes);
    return error;
}

/* Every byte that occurs in UTF-8 must have a token. */
static char *check_bytes(const struct bpe *bpe)
{
    for (unsigned byte = 0; byte < 256; byte++)
        if (bpe->of_byte[byte] == NONE && byte != 0xc0 && byte != 0xc1 && byte < 0xf5)
            return xprintf("vocab: no token is byte 0x%02x; this is not a byte-level tokenizer",
                           byte);
    return NULL;
}

static struct merge *merge_slot(const struct bpe *bpe, int32_t left, int32_t right)
{
    size_t slot = hash_pair(left, right) & bpe->merge_mask;
    while (bpe->merge[slot].id != NONE &&
           (bpe->merge[slot].left != left || bpe->merge[slot].right != right))
        slot = (slot + 1) & bpe->merge_mask;
    return &bpe->merge[slot];
}

/* Split "a b" or ["a", "b"] into two texts; false if it is neither. */
static bool merge_parts(const json_t *item, const char **left, size_t *left_length,
                        const char **right)
{
    if (json_is_array(item) && json_array_size(item) == 2) {
        *left = json_string_value(json_array_get(item, 0));
        *right = json_string_value(json_array_get(item, 1));
        *left_length = *left ? strlen(*left) : 0;
        return *left && *right;
    }
    *left = json_string_value(item);
    const char *space = *left ? strchr(*left, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return false;
    *left_length = (size_t)(space - *left);
    *right = space + 1;
    return true;
}

static int32_t id_of(const json_t *vocab, const char *text)
{
    const json_t *id = json_object_get(vocab, text);
    return id ? (int32_t)json_integer_value(id) : NONE;
}

static char *read_merges(struct bpe *bpe, const json_t *vocab, const json_t *merges)
{
    size_t count = json_array_size(merges), slots = 2;
    while (slots < 2 * count)
        slots *= 2;
    bpe->merge = xgrow(NULL, slots, sizeof *bpe->merge);
    bpe->merge_mask = slots - 1;
    for (size_t i = 0; i < slots; i++)
        bpe->merge[i].id = NONE;
    for (size_t i = 0; i < count; i++) {
        const char *left, *right;
        size_t left_length;
        if (!merge_parts(json_array_get(merges, i), &left, &left_length, &right))
            return xprintf("merges[%zu]: wanted \"a b\" or [\"a\", \"b\"]", i);
        char *joined = xprintf("%.*s%s", (int)left_length, left, right);
        char *first = xprintf("%.*s", (int)left_length, left);
        int32_t a = id_of(vocab, first), b = id_of(vocab, right), id = id_of(vocab, joined);
        free(first);
        free(joined);
        if (a == NONE || b == NONE || id == NONE)
            return xprintf("merges[%zu]: '%.*s' and '%.40s', or both together, are not in vocab", i,
                           left_length < 40 ? (int)left_length : 40, left, right);
        *merge_slot(bpe, a, b) = (struct merge){a, b, id, (uint32_t)i}; /* the last one wins */
    }
    return NULL;
}

/* The slot of a token by its bytes; holds its id or NONE. */
static int32_t *whole_slot(const struct bpe *bpe, const char *bytes, size_t length)
{
    size_t slot = hash_bytes(bytes, length) & bpe->whole_mask;
    for (int32_t id; (id = bpe->whole[slot]) != NONE; slot = (slot + 1) & bpe->whole_mask)
        if (bpe->token[id].length == length && !memcmp(bpe->token[id].bytes, bytes, length))
            break;
    return &bpe->whole[slot];
}

static void index_whole(struct bpe *bpe)
{
    size_t slots = 2;
    while (slots < 2 * (size_t)bpe->size)
        slots *= 2;
    bpe->whole = xgrow(NULL, slots, sizeof *bpe->whole);
    bpe->whole_mask = slots - 1;
    memset(bpe->whole, 0xff, slots * sizeof *bpe->whole);
    for (uint32_t id = 0; id < bpe->size; id++)
        if (bpe->token[id].spelled)
            *whole_slot(bpe, bpe->token[id].bytes, bpe->token[id].length) = (int32_t)id;
}

/* Refuse features of BPE that byte-level tokenizers do not use. */
static char *check_plain(const json_t *model)
{
    static const char *const off[] = {"dropout", "unk_token", "continuing_subword_prefix",
                                      "end_of_word_suffix", "byte_fallback"};
    const char *type = json_string_value(json_object_get(model, "type"));
    if (type && strcmp(type, "BPE") != 0)
        return xprintf("model: wanted BPE, got '%.40s'", type);
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        const json_t *value = json_object_get(model, off[i]);
        bool empty = !value || json_is_null(value) || json_is_false(value) ||
                     (json_is_number(value) && json_number_value(value) == 0) ||
                     (json_is_string(value) && json_string_length(value) == 0);
        if (!empty)
            return xprintf("model: %s is not supported", off[i]);
    }
    if (!json_is_object(json_object_get(model, "vocab")) ||
        !json_is_array(json_object_get(model, "merges")))
        return xprintf("model: wanted an object 'vocab' and an array 'merges'");
    return NULL;
}

char *bpe_new(struct bpe **out, const json_t *model)
{
    struct bpe *bpe = *out = xalloc(1, sizeof *bpe);
    const json_t *vocab = json_object_get(model, "vocab"),
                 *merges = json_object_get(model, "merges");
    bpe->arena = arena_new();
    bpe->word = xalloc(WORDS, sizeof *bpe->word);
    memset(bpe->of_byte, 0xff, sizeof bpe->of_byte);
    char *error = check_plain(model);
    if (!error)
        error = read_vocabulary(bpe, vocab);
    if (!error)
        error = check_bytes(bpe);
    if (!error)
        error = read_merges(bpe, vocab, merges);
    if (!error && json_is_true(json_object_get(model, "ignore_merges")))
        index_whole(bpe);
    return error;
}

void bpe_free(struct bpe *bpe)
{
    if (!bpe)
        return;
    arena_free(bpe->arena);
    free(bpe->token);
    free(bpe->merge);
    free(bpe->whole);
    free(bpe->word);
    free(bpe->symbol);
    free(bpe->heap);
    free(bpe);
}

/* ---- merging ---- */

/* The reference's order: better rank first, then left to right. */
static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(struct bpe *bpe, struct candidate new)
{
    if (bpe->heap_count == bpe->heap_room) {
        bpe->heap_room = bpe->heap_room ? 2 * bpe->heap_room : 256;
        bpe->heap = xgrow(bpe->heap, bpe->heap_room, sizeof *bpe->heap);
    }
    size_t i = bpe->heap_count++;
    for (; i > 0 && before(&new, &bpe->heap[(i - 1) / 2]); i = (i - 1) / 2)
        bpe->heap[i] = bpe->heap[(i - 1) / 2];
    bpe->heap[i] = new;
}

static struct candidate heap_pop(struct bpe *bpe)
{
    struct candidate top = bpe->heap[0], last = bpe->heap[--bpe->heap_count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < bpe->heap_count; i = child) {
        child += child + 1 < bpe->heap_count && before(&bpe->heap[child + 1], &bpe->heap[child]);
        if (!before(&bpe->heap[child], &last))
            break;
        bpe->heap[i] = bpe->heap[child];
    }
    bpe->heap[i] = last;
    return top;
}

/* The merge of symbol `at` with the next of the `count` symbols; NULL if there is none. */
static const struct merge *merge_at(const struct bpe *bpe, uint32_t at, uint32_t count)
{
    uint32_t next = bpe->symbol[at].next;
    if (next == count)
        return NULL;
    const struct merge *merge = merge_slot(bpe, bpe->symbol[at].id, bpe->symbol[next].id);
    return merge->id == NONE ? NULL : merge;
}

static void propose(struct bpe *bpe, uint32_t at, uint32_t count)
{
    const struct merge *merge = merge_at(bpe, at, count);
    if (merge)
        heap_push(bpe, (struct candidate){merge->rank, at, merge->id});
}

static void merge_all(struct bpe *bpe, const char *piece, uint32_t count, struct ids *ids)
{
    if (count > bpe->symbols_room) {
        bpe->symbols_room = count;
        bpe->symbol = xgrow(bpe->symbol, count, sizeof *bpe->symbol);
    }
    struct symbol *symbol = bpe->symbol;
    for (uint32_t i = 0; i < count; i++)
        symbol[i] = (struct symbol){bpe->of_byte[(uint8_t)piece[i]], i - 1, i + 1};
    for (uint32_t i = 0; i < count; i++)
        propose(bpe, i, count);
    while (bpe->heap_count) {
        struct candidate top = heap_pop(bpe);
        const struct merge *merge = NULL;
        if (symbol[top.at].id != NONE)
            merge = merge_at(bpe, top.at, count);
        /* The candidate may be outdated. Two pairs can form the same token; then either will do, as
         * in the reference. */
        if (!merge || merge->id != top.id)
            continue;
        struct symbol *left = &symbol[top.at], *right = &symbol[left->next];
        left->id = merge->id;
        left->next = right->next;
        right->id = NONE;
        if (left->next < count)
            symbol[left->next].previous = top.at;
        if (top.at > 0)
            propose(bpe, left->previous, count);
        propose(bpe, top.at, count);
    }
    for (uint32_t i = 0; i < count; i = symbol[i].next)
        ids_add(ids, symbol[i].id);
}

static void encode_word(struct bpe *bpe, const char *piece, size_t length, struct ids *ids)
{
    int32_t whole = bpe->whole ? *whole_slot(bpe, piece, length) : NONE;
    if (whole != NONE)
        ids_add(ids, whole);
    else
        merge_all(bpe, piece, (uint32_t)length, ids);
}

void bpe_encode(struct bpe *bpe, const char *piece, size_t length, struct ids *ids)
{
    if (length > WORD_BYTES) {
        encode_word(bpe, piece, length, ids);
        return;
    }
    struct word *word = &bpe->word[hash_bytes(piece, length) % WORDS];
    if (word->length == length && !memcmp(word->bytes, piece, length)) {
        for (size_t i = 0; i < word->count; i++)
            ids_add(ids, word->id[i]);
        return;
    }
    size_t first = ids->count;
    encode_word(bpe, piece, length, ids);
    size_t count = ids->count - first;
    if (count <= WORD_IDS) {
        word->length = (uint8_t)length;
        word->count = (uint8_t)count;
        memcpy(word->bytes, piece, length);
        memcpy(word->id, ids->id + first, count * sizeof *word->id);
    }
}

const char *bpe_bytes(const struct bpe *bpe, uint32_t id, size_t *length)
{
    if (id >= bpe->size || !bpe->token[id].bytes)
        return NULL;
    *length = bpe->token[id].length;
    return bpe->token[id].bytes;
}

uint32_t bpe_size(const struct bpe *bpe)
{
    return bpe->size;
}
