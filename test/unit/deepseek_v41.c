/* DeepSeek-V4.1: Engram's numbers, and the steps of its layers where they are not V4's. */
#define STEPS "test/data/v41-tiny/golden/steps-golden.safetensors"
#define IDS "test/data/v41-tiny/golden/eval-ids.safetensors"
#define CHECKPOINT "test/data/v41-tiny/ckpt"
#include "steps.h"

#include "base/utf8.h"
#include "forward/deepseek_v41/deepseek_v41.h"
#include "text/token_classes.h"

/* ---- Engram's numbers ---- */

/* Those of numpy.random.default_rng(10007 * layer).integers(0, bound, 4), twice and plus one: the
 * release's. */
static void multipliers_are_numpys(void **state)
{
    (void)state;
    static const struct {
        uint64_t layer, number[4];
    } want[] = {
        {1, {76632096046245, 4839876093313, 35959672319349, 73987337458391}},
        {14, {67716810739261, 51510806800915, 30921347202721, 82619226485591}},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        uint64_t number[4];
        engram_random(10007 * want[i].layer, INT64_MAX / 99092 / 2, number, 4);
        for (int j = 0; j < 4; j++)
            assert_int_equal(2 * number[j] + 1, want[i].number[j]);
    }
}

/* The released tables, with the classes of the small tokenizer: sizes come from config.json. */
static void released_tables_add_up(void **state)
{
    (void)state;
    static const int32_t id[] = {0, 1, 2};
    static const int32_t want[][2] = {
        {5702652, 24393184}, {15045429, 21677224}, {1537838, 25334859}};
    struct ts_in *in = ts_open(CHECKPOINT, NULL);
    struct config config;
    config_open(&config, in);
    json_t *own = config.json;
    config.json = json_deep_copy(own);
    json_t *more = json_pack("{s:[i,i], s:[i,i], s:i, s:i}", "engram_layer_ids", 1, 14,
                             "engram_num_embeddings", 384006168, 384016682, "engram_vocab_size",
                             16000000, "engram_n_heads", 8);
    json_object_update(config.json, more);
    struct engram engram;
    engram_open(&engram, &config, in); /* dies unless the primes add up */
    static const uint64_t released[] = {76632096046245, 4839876093313, 35959672319349,
                                        73987337458391};
    for (int32_t i = 0; i < 3; i++)
        engram.class[i] = i;
    engram.pad = 2;
    memcpy(engram.hash[0].multiplier, released, sizeof released);
    int32_t row[3][24];
    engram_rows(&engram, &engram.hash[0], id, 0, 3, row[0]);
    for (int i = 0; i < 3; i++)
        assert_memory_equal(row[i], want[i], sizeof want[i]);
    engram_close(&engram);
    json_decref(more);
    json_decref(config.json);
    config.json = own;
    config_close(&config);
    ts_close(in);
}

static void classes_and_rows_are_the_references(void **state)
{
    (void)state;
    const void *want;
    struct ts_in *in = ts_open(CHECKPOINT, NULL);
    struct config config;
    struct engram engram;
    struct tokens tokens;
    config_open(&config, in);
    engram_open(&engram, &config, in);
    const struct tensor *classes = find("", "engram.classes", &want);
    assert_memory_equal(engram.class, want, classes->size);
    tokens_load(&tokens, IDS, classes->dim[0], 1, 1);
    for (uint64_t i = 0; i < engram.layers; i++) {
        char *prefix = xprintf("layers.%d.", (int)engram.hash[i].layer);
        const struct tensor *rows = find(prefix, "engram.rows", &want);
        int32_t *row = xalloc((size_t)rows->size, 1);
        uint64_t half = tokens.length / 2, columns = engram_columns(&engram);
        engram_rows(&engram, &engram.hash[i], tokens.id, 0, half, row);
        engram_rows(&engram, &engram.hash[i], tokens.id, half, tokens.length - half,
                    row + half * columns);
        assert_memory_equal(row, want, rows->size);
        free(row);
        free(prefix);
    }
    tokens_free(&tokens);
    engram_close(&engram);
    config_close(&config);
    ts_close(in);
}

/* A tokenizer with these tokens, in the order of their ids, and then those of the bytes. */
static struct tokenizer *tokenizer_with(const char *const *token, size_t count)
{
    json_t *added = json_array(), *vocab = json_object();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)i,
                                               "content", token[i], "single_word", 0, "lstrip", 0,
                                               "rstrip", 0, "normalized", 0, "special", 1));
    for (unsigned byte = 0; byte < 256; byte++) {
        char letter[5] = {0};
        utf8_put(bpe_letter((unsigned char)byte), letter);
        json_object_set_new(vocab, letter, json_integer((json_int_t)count + byte));
    }
    json_t *all =
        json_pack("{s:o, s:{s:s, s:o, s:[]}, s:{s:s}}", "added_tokens", added, "model", "type",
                  "BPE", "vocab", vocab, "merges", "pre_tokenizer", "type", "ByteLevel");
    char *text = json_dumps(all, 0);
    struct tokenizer *tokenizer;
    char *error = tokenizer_parse(&tokenizer, text, strlen(text));
    if (error)
        fail_msg("%s", error);
    json_decref(all);
    free(text);
    return tokenizer;
}

/* What Hugging Face's normalizers make of them; each line of tokens is a class. */
static void tokens_that_normalize_alike_are_a_class(void **state)
{
    (void)state;
    static const char *const token[] = {
        " The",     "the",
        "THE",      " the  ", /* 0 */
        "x\u00e9",  "xe",
        "Xe",       "xe\u0301",
        "X\u00c9", /* 1 */
        " ",        "\n",
        "\t",       "  ",
        " \r\n",          /* 2: one space */
        "\ufb01",   "fi", /* 3 */
        "\u2460.",  "1.",
        " 1.",                        /* 4 */
        "\u0301",                     /* 5: else nothing is left */
        "\ufffd",                     /* 6 */
        " \ufffd",                    /* 7: as it is written */
        "a b",      "A\t \nb",        /* 8 */
        "\u3000xy", "\u00a0XY\u2003", /* 9: stripped */
        "\x1f",     "\x1f\x1f",       /* 10, 11: no white space */
    };
    static const int32_t want[] = {0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2,  2,
                                   3, 3, 4, 4, 4, 5, 6, 7, 8, 8, 9, 9, 10, 11};
    enum { COUNT = sizeof token / sizeof *token };
    int32_t class[COUNT + 257];
    struct tokenizer *tokenizer = tokenizer_with(token, COUNT);
    assert_true(token_classes(tokenizer, class, COUNT + 257) > 12);
    for (size_t i = 0; i < COUNT; i++)
        if (class[i] != want[i])
            fail_msg("token %d has class %d, wanted %d", (int)i, class[i], want[i]);
    assert_int_equal(class[COUNT + 'E'], class[COUNT + 'e']);
    assert_true(class[COUNT + 0xc9] != class[COUNT + 'e']); /* an incomplete character */
    assert_int_equal(class[COUNT + 256], -1);               /* no token */
    tokenizer_free(tokenizer);
}

/* ---- steps ---- */

/* What the layers before `number` left, from the goldens: [rows, columns of hidden states]. */
static struct mat hidden_before(const struct v41 *v41, uint64_t number)
{
    const struct network *n = &v41->v4.network;
    char *before = number ? xprintf("layers.%d.", (int)number - 1) : xstrdup("layers.0.");
    struct mat copies = golden_mat(before, number ? "output" : "input");
    struct mat hidden = device->make(device, DTYPE_BF16, copies.rows, network_columns(n));
    v41_carried_begin(v41, hidden);
    const struct v41_carried carried = v41_carried(v41, hidden);
    device->copy(device, carried.copies, copies);
    device->drop(device, copies);
    if (number) {
        struct mat pre = golden_mat(before, "pre");
        device->copy(device, carried.pre, pre);
        device->drop(device, pre);
    }
    free(before);
    return hidden;
}

/* Put golden rows into the first rows of `to`, as F32 where they are numbers. */
static void put(struct mat to, const char *prefix, const char *name)
{
    struct mat from = golden_mat(prefix, name);
    struct mat rows = mat_rows(mat_cols(to, 0, from.cols), 0, from.rows);
    if (from.dtype == DTYPE_I32)
        device->copy(device, mat_as(rows, DTYPE_F32), mat_as(from, DTYPE_F32));
    else
        device->copy(device, rows, from);
    device->drop(device, from);
}

/* A contiguous copy of some rows. */
static struct mat whole(struct mat m, uint64_t rows)
{
    struct mat copy = device->make(device, m.dtype, rows, m.cols);
    struct mat from = mat_rows(m, 0, rows);
    if (m.dtype == DTYPE_I32)
        device->copy(device, mat_as(copy, DTYPE_F32), mat_as(from, DTYPE_F32));
    else
        device->copy(device, copy, from);
    return copy;
}

static void expect_rows(struct mat got, const char *prefix, const char *name)
{
    const void *want;
    struct mat rows = whole(got, find(prefix, name, &want)->dim[0]);
    expect(rows, prefix, name);
    device->drop(device, rows);
}

/* The last layer up to `number` that is a source; its prefix, which the caller frees. */
static char *last_source(const bool *source, uint64_t number)
{
    while (!source[number])
        number--;
    return xprintf("layers.%d.", (int)number);
}

/* Keys and selection, made here or by an earlier layer, as far as they are needed next. */
static void test_sources(struct loaded *l, const struct v41_batch *batch,
                         const struct v41_carried *carried, const char *prefix, struct mat x,
                         struct mat low)
{
    const struct v41 *v41 = v41_of(l->network);
    uint64_t number = l->layer.number;
    char *keys = last_source(v41->key_source, number);
    char *selection = last_source(v41->index_source, number);
    if (v41->key_source[number]) {
        v41_make_keys(v41, &l->layer, batch, carried, x);
        expect_rows(carried->key, prefix, "attn.compressed");
        expect_rows(carried->index_key, prefix, "attn.index.key");
    }
    put(carried->key, keys, "attn.compressed");
    put(carried->index_key, keys, "attn.index.key");
    if (v41->index_source[number]) {
        v41_select(v41, &l->layer, batch, carried, x, low);
        struct mat got = whole(carried->selected, x.rows);
        struct sets sets = compare_sets(got, prefix, "attn.selected", 0);
        print_message("%sattn.selected: %d of %d sets differ\n", prefix, (int)sets.differing,
                      (int)sets.rows);
        assert_true(sets.differing * 20 <= sets.rows); /* by ties of scores in BF16 */
        free_sets(&sets);
        device->drop(device, got);
    }
    put(carried->selected, selection, "attn.selected");
    free(keys);
    free(selection);
}

static void test_attention(struct loaded *l, const struct v41_batch *batch,
                           const struct v41_carried *carried, const char *prefix)
{
    const struct v4_config *c = &l->v4->config;
    struct mat x = golden_mat(prefix, "attn_norm"), low = like(x, c->q_rank);
    struct mat q = like(x, c->heads * c->head_dim), kv = like(x, c->head_dim), o = like(q, q.cols);
    struct mat golden_q = golden_mat(prefix, "attn.q"), golden_kv = golden_mat(prefix, "attn.kv");
    struct mat golden_o = golden_o_rotated(l->v4, &l->layer, &batch->v4, prefix);
    struct mat y = like(x, x.cols);
    v4_project(l->v4, &l->layer, &batch->v4, low, q, kv, x);
    expect(q, prefix, "attn.q");
    expect(kv, prefix, "attn.kv");
    uint64_t ratio = v4_ratio(&l->layer);
    if (ratio)
        test_sources(l, batch, carried, prefix, x, low);
    v4_attend(l->v4, &l->layer, &batch->v4, o, golden_q, golden_kv, carried->key,
              mat_cols(carried->selected, 0, ratio ? carried->selected.cols : 0));
    expect_mat(o, golden_o, "attn.o");
    v4_output(l->v4, &l->layer, y, golden_o);
    expect(y, prefix, "attn");
    const struct mat mats[] = {x, low, q, kv, o, golden_q, golden_kv, golden_o, y};
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
        device->drop(device, mats[i]);
}

static void test_engram(struct loaded *l, const char *prefix, struct mat copies,
                        const uint64_t *start, const int32_t *id)
{
    struct mat after = whole(copies, copies.rows);
    v41_engram(v41_of(l->network), &l->layer, after, start, 1, id);
    expect(after, prefix, "engram.output");
    device->drop(device, after);
}

/* All up to the experts, on the golden results of the layers before, and the weights that go on. */
static void test_half(struct loaded *l, const char *prefix, struct mat hidden,
                      const uint64_t *start, const int32_t *id)
{
    const struct network *n = l->network;
    struct mat x = like(hidden, n->dim);
    struct mat kept = device->make(device, DTYPE_F32, hidden.rows, n->kept);
    n->attention(n, &l->layer, hidden, x, kept, start, 1, id);
    expect(x, prefix, "ffn_norm");
    struct mat pre = whole(v41_carried(v41_of(n), hidden).pre, hidden.rows);
    const void *want;
    find(prefix, "pre", &want);
    expect_f32(pre, want, "pre", 2e-3F); /* of hidden states that may be a unit off */
    struct mat y = like(x, x.cols), golden_x = golden_mat(prefix, "ffn_norm");
    v4_shared(n, &l->layer, y, golden_x);
    expect(y, prefix, "ffn.shared");
    const struct mat mats[] = {x, kept, pre, y, golden_x};
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
        device->drop(device, mats[i]);
}

static void test_layer(uint64_t number)
{
    need_device(device);
    struct tokens tokens;
    struct loaded l;
    struct v41_batch batch;
    char *prefix = xprintf("layers.%d.", (int)number);
    load(&l, number, prefix);
    const struct v41 *v41 = v41_of(l.network);
    tokens_load(&tokens, IDS, l.network->vocabulary, 1, 1);
    struct mat hidden = hidden_before(v41, number);
    const struct v41_carried carried = v41_carried(v41, hidden);
    v41_batch_begin(v41, &batch, tokens.start, 1, v4_ratio(&l.layer));
    if (engram_hash_of(&v41->engram, number))
        test_engram(&l, prefix, carried.copies, tokens.start, tokens.id);
    test_attention(&l, &batch, &carried, prefix);
    v41_batch_end(v41, &batch);
    test_half(&l, prefix, hidden, tokens.start, tokens.id);
    device->drop(device, hidden);
    tokens_free(&tokens);
    unload(&l);
    free(prefix);
}

static void sliding_window(void **state)
{
    (void)state;
    test_layer(0);
}

static void sliding_window_with_engram(void **state)
{
    (void)state;
    test_layer(1);
}

static void blocks_of_2(void **state)
{
    (void)state;
    test_layer(2);
}

static void blocks_of_2_of_an_earlier_layer(void **state)
{
    (void)state;
    test_layer(3);
}

static void blocks_of_2_with_engram(void **state)
{
    (void)state;
    test_layer(4);
}

static void blocks_of_1(void **state)
{
    (void)state;
    test_layer(5);
}

static void blocks_of_1_of_an_earlier_layer(void **state)
{
    (void)state;
    test_layer(6);
}

static void another_selection_of_an_earlier_layers_blocks(void **state)
{
    (void)state;
    test_layer(7);
}

int main(void)
{
    const struct CMUnitTest numbers[] = {
        cmocka_unit_test(multipliers_are_numpys),
        cmocka_unit_test(released_tables_add_up),
        cmocka_unit_test(tokens_that_normalize_alike_are_a_class),
        cmocka_unit_test(classes_and_rows_are_the_references),
    };
    const struct CMUnitTest layers[] = {
        cmocka_unit_test(sliding_window),
        cmocka_unit_test(sliding_window_with_engram),
        cmocka_unit_test(blocks_of_2),
        cmocka_unit_test(blocks_of_2_of_an_earlier_layer),
        cmocka_unit_test(blocks_of_2_with_engram),
        cmocka_unit_test(blocks_of_1),
        cmocka_unit_test(blocks_of_1_of_an_earlier_layer),
        cmocka_unit_test(another_selection_of_an_earlier_layers_blocks),
    };
    return cmocka_run_group_tests(numbers, open_all, close_all) +
           run_on_devices(&device, layers, open_all, close_all);
}
