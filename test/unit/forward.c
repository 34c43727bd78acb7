/* The forward pass as a whole, against the official model and Model Optimizer's calibration of it:
 * each block by itself on the golden output of the one before it, losses, amaxes.
 *
 * The bounds are those that the official model keeps to when only the order of its sums changes,
 * with some room: four blocks amplify a flipped route or FP8 code. */
#include "forward/forward.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/die.h"
#include "fixture.h"
#include "on_device.h"
#include "quantize/amax.h"
#include "stream/pt.h"
#include "tensor/bf16.h"

static struct device *device;

static void need(const char *model)
{
    need_device(device);
    char *folder = fixture_folder(model);
    free(folder);
    if (!folder) {
        print_message("larger fixture %s is not here\n", model);
        skip();
    }
}

/* A tensor of a .safetensors file, which the caller frees. */
static void *read_tensor(const char *path, const char *name)
{
    struct ts_in *in = ts_open(path, NULL);
    void *data = NULL;
    for (const struct tensor *tensor; (tensor = ts_next(in));)
        if (!strcmp(tensor->name, name))
            data = ts_read_all(in);
    ts_close(in);
    if (!data)
        fail_msg("%s has no %s", path, name);
    return data;
}

/* Run over a fixture's tokens. */
static void run_over(struct forward *run, const char *model, const char *ids, uint64_t samples,
                     struct tokens *tokens)
{
    char *checkpoint = fixture_path(model, "ckpt");
    char *path = fixture_path(model, ids);
    run->in = ts_open(checkpoint, NULL);
    run->network = network_open(run->in);
    run->device = device;
    run->batch = 4;
    run->memory = (uint64_t)1 << 30;
    run->tokens = tokens;
    tokens_load(tokens, path, run->network->vocabulary, 2, samples);
    free(checkpoint);
    free(path);
}

static void finish(struct forward *run, struct tokens *tokens)
{
    forward_run(run);
    network_close(run->network);
    ts_close(run->in);
    tokens_free(tokens);
}

/* All of them, which the caller frees. */
static uint16_t *read_hidden(const struct states *states)
{
    struct offloaded offloaded = states->hidden;
    uint16_t *hidden = xalloc((size_t)(offloaded.all.rows * offloaded.all.cols), sizeof *hidden);
    struct mat rows = device->fetch(device, offloaded, 0, offloaded.all.rows);
    device->read(device, hidden, rows);
    device->store(device, offloaded, 0, rows);
    return hidden;
}

/* ---- blocks ---- */

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* The squared error of each row, over the row's own size: the median; and of all rows together. */
static void expect_near(const uint16_t *got, const uint16_t *want, size_t rows, size_t cols,
                        const char *what)
{
    double *relative = xalloc(rows, sizeof *relative), all_error = 0, all = 0;
    for (size_t i = 0; i < rows; i++) {
        double error = 0, size = 0;
        for (size_t j = i * cols; j < (i + 1) * cols; j++) {
            double a = (double)bf16_to_f32(got[j]), b = (double)bf16_to_f32(want[j]);
            error += (a - b) * (a - b);
            size += b * b;
        }
        relative[i] = error / size;
        all_error += error;
        all += size;
    }
    qsort(relative, rows, sizeof *relative, by_value);
    print_message("%s: median %.2g, all %.2g\n", what, relative[rows / 2], all_error / all);
    if (!(relative[rows / 2] <= 1.5e-4) || !(all_error / all <= 6e-4))
        fail_msg("%s: squared error: median %g, wanted at most 1.5e-4; all %g, wanted 6e-4", what,
                 relative[rows / 2], all_error / all);
    free(relative);
}

struct block {
    const uint16_t *want; /* NULL: golden has it */
    const char *model, *golden;
    const struct network *network;
    bool in_two; /* hidden states are the sum of two matrices */
};

static void take_block(void *context, const struct states *states)
{
    const struct block *block = context;
    struct mat hidden = states->hidden.all;
    size_t rows = (size_t)hidden.rows, wide = (size_t)hidden.cols;
    size_t cols = (size_t)(block->network->copies * block->network->dim);
    uint16_t *got = read_hidden(states);
    for (size_t i = 0; i < rows;
         i++) { /* without what else is carried, or with what is to be added */
        memmove(got + i * cols, got + i * wide, cols * sizeof *got);
        for (size_t j = 0; j < cols && block->in_two; j++)
            got[i * cols + j] = bf16_from_f32(bf16_to_f32(got[i * cols + j]) +
                                              bf16_to_f32(got[i * wide + cols + j]));
    }
    char *name = xprintf("layers.%d.output", (int)states->layer);
    uint16_t *own = block->want ? NULL : read_tensor(block->golden, name);
    char *what = xprintf("%s, block %d", block->model, (int)states->layer);
    expect_near(got, own ? own : block->want, rows, cols, what);
    free(own);
    free(name);
    free(what);
    free(got);
}

/* A .safetensors file with hidden_states [1, length, copies, dim] and, if there is a second matrix,
 * carried [1, length, dim] of zeros, which the caller removes. */
static char *write_states(const uint16_t *data, const uint64_t *dim, bool in_two)
{
    size_t bytes = (size_t)(dim[0] * dim[1] * dim[2]) * sizeof *data;
    char *header = xprintf("{\"hidden_states\":{\"dtype\":\"BF16\",\"shape\":[1,%d,%d,%d],"
                           "\"data_offsets\":[0,%zu]},\"carried\":{\"dtype\":\"BF16\","
                           "\"shape\":[1,%d,%d],\"data_offsets\":[%zu,%zu]}}",
                           (int)dim[0], (int)dim[1], (int)dim[2], bytes, (int)dim[0],
                           in_two ? (int)dim[2] : 0, bytes, in_two ? 2 * bytes : bytes);
    uint16_t *zero = xalloc(bytes, 1);
    char *path = xstrdup("/tmp/states-XXXXXX.safetensors");
    FILE *file = fdopen(mkstemps(path, (int)strlen(".safetensors")), "wb");
    uint64_t length = strlen(header);
    assert_non_null(file);
    assert_int_equal(fwrite(&length, sizeof length, 1, file), 1);
    assert_int_equal(fwrite(header, 1, length, file), length);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fwrite(zero, 1, in_two ? bytes : 0, file), in_two ? bytes : 0);
    assert_int_equal(fclose(file), 0);
    free(header);
    free(zero);
    return path;
}

static void test_blocks(const char *model, uint64_t layers, const uint64_t *dim, bool in_two)
{
    need(model);
    char *golden = fixture_path(model, "golden/eval-golden.safetensors");
    uint16_t *before = NULL;
    for (uint64_t layer = 0; layer < layers; layer++) {
        char *name = xprintf("layers.%d.output_sample0", (int)layer);
        uint16_t *want = read_tensor(golden, name);
        struct block block = {.want = want, .model = model, .in_two = in_two};
        struct tokens tokens;
        char *path = before ? write_states(before, dim, in_two) : NULL;
        struct forward run = {.first = layer,
                              .last = layer,
                              .states_in = path,
                              .arithmetic = ARITHMETIC_SERVED,
                              .context = &block,
                              .states = take_block};
        run_over(&run, model, "golden/eval-ids.safetensors", 1, &tokens);
        block.network = run.network;
        finish(&run, &tokens);
        if (path)
            unlink(path);
        free(path);
        free(name);
        free(before);
        before = want;
    }
    free(before);
    free(golden);
}

static void blocks_of_nano(void **state)
{
    (void)state;
    static const uint64_t dim[] = {256, 4, 256};
    test_blocks("v4-nano", 4, dim, false);
}

/* From hidden states in a file, too. */
static void blocks_of_nano_with_states_away(void **state)
{
    const uint64_t room = device ? device->room : 0;
    if (device)
        device->room = 0;
    blocks_of_nano(state);
    if (device)
        device->room = room;
}

/* One after another: a layer needs more of earlier ones than hidden states. */
static void test_chain(const char *model, uint64_t layers, bool in_two)
{
    need(model);
    char *golden = fixture_path(model, "golden/steps-golden.safetensors");
    struct block block = {.model = model, .golden = golden, .in_two = in_two};
    struct tokens tokens;
    struct forward run = {.last = layers - 1,
                          .arithmetic = ARITHMETIC_SERVED,
                          .context = &block,
                          .states = take_block};
    run_over(&run, model, "golden/eval-ids.safetensors", 1, &tokens);
    block.network = run.network;
    finish(&run, &tokens);
    free(golden);
}

static void blocks_of_v41(void **state)
{
    (void)state;
    test_chain("v41-tiny", 8, false);
}

static void blocks_of_v3_tiny(void **state)
{
    (void)state;
    test_chain("v3-tiny", 3, true);
}

static void blocks_of_mini(void **state)
{
    (void)state;
    static const uint64_t dim[] = {384, 4, 512};
    test_blocks("v4-mini", 4, dim, false);
}

static const uint64_t v3_dim[] = {320, 1, 256};

static void blocks_of_v3(void **state)
{
    (void)state;
    test_blocks("v3-nano", 3, v3_dim, false);
}

/* The first one only: the goldens have what later ones begin with rounded to BF16, which V3.2 does
 * not do. The official model, too, is off by 3.4e-4 and 6.6e-4 if it begins with that. */
static void first_block_of_v32(void **state)
{
    (void)state;
    test_blocks("v32-nano", 1, v3_dim, true);
}

/* ---- losses ---- */

#define EVAL "golden/eval-golden.safetensors"

struct losses {
    const float *want;
    uint64_t count;
    double sum, difference; /* of got - want, and of its magnitude */
};

static void take_losses(void *context, unsigned mtp, uint64_t first, struct mat logits,
                        const int32_t *target)
{
    struct losses *losses = context;
    (void)mtp;
    (void)first;
    struct mat loss = device->make(device, DTYPE_F32, logits.rows, 1);
    struct mat wanted = device->make(device, DTYPE_I32, logits.rows, 1);
    int32_t *known = xalloc((size_t)logits.rows, sizeof *known);
    float *got = xalloc((size_t)logits.rows, sizeof *got);
    for (uint64_t i = 0; i < logits.rows; i++)
        known[i] = target[i] < 0 ? 0 : target[i];
    device->write(device, wanted, known);
    device->loss(device, loss, logits, wanted);
    device->read(device, got, loss);
    for (uint64_t i = 0; i < logits.rows; i++) {
        if (target[i] < 0)
            continue;
        double difference = (double)got[i] - (double)losses->want[losses->count++];
        losses->sum += difference;
        losses->difference += fabs(difference);
    }
    device->drop(device, loss);
    device->drop(device, wanted);
    free(known);
    free(got);
}

/* How far losses may be off: their mean, and on average each. */
struct loss_bound {
    double mean, each;
};
static const struct loss_bound v4_bound = {0.01, 0.075}, v3_bound = {0.005, 0.05};

static void test_losses(const char *model, const char *golden_file, uint64_t count,
                        enum arithmetic arithmetic, struct loss_bound bound)
{
    need(model);
    char *golden = fixture_path(model, golden_file);
    float *want = read_tensor(golden, "nll");
    struct losses losses = {.want = want};
    struct tokens tokens;
    struct forward run = {
        .head = true, .arithmetic = arithmetic, .context = &losses, .logits = take_losses};
    run_over(&run, model, "golden/eval-ids.safetensors", 0, &tokens);
    run.last = run.network->layers - 1;
    finish(&run, &tokens);
    assert_int_equal(losses.count, count);
    double mean = losses.sum / (double)losses.count,
           each = losses.difference / (double)losses.count;
    print_message("%s: losses: mean %.4f, each %.4f\n", model, mean, each);
    assert_true(fabs(mean) <= bound.mean);
    assert_true(each <= bound.each);
    free(want);
    free(golden);
}

static void losses_of_nano(void **state)
{
    (void)state;
    test_losses("v4-nano", EVAL, 8160, ARITHMETIC_SERVED, v4_bound);
}

/* Of weights that were not trained, so that a selection which turns on a tie changes a sample's
 * losses by more. */
static void losses_of_v41(void **state)
{
    (void)state;
    test_losses("v41-tiny", EVAL, 136, ARITHMETIC_SERVED, v4_bound);
}

static void losses_of_mini(void **state)
{
    (void)state;
    test_losses("v4-mini", EVAL, 12256, ARITHMETIC_SERVED, v4_bound);
}

static void losses_of_v3(void **state)
{
    (void)state;
    test_losses("v3-nano", EVAL, 5104, ARITHMETIC_SERVED, v3_bound);
}

/* What encode() is otherwise. */
static void (*plain_encode)(struct device *d, struct mat y, struct mat x, struct mat factor,
                            bool power);

static float to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The indexer's scales of keys, whose factors are 1 before, rounded to BF16. */
static void encode_rounded(struct device *d, struct mat y, struct mat x, struct mat factor,
                           bool power)
{
    float *scale = xalloc((size_t)factor.rows, sizeof *scale);
    bool keys = true;
    d->read(d, scale, factor);
    for (uint64_t i = 0; i < factor.rows; i++)
        keys &= scale[i] == 1;
    plain_encode(d, y, x, factor, power);
    d->read(d, scale, factor);
    for (uint64_t i = 0; i < factor.rows; i++)
        scale[i] = to_bf16(scale[i]);
    if (keys)
        d->write(d, factor, scale);
    free(scale);
}

/* The golden's keys have scales in BF16. DeepSeek's code keeps them in F32 (k_scale_cache), and so
 * do we, of which losses_of_v3_tiny() has the golden; then each loss of this one differs by 0.042
 * on average instead of 0.021. */
static void losses_of_v32(void **state)
{
    (void)state;
    need("v32-nano");
    plain_encode = device->encode;
    device->encode = encode_rounded;
    test_losses("v32-nano", EVAL, 5104, ARITHMETIC_SERVED, v3_bound);
    device->encode = plain_encode;
}

static void losses_of_v3_tiny(void **state)
{
    (void)state;
    test_losses("v3-tiny", EVAL, 188, ARITHMETIC_SERVED, v3_bound);
}

/* With unquantized activations, which is V3's other arithmetic. */
static void losses_of_v3_in_bf16(void **state)
{
    (void)state;
    test_losses("v3-nano", "golden/eval-bf16-golden.safetensors", 5104, ARITHMETIC_CALIBRATION,
                v3_bound);
}

/* ---- amaxes ---- */

struct dump {
    struct toc *toc;
    const char **data; /* by line of the table */
    bool full;         /* of every matrix of the recipe `full`, as MODULE.input and MODULE.weight */
    const struct model *model;
    uint64_t inputs, near;
    double sum, worst, worst_of_first;
    /* An input amax that hangs on a router's tie, and what it is with the other choice; or NULL. */
    const char *tied;
    double otherwise;
};

/* The dump's value, or NaN. */
static double golden_amax(struct dump *dump, const char *module, enum amax_which which)
{
    char *name = dump->full ? xprintf("%s.%s", module, which == AMAX_INPUT ? "input" : "weight")
                            : amax_name(dump->model, module, which);
    int64_t line = toc_find(dump->toc, name);
    free(name);
    return line < 0 ? NAN : dtype_value(dump->toc->tensor[line].dtype, dump->data[line], 0);
}

static bool is_in_dump(void *context, const char *module)
{
    return !isnan(golden_amax(context, module, AMAX_WEIGHT));
}

static void take_amax(void *context, const struct linear_seen *seen)
{
    struct dump *dump = context;
    if (!seen->expert && !(dump->full && is_in_dump(dump, seen->module)))
        return;
    double input = golden_amax(dump, seen->module, AMAX_INPUT);
    double weight = golden_amax(dump, seen->module, AMAX_WEIGHT);
    if (!isnan(weight) && weight != (double)seen->weight_amax)
        fail_msg("%s: weight amax %g, wanted %g", seen->module, (double)seen->weight_amax, weight);
    if (isnan(input) != !seen->rows)
        fail_msg("%s: %d tokens reached it, the golden amax is %g", seen->module, (int)seen->rows,
                 input);
    if (!seen->rows)
        return;
    double error = fabs((double)seen->input_amax - input) / input;
    if (dump->tied && !strcmp(seen->module, dump->tied)) {
        double other = fabs((double)seen->input_amax - dump->otherwise) / dump->otherwise;
        error = fmin(error, other);
        assert_true(error <= 0.05);
    }
    dump->inputs++;
    dump->near += error <= 0.05;
    dump->sum += error;
    dump->worst = fmax(dump->worst, error);
    if (!strncmp(seen->module, "layers.0.", 9))
        dump->worst_of_first = fmax(dump->worst_of_first, error);
}

/* `inputs` golden amaxes of inputs, of all matrices that a token reaches. */
static void test_dump(struct dump *dump, const char *model, const char *ids, uint64_t inputs)
{
    struct tokens tokens;
    struct forward run = {.context = dump, .linear = take_amax};
    if (dump->full)
        run.quantizes = is_in_dump;
    run_over(&run, model, ids, 0, &tokens);
    run.last = run.network->layers - 1;
    dump->model = ts_model(run.in);
    finish(&run, &tokens);
    double mean = dump->sum / (double)dump->inputs;
    double near = (double)dump->near / (double)dump->inputs;
    print_message("%s: amaxes: mean error %.4f, %.1f%% within 5%%, worst %.3f, in the first block "
                  "%.4f\n",
                  model, mean, 100 * near, dump->worst, dump->worst_of_first);
    assert_int_equal(dump->inputs, inputs);
    assert_true(mean <= 0.006);
    assert_true(near >= 0.97);
    assert_true(dump->worst <= 0.15);
    assert_true(dump->worst_of_first <= 0.01);
}

/* Routed experts. */
static void test_amaxes(const char *model, const char *ids, uint64_t inputs, const char *tied,
                        double otherwise)
{
    need(model);
    struct dump dump = {.toc = toc_new(), .tied = tied, .otherwise = otherwise};
    struct pt pt;
    char *path = fixture_path(model, "golden/amax/amax_dict_rank0-mp1.pt");
    char *error = pt_read(&pt, path, dump.toc, toc_shard(dump.toc, "amax"));
    assert_null(error);
    dump.data = pt.data;
    test_dump(&dump, model, ids, inputs);
    pt_free(&pt);
    toc_free(dump.toc);
    free(path);
}

/* All that the recipe `full` quantizes. */
static void test_full_amaxes(const char *model, uint64_t inputs)
{
    need(model);
    char *path = fixture_path(model, "golden/full-amax.safetensors");
    struct ts_in *in = ts_open(path, NULL);
    struct dump dump = {.toc = ts_toc(in), .full = true};
    dump.data = xalloc(dump.toc->count, sizeof *dump.data);
    while (ts_next(in))
        dump.data[ts_present(in) - dump.toc->tensor] = ts_read_all(in);
    test_dump(&dump, model, "golden/calib-ids.safetensors", inputs);
    for (size_t i = 0; i < dump.toc->count; i++)
        free((void *)dump.data[i]);
    free(dump.data);
    ts_close(in);
    free(path);
}

static void amaxes_of_nano(void **state)
{
    (void)state;
    test_amaxes("v4-nano", "golden/calib-ids.safetensors", 189, NULL, 0);
}

static void amaxes_of_v41(void **state)
{
    (void)state;
    test_amaxes("v41-tiny", "golden/eval-ids.safetensors", 192, NULL, 0);
}

/* One of them hangs on a router's tie: for token 325 of sample 16, the last expert chosen in layer
 * 2 and the first one left differ by 0.002 of a score of 0.7, which another order of sums in any
 * product before can turn round. In the dump, that token has the largest amax, 34; with the other
 * choice another token's 28.25 is left, 17 % less. Either choice is right, and no order of sums is
 * sure to choose like the dump: F32 sums and those of AVX-512's BF16 products do, AMX's do not; see
 * test/reports/gpu.md. So this one must be one of the two, and nearer than others are asked to. */
static void amaxes_of_mini(void **state)
{
    (void)state;
    test_amaxes("v4-mini", "golden/calib-ids.safetensors", 384, "layers.3.ffn.experts.25.w2",
                28.25);
}

static void full_amaxes_of_nano(void **state)
{
    (void)state;
    test_full_amaxes("v4-nano", 219);
}

static void full_amaxes_of_mini(void **state)
{
    (void)state;
    test_full_amaxes("v4-mini", 414);
}

/* ---- amaxes of V3's family ---- */

#define CALIBRATION "golden/calib-ids.safetensors"

/* An observed linear. */
struct v3_seen {
    char *module;
    bool expert;
    uint64_t rows;
    double input, weight;
};

struct v3_amaxes {
    struct v3_seen *seen;
    size_t count;
    const char *cold; /* the only expert that no token is routed to */
};

static void keep_seen(void *context, const struct linear_seen *seen)
{
    struct v3_amaxes *all = context;
    all->seen = xgrow(all->seen, all->count + 1, sizeof *all->seen);
    all->seen[all->count++] = (struct v3_seen){xstrdup(seen->module), seen->expert, seen->rows,
                                               (double)seen->input_amax, (double)seen->weight_amax};
}

static void expect_routed(void *context, const char *expert, uint64_t tokens)
{
    const struct v3_amaxes *all = context;
    assert_int_equal(tokens == 0, !strcmp(expert, all->cold));
}

/* Two modules of the same matrix of experts of the same layer. */
static bool are_peers(const struct v3_seen *a, const struct v3_seen *b)
{
    static const char experts[] = ".experts.";
    const char *end = a->expert && b->expert ? strstr(a->module, experts) : NULL;
    size_t layer = end ? (size_t)(end - a->module) + strlen(experts) : 0;
    return end && !strncmp(a->module, b->module, layer) &&
           !strcmp(strrchr(a->module, '.'), strrchr(b->module, '.'));
}

/* The reference's default: experts of a layer share the largest input amax. */
static double largest_of_peers(const struct v3_amaxes *all, const struct v3_seen *one)
{
    double most = one->input;
    for (size_t i = 0; i < all->count; i++)
        if (are_peers(one, &all->seen[i]))
            most = fmax(most, all->seen[i].input);
    return most;
}

/* Compare with a dump, which has `inputs` input amaxes. */
static void expect_v3_amaxes(const struct v3_amaxes *all, struct dump *dump, bool peers,
                             uint64_t inputs)
{
    uint64_t found = 0, near = 0;
    double worst = 0;
    for (size_t i = 0; i < all->count; i++) {
        const struct v3_seen *seen = &all->seen[i];
        double input = golden_amax(dump, seen->module, AMAX_INPUT);
        double weight = golden_amax(dump, seen->module, AMAX_WEIGHT);
        if (!isnan(weight) && weight != seen->weight)
            fail_msg("%s: weight amax %g, wanted %g", seen->module, seen->weight, weight);
        if (isnan(input))
            continue;
        double got = peers ? largest_of_peers(all, seen) : seen->input;
        double error = fabs(got - input) / input;
        found++;
        near += error <= 0.01;
        worst = fmax(worst, error);
    }
    print_message("%d input amaxes: %.1f%% within 1%%, worst %.4f\n", (int)found,
                  100 * (double)near / (double)found, worst);
    assert_int_equal(found, inputs);
    assert_true((double)near >= 0.97 * (double)found);
    assert_true(worst <= 0.05);
}

static void test_v3_amaxes(const char *model, const char *ids, const char *dumped, bool all_experts,
                           uint64_t inputs)
{
    need(model);
    struct dump dump = {.toc = toc_new()};
    struct v3_amaxes all = {.cold = "model.layers.2.mlp.experts.5"};
    struct tokens tokens;
    char *file = xprintf("golden/%s/amax_dict_rank0-mp1.pt", dumped);
    char *path = fixture_path(model, file);
    struct pt pt;
    assert_null(pt_read(&pt, path, dump.toc, toc_shard(dump.toc, "amax")));
    dump.data = pt.data;
    struct forward run = {
        .context = &all, .linear = keep_seen, .routed = expect_routed, .all_experts = all_experts};
    run_over(&run, model, ids, 0, &tokens);
    run.last = run.network->layers - 1;
    dump.model = ts_model(run.in);
    forward_run(&run);
    expect_v3_amaxes(&all, &dump, !all_experts, inputs);
    network_close(run.network);
    ts_close(run.in);
    tokens_free(&tokens);
    for (size_t i = 0; i < all.count; i++)
        free(all.seen[i].module);
    free(all.seen);
    pt_free(&pt);
    toc_free(dump.toc);
    free(file);
    free(path);
}

/* With the projections of attention. */
static void amaxes_of_v3(void **state)
{
    (void)state;
    test_v3_amaxes("v3-nano", CALIBRATION, "amax-mla-fp8-deq", false, 117);
}

static void amaxes_of_v32(void **state)
{
    (void)state;
    test_v3_amaxes("v32-nano", CALIBRATION, "amax-mla-fp8-deq", false, 129);
}

static void amaxes_of_v3_tiny(void **state)
{
    (void)state;
    test_v3_amaxes("v3-tiny", "golden/eval-ids.safetensors", "amax", false, 78);
}

static void amaxes_of_all_v3_experts(void **state)
{
    (void)state;
    test_v3_amaxes("v3-nano", CALIBRATION, "amax-all-experts-deq", true, 108);
}

static void amaxes_of_all_v32_experts(void **state)
{
    (void)state;
    test_v3_amaxes("v32-nano", CALIBRATION, "amax-all-experts-deq", true, 108);
}

/* ---- hidden states that are away ---- */

/* All that a run says, in its order. */
struct said {
    unsigned char *byte;
    size_t count;
};

static void say(struct said *said, const void *data, size_t size)
{
    said->byte = xgrow(said->byte, said->count + size, 1);
    memcpy(said->byte + said->count, data, size);
    said->count += size;
}

static void say_amax(void *context, const struct linear_seen *seen)
{
    say(context, seen->module, strlen(seen->module));
    say(context, &seen->rows, sizeof seen->rows);
    say(context, &seen->input_amax, sizeof seen->input_amax);
    say(context, &seen->weight_amax, sizeof seen->weight_amax);
}

static void say_states(void *context, const struct states *states)
{
    uint16_t *hidden = read_hidden(states);
    say(context, hidden,
        (size_t)(states->hidden.all.rows * states->hidden.all.cols) * sizeof *hidden);
    free(hidden);
}

static void say_logits(void *context, unsigned mtp, uint64_t first, struct mat logits,
                       const int32_t *target)
{
    size_t count = (size_t)(logits.rows * logits.cols);
    float *value = xalloc(count, sizeof *value);
    device->read(device, value, logits);
    say(context, &mtp, sizeof mtp);
    say(context, &first, sizeof first);
    say(context, value, count * sizeof *value);
    say(context, target, (size_t)logits.rows * sizeof *target);
    free(value);
}

/* Samples one by one: in small groups where hidden states are away, larger where they are not. */
static struct said run_with_room(const char *model, uint64_t memory, uint64_t room)
{
    struct said said = {0};
    struct tokens tokens;
    struct forward run = {.last = UINT64_MAX,
                          .head = true,
                          .arithmetic = ARITHMETIC_SERVED,
                          .context = &said,
                          .linear = say_amax,
                          .states = say_states,
                          .logits = say_logits};
    const uint64_t before = device->room;
    device->room = room;
    run_over(&run, model, "golden/eval-ids.safetensors", 6, &tokens);
    run.mtp = run.network->mtp_layers > 0;
    run.last = run.network->layers - 1;
    run.batch = 1;
    run.memory = memory;
    finish(&run, &tokens);
    device->room = before;
    return said;
}

static void test_states_away(const char *model, uint64_t memory)
{
    need(model);
    struct said near = run_with_room(model, memory, device->room);
    struct said on_host = run_with_room(model, memory, 0);
    assert_int_equal(near.count, on_host.count);
    assert_memory_equal(near.byte, on_host.byte, near.count);
    free(near.byte);
    free(on_host.byte);
}

static void states_that_are_away_change_no_bit(void **state)
{
    (void)state;
    test_states_away("v4-nano", (uint64_t)7 << 20); /* groups of two, and of four */
}

static void states_that_are_away_change_no_bit_of_v41(void **state)
{
    (void)state;
    test_states_away("v41-tiny", (uint64_t)512 << 10);
}

/* With an argument: only the tests whose names match this pattern. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_nano),
        cmocka_unit_test(blocks_of_v41),
        cmocka_unit_test(blocks_of_mini),
        cmocka_unit_test(blocks_of_v3),
        cmocka_unit_test(blocks_of_v3_tiny),
        cmocka_unit_test(losses_of_v3_tiny),
        cmocka_unit_test(amaxes_of_v3_tiny),
        cmocka_unit_test(first_block_of_v32),
        cmocka_unit_test(losses_of_v3),
        cmocka_unit_test(losses_of_v32),
        cmocka_unit_test(losses_of_v3_in_bf16),
        cmocka_unit_test(losses_of_nano),
        cmocka_unit_test(losses_of_v41),
        cmocka_unit_test(losses_of_mini),
        cmocka_unit_test(amaxes_of_v3),
        cmocka_unit_test(amaxes_of_v32),
        cmocka_unit_test(amaxes_of_all_v3_experts),
        cmocka_unit_test(amaxes_of_all_v32_experts),
        cmocka_unit_test(amaxes_of_nano),
        cmocka_unit_test(amaxes_of_v41),
        cmocka_unit_test(amaxes_of_mini),
        cmocka_unit_test(full_amaxes_of_nano),
        cmocka_unit_test(full_amaxes_of_mini),
        cmocka_unit_test(blocks_of_nano_with_states_away),
        cmocka_unit_test(states_that_are_away_change_no_bit),
        cmocka_unit_test(states_that_are_away_change_no_bit_of_v41),
    };
    return run_on_devices(&device, tests, NULL, NULL);
}
