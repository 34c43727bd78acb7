/* The steps of DeepSeek-V4's layers, one by one: with what the official model has before a step,
 * ours gives what it has behind it. */
#define STEPS "test/data/v4-nano/golden/steps-golden.safetensors"
#define IDS "test/data/v4-nano/golden/eval-ids.safetensors"
#define CHECKPOINT "test/data/v4-nano/ckpt"
#include "steps.h"

/* ---- steps ---- */

static void test_mix(struct loaded *l, enum v4_piece hc, const char *prefix, const char *name,
                     struct mat input)
{
    uint64_t copies = l->network->copies;
    struct mat y = like(input, l->network->dim);
    struct mat post = device->make(device, DTYPE_F32, input.rows, copies);
    struct mat comb = device->make(device, DTYPE_F32, input.rows, copies * copies);
    v4_hc_in(l->v4, &l->layer, hc, y, post, comb, input);
    char *path = xprintf("%s%s.", prefix, name);
    expect(y, path, "y");
    float off =
        l->layer.number >= l->network->layers && strcmp(device->name, "cpu") != 0 ? ROUNDED : EXACT;
    expect_within(post, path, "post", off);
    expect_within(comb, path, "comb", off);
    free(path);
    device->drop(device, y);
    device->drop(device, post);
    device->drop(device, comb);
}

static bool holds(const int32_t *set, uint64_t count, int32_t number)
{
    return bsearch(&number, set, (size_t)count, sizeof number, by_number) != NULL;
}

/* The indexer's score of one block for one token, in double; its queries, keys and weights are in
 * the host's memory. */
static double index_score(const struct v4_config *c, const uint16_t *q, const uint16_t *key,
                          const uint16_t *weight)
{
    double score = 0;
    for (uint64_t h = 0; h < c->index_heads; h++) {
        double product = 0;
        for (uint64_t i = 0; i < c->index_dim; i++)
            product += (double)bf16_to_f32(q[h * c->index_dim + i]) * (double)bf16_to_f32(key[i]);
        score += fmax(product, 0) * (double)bf16_to_f32(weight[h]);
    }
    return score;
}

/* Sets of selected blocks are equal, or what they differ in has equal scores: as far as steps in
 * BF16 can tell, two units in the last place of a sum of magnitude `most`. */
static void expect_selected(struct loaded *l, const struct v4_batch *batch, struct mat selected,
                            const char *prefix, struct mat x, struct mat low)
{
    const struct v4_config *c = &l->v4->config;
    struct sets sets = compare_sets(selected, prefix, "attn.indexed", (int32_t)x.rows);
    struct mat q = like(x, c->index_heads * c->index_dim), weight = like(x, c->index_heads);
    struct mat key = device->make(device, DTYPE_BF16, batch->blocks, c->index_dim);
    v4_index_parts(l->v4, &l->layer, batch, q, key, weight, x, low);
    uint16_t *host_q = read_bf16(q), *host_key = read_bf16(key), *host_weight = read_bf16(weight);
    for (uint64_t i = 0; i < sets.rows; i++) {
        const int32_t *got = sets.got + i * sets.cols, *want = sets.want + i * sets.cols;
        double best_left = -INFINITY, worst_taken = INFINITY;
        for (uint64_t j = 0; j < sets.cols; j++) {
            assert_int_equal(got[j] < 0, want[j] < 0);
            const uint16_t *own_q = host_q + i * q.cols,
                           *own_weight = host_weight + i * weight.cols;
            if (want[j] >= 0 && !holds(got, sets.cols, want[j]))
                best_left =
                    fmax(best_left, index_score(c, own_q, host_key + (uint64_t)want[j] * key.cols,
                                                own_weight));
            if (got[j] >= 0 && !holds(want, sets.cols, got[j]))
                worst_taken =
                    fmin(worst_taken,
                         index_score(c, own_q, host_key + (uint64_t)got[j] * key.cols, own_weight));
        }
        if (best_left > worst_taken + fabs(worst_taken) * 0x1p-7)
            fail_msg("%s: token %d: a block of score %g was left for one of %g", prefix, (int)i,
                     best_left, worst_taken);
    }
    print_message("%sattn.indexed: %d of %d sets differ, by ties\n", prefix, (int)sets.differing,
                  (int)sets.rows);
    free(host_q);
    free(host_key);
    free(host_weight);
    device->drop(device, q);
    device->drop(device, key);
    device->drop(device, weight);
    free_sets(&sets);
}

static void test_attention(struct loaded *l, const char *prefix, struct mat x,
                           const struct v4_batch *batch)
{
    const struct v4_config *c = &l->v4->config;
    const struct v4 *v4 = l->v4;
    struct mat low = like(x, c->q_rank), q = like(x, c->heads * c->head_dim);
    struct mat kv = like(x, c->head_dim), golden_kv = golden_mat(prefix, "attn.kv");
    struct mat compressed = device->make(device, DTYPE_BF16, batch->blocks, c->head_dim);
    uint64_t best = v4_index_best(v4, &l->layer, batch);
    struct mat selected = device->make(device, DTYPE_I32, x.rows, best);
    v4_project(v4, &l->layer, batch, low, q, kv, x);
    expect(q, prefix, "attn.q");
    const void *want;
    find(prefix, "attn.kv", &want);
    expect_bf16(kv, want, "attn.kv");
    if (batch->blocks) {
        v4_compress(v4, &l->layer, V4_APE, batch, compressed, x);
        expect(compressed, prefix, "attn.compressed");
    }
    if (best) {
        v4_index(v4, &l->layer, batch, selected, x, low);
        expect_selected(l, batch, selected, prefix, x, low);
        /* Go on with the golden selection. */
        const struct tensor *tensor = find(prefix, "attn.indexed", &want);
        int32_t *value = xalloc((size_t)tensor->size, 1);
        for (size_t i = 0; i < tensor->size / sizeof *value; i++) {
            int32_t index = ((const int32_t *)want)[i];
            value[i] = index < 0 ? index : index - (int32_t)x.rows;
        }
        device->write(device, selected, value);
        free(value);
    }
    struct mat golden_q = golden_mat(prefix, "attn.q"), o = like(q, q.cols);
    v4_attend(v4, &l->layer, batch, o, golden_q, mat_rows(golden_kv, 0, x.rows),
              mat_rows(golden_kv, x.rows, batch->blocks), selected);
    struct mat golden_o = golden_o_rotated(v4, &l->layer, batch, prefix), y = like(x, x.cols);
    expect_mat(o, golden_o, "attn.o");
    v4_output(v4, &l->layer, y, golden_o);
    expect(y, prefix, "attn");
    const struct mat mats[] = {low,      q,        kv, golden_kv, compressed,
                               selected, golden_q, o,  golden_o,  y};
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
        device->drop(device, mats[i]);
}

/* The sum of the shared expert and the golden choice of routed ones. */
static void test_experts(struct loaded *l, const char *prefix, struct mat x)
{
    const struct v4_config *c = &l->v4->config;
    const void *experts, *weights;
    find(prefix, "ffn.experts", &experts);
    find(prefix, "ffn.weights", &weights);
    struct mat sum = device->make(device, DTYPE_F32, x.rows, x.cols), y = like(x, x.cols);
    v4_shared(l->network, &l->layer, y, x);
    expect(y, prefix, "ffn.shared");
    device->copy(device, sum, y);
    int32_t *row = xalloc((size_t)x.rows, sizeof *row);
    float *weight = xalloc((size_t)x.rows, sizeof *weight);
    for (int32_t e = 0; e < (int32_t)c->experts; e++) {
        uint64_t count = 0;
        for (uint64_t i = 0; i < x.rows * c->experts_used; i++)
            if (((const int32_t *)experts)[i] == e) {
                row[count] = (int32_t)(i / c->experts_used);
                weight[count++] = ((const float *)weights)[i];
            }
        struct mat index = device->make(device, DTYPE_I32, count, 1);
        struct mat w = device->make(device, DTYPE_F32, count, 1);
        struct mat some = device->make(device, DTYPE_BF16, count, x.cols);
        device->write(device, index, row);
        device->write(device, w, weight);
        device->gather(device, some, x, index, (struct mat){0});
        struct linear *linear = l->expert[e];
        linear_mlp(device, &linear[EXPERT_GATE], &linear[EXPERT_UP], &linear[EXPERT_DOWN],
                   (struct swiglu){.limit = c->swiglu_limit}, mat_rows(y, 0, count), some, w,
                   SEES_BOTH);
        device->scatter_add(device, sum, mat_rows(y, 0, count), index, (struct mat){0},
                            (struct mat){0});
        device->drop(device, index);
        device->drop(device, w);
        device->drop(device, some);
    }
    device->copy(device, y, sum);
    expect(y, prefix, "ffn");
    device->drop(device, sum);
    device->drop(device, y);
    free(row);
    free(weight);
}

static void test_route(struct loaded *l, const char *prefix, struct mat x, const int32_t *ids)
{
    const struct v4_config *c = &l->v4->config;
    struct mat weights = device->make(device, DTYPE_F32, x.rows, c->experts_used);
    struct mat experts = device->make(device, DTYPE_I32, x.rows, c->experts_used);
    const struct router router = l->network->router(l->network, &l->layer);
    route(device, &router, weights, experts, (struct mat){0}, ids, x);
    struct sets sets = compare_sets(experts, prefix, "ffn.experts", 0);
    assert_int_equal(sets.differing, 0);
    free_sets(&sets);
    expect(weights, prefix, "ffn.weights");
    device->drop(device, weights);
    device->drop(device, experts);
}

/* The whole way through a block, each step from the golden result of the one before. input is
 * changed to the block's output. */
static void test_block(struct loaded *l, const char *prefix, struct mat input, const int32_t *ids)
{
    const uint64_t start[] = {0, input.rows};
    struct v4_batch batch;
    v4_batch_begin(l->v4, &batch, start, 1, v4_ratio(&l->layer));
    test_mix(l, V4_HC_ATTN_FN, prefix, "hc_attn", input);
    test_norm(l, V4_ATTN_NORM, prefix, "hc_attn.y", "attn_norm");
    struct mat attn_norm = golden_mat(prefix, "attn_norm"), attn = golden_mat(prefix, "attn");
    test_attention(l, prefix, attn_norm, &batch);
    struct mat post = golden_mat(prefix, "hc_attn.post"), comb = golden_mat(prefix, "hc_attn.comb");
    device->hc_out(device, input, attn, post, comb);
    test_mix(l, V4_HC_FFN_FN, prefix, "hc_ffn", input);
    test_norm(l, V4_FFN_NORM, prefix, "hc_ffn.y", "ffn_norm");
    struct mat ffn_norm = golden_mat(prefix, "ffn_norm"), ffn = golden_mat(prefix, "ffn");
    test_route(l, prefix, ffn_norm, ids);
    test_experts(l, prefix, ffn_norm);
    struct mat ffn_post = golden_mat(prefix, "hc_ffn.post");
    struct mat ffn_comb = golden_mat(prefix, "hc_ffn.comb");
    device->hc_out(device, input, ffn, ffn_post, ffn_comb);
    const struct mat mats[] = {attn_norm, attn, post, comb, ffn_norm, ffn, ffn_post, ffn_comb};
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
        device->drop(device, mats[i]);
    v4_batch_end(l->v4, &batch);
}

/* A tensor of the checkpoint outside of layers. */
static struct held take_tensor(const char *name, struct weights *weights, struct ts_in **in)
{
    struct held held = {0};
    *in = ts_open(CHECKPOINT, NULL);
    weights_find(weights, ts_model(*in), ts_toc(*in), CHECKPOINT);
    for (const struct tensor *tensor; (tensor = ts_next(*in));)
        if (!strcmp(tensor->name, name)) {
            held.arrived.data = ts_read_all(*in);
            held.from = (struct raw_weight){
                .tensor = tensor,
                .weight = weight_of(weights, (size_t)(tensor - ts_toc(*in)->tensor)),
                .raw = held.arrived.data};
        }
    if (!held.from.tensor)
        die("%s: no tensor %s", CHECKPOINT, name);
    return held;
}

/* y = the embeddings of ids. */
static void embed(struct loaded *l, struct mat y, const int32_t *id)
{
    struct ts_in *in;
    struct weights weights;
    struct held held = take_tensor("embed.weight", &weights, &in);
    uint64_t cols = l->network->dim;
    for (uint64_t i = 0; i < y.rows; i++)
        device->write(device, mat_rows(y, i, 1),
                      (const uint16_t *)held.from.raw + (uint64_t)id[i] * cols);
    held_free(&l->feed, &held);
    weights_free(&weights);
    ts_close(in);
}

/* y = logits of x. */
static void project(struct loaded *l, struct mat y, struct mat x)
{
    struct ts_in *in;
    struct weights weights;
    struct held held = take_tensor("head.weight", &weights, &in);
    held.from.scales = &held.scales;
    struct mat bytes = device->make(device, DTYPE_U8, 1, held.from.tensor->size);
    device->write(device, bytes, held.from.raw);
    struct operand *w =
        device->operand(device, held.from.weight, held.from.tensor, &held.scales, bytes, bytes,
                        (struct operand_part){.rows = y.cols}, mat_cols(l->seen, 0, 1));
    device->drop(device, bytes);
    device->product(device, y, x, w);
    device->drop_operand(device, w);
    held_free(&l->feed, &held);
    weights_free(&weights);
    ts_close(in);
}

static void test_layer(uint64_t number, const char *input)
{
    need_device(device);
    struct tokens tokens;
    struct loaded l;
    char *prefix = xprintf("layers.%d.", (int)number);
    load(&l, number, prefix);
    tokens_load(&tokens, IDS, l.network->vocabulary, 1, 1);
    struct mat x = golden_mat("", input);
    test_block(&l, prefix, x, tokens.id);
    expect(x, prefix, "output");
    device->drop(device, x);
    tokens_free(&tokens);
    unload(&l);
    free(prefix);
}

static void sliding_window(void **state)
{
    (void)state;
    test_layer(0, "layers.0.input");
}

static void blocks_of_4(void **state)
{
    (void)state;
    test_layer(1, "layers.0.output");
}

static void blocks_of_128(void **state)
{
    (void)state;
    test_layer(2, "layers.1.output");
}

/* The block behind the last one: x is what the model has there, but for each sample's last token;
 * ids are shifted by one. The loss is that of the golden steps put together. */
static void multi_token_prediction(void **state)
{
    (void)state;
    need_device(device);
    struct tokens tokens;
    struct loaded l;
    load(&l, 4, "mtp.0.");
    feed_layer(&l.feed, &l.layer, V4_LATE, V4_PIECES);
    const struct network *n = l.network;
    tokens_load(&tokens, IDS, n->vocabulary, 1, 1);
    struct mat x = golden_mat("mtp.0.", "input"), e = like(x, n->dim), head_in = like(x, n->dim);
    embed(&l, e, tokens.id + 1);
    v4_mtp_input(n, &l.layer, x, e);
    test_block(&l, "mtp.0.", x, tokens.id + 1);
    n->head(n, &l.layer, head_in, x);
    uint64_t rows = x.rows - 1;
    struct mat logits = device->make(device, DTYPE_F32, rows, n->vocabulary);
    struct mat loss = device->make(device, DTYPE_F32, rows, 1);
    struct mat target = device->make(device, DTYPE_I32, rows, 1);
    device->write(device, target, tokens.id + 2);
    project(&l, logits, mat_rows(head_in, 0, rows));
    device->loss(device, loss, logits, target);
    const void *want;
    find("mtp.0.", "nll", &want);
    float *got = xalloc((size_t)rows, sizeof *got), worst = 0;
    device->read(device, got, loss);
    for (uint64_t i = 0; i < rows; i++)
        worst = fmaxf(worst, fabsf(got[i] - ((const float *)want)[i]));
    print_message("mtp.0.nll: difference %g\n", (double)worst);
    /* Of logits up to 20 or so, made of BF16 hidden states that may be a unit off. */
    assert_true(worst <= 0.05F);
    free(got);
    const struct mat mats[] = {x, e, head_in, logits, loss, target};
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
        device->drop(device, mats[i]);
    tokens_free(&tokens);
    unload(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sliding_window),
        cmocka_unit_test(blocks_of_4),
        cmocka_unit_test(blocks_of_128),
        cmocka_unit_test(multi_token_prediction),
    };
    return run_on_devices(&device, tests, open_all, close_all);
}
