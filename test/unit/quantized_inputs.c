/* What NVFP4 inputs cost alone: the source's own weights, with the inputs that the recipe `full`
 * quantizes in NVFP4 under the calibration's scales, against Model Optimizer's emulation of the
 * same (its `inputs`, and `off` with these inputs in BF16). No checkpoint holds such a model, since
 * a weight in FP8 is no NVFP4; so the device's products are told which inputs to take. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/die.h"
#include "fixture.h"
#include "forward/forward.h"
#include "tensor/nvfp4.h"

enum { MODULES_MOST = 4096, OPERANDS_MOST = 256 };

/* A module of the recipe, and its input_scale. */
struct module {
    char *name;
    float scale;
};

/* Everything the device's functions need, which know of nothing but the device. */
static struct {
    struct device original; /* its functions */
    struct module module[MODULES_MOST];
    size_t modules;
    bool quantize; /* to NVFP4; else inputs stay BF16 */
    struct {
        const struct operand *operand;
        float scale; /* 0: not of the recipe */
    } known[OPERANDS_MOST];
    size_t operands;
    struct mat from; /* what quantize() was given last */
    void *to;        /* and where it wrote */
    double sum;
    uint64_t count, replaced;
} test;

/* ---- the calibration ---- */

/* "layers.0.ffn.experts.3.w1.input" and its amax become a module; its weight's amax is skipped. */
static void read_modules(const char *path)
{
    static const char suffix[] = ".input";
    struct ts_in *in = ts_open(path, NULL);
    for (const struct tensor *tensor; (tensor = ts_next(in));) {
        size_t length = strlen(tensor->name);
        if (length < sizeof suffix ||
            strcmp(tensor->name + length - (sizeof suffix - 1), suffix) != 0)
            continue;
        struct module *module = &test.module[test.modules++];
        assert_true(test.modules < MODULES_MOST);
        float amax;
        ts_read(in, &amax, sizeof amax);
        module->name = xprintf("%.*s", (int)(length - (sizeof suffix - 1)), tensor->name);
        module->scale = nvfp4_scale_2((double)amax);
    }
    ts_close(in);
}

/* 0 for a module that the recipe leaves alone. The calibration reached no token of one expert; its
 * inputs get the largest scale of its layer. */
static float scale_of(const char *name)
{
    const char *last = strrchr(name, '.'), *expert = strstr(name, ".experts.");
    float largest = 0;
    for (size_t i = 0; i < test.modules; i++) {
        const struct module *module = &test.module[i];
        if (!strcmp(module->name, name))
            return module->scale;
        if (expert && !strncmp(module->name, name, (size_t)(expert - name) + strlen(".experts.")) &&
            !strcmp(strrchr(module->name, '.'), last))
            largest = fmaxf(largest, module->scale);
    }
    return largest;
}

/* ---- the device ---- */

static struct operand *note_operand(struct device *d, const struct weight *w,
                                    const struct tensor *tensor, const struct scales *scales,
                                    struct mat scale, struct mat raw, struct operand_part part,
                                    struct mat amax)
{
    struct operand *operand = test.original.operand(d, w, tensor, scales, scale, raw, part, amax);
    size_t i = 0;
    while (i < test.operands && test.known[i].operand)
        i++;
    assert_true(i < OPERANDS_MOST);
    test.operands += i == test.operands;
    test.known[i].operand = operand;
    test.known[i].scale = scale_of(w->module);
    return operand;
}

static size_t find_operand(const struct operand *operand)
{
    size_t i = 0;
    while (i < test.operands && test.known[i].operand != operand)
        i++;
    assert_true(i < test.operands);
    return i;
}

static void forget_operand(struct device *d, struct operand *operand)
{
    test.known[find_operand(operand)].operand = NULL;
    test.original.drop_operand(d, operand);
}

static void note_quantize(struct device *d, struct mat y, struct mat x, enum activation how,
                          float scale_2, struct mat seen)
{
    test.from = x;
    test.to = y.at;
    test.original.quantize(d, y, x, how, scale_2, seen);
}

/* The inputs of the recipe's products are those from before they became FP8. */
static void replaced_product(struct device *d, struct mat y, struct mat x,
                             const struct operand *operand)
{
    float scale = test.known[find_operand(operand)].scale;
    if (scale == 0) {
        test.original.product(d, y, x, operand);
        return;
    }
    assert_ptr_equal(x.at, test.to);
    struct mat own = d->make(d, DTYPE_BF16, x.rows, x.cols);
    if (test.quantize)
        test.original.quantize(d, own, test.from, ACTIVATION_NVFP4, scale, (struct mat){0});
    else
        test.original.copy(d, own, test.from);
    test.original.product(d, y, own, operand);
    d->drop(d, own);
    test.replaced++;
}

/* ---- losses ---- */

static void take_losses(void *context, unsigned mtp, uint64_t first, struct mat logits,
                        const int32_t *target)
{
    struct device *d = context;
    (void)mtp;
    (void)first;
    struct mat wanted = d->make(d, DTYPE_I32, logits.rows, 1);
    struct mat loss = d->make(d, DTYPE_F32, logits.rows, 1);
    int32_t *known = xalloc((size_t)logits.rows, sizeof *known);
    float *got = xalloc((size_t)logits.rows, sizeof *got);
    for (uint64_t i = 0; i < logits.rows; i++)
        known[i] = target[i] < 0 ? 0 : target[i];
    d->write(d, wanted, known);
    d->loss(d, loss, logits, wanted);
    d->read(d, got, loss);
    for (uint64_t i = 0; i < logits.rows; i++) {
        test.sum += target[i] < 0 ? 0 : (double)got[i];
        test.count += target[i] >= 0;
    }
    d->drop(d, wanted);
    d->drop(d, loss);
    free(known);
    free(got);
}

/* The mean loss over a fixture's tokens. */
static double loss_of(const char *model, bool quantize)
{
    struct device *d = device_cpu(0);
    char *checkpoint = fixture_path(model, "ckpt");
    char *ids = fixture_path(model, "golden/eval-ids.safetensors");
    struct tokens tokens;
    struct forward run = {.arithmetic = ARITHMETIC_SERVED,
                          .device = d,
                          .batch = 4,
                          .memory = (uint64_t)1 << 30,
                          .tokens = &tokens,
                          .quiet = true,
                          .head = true,
                          .context = d,
                          .logits = take_losses};
    test.original = *d;
    test.quantize = quantize;
    test.sum = 0;
    test.count = test.replaced = test.operands = 0;
    d->operand = note_operand;
    d->drop_operand = forget_operand;
    d->quantize = note_quantize;
    d->product = replaced_product;
    run.in = ts_open(checkpoint, NULL);
    run.network = network_open(run.in);
    run.last = run.network->layers - 1;
    tokens_load(&tokens, ids, run.network->vocabulary, 2, UINT64_MAX);
    forward_run(&run);
    network_close(run.network);
    d->close(d);
    ts_close(run.in);
    tokens_free(&tokens);
    free(checkpoint);
    free(ids);
    assert_true(test.replaced > 0);
    return test.sum / (double)test.count;
}

/* ---- the tests ---- */

/* The mean loss that a line of eval-full.txt has. */
static double golden_loss(const char *model, const char *what)
{
    char *path = fixture_path(model, "golden/eval-full.txt"), line[256], name[32];
    FILE *file = fopen(path, "r");
    double loss = NAN, value;
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "%31s mean nll %lf", name, &value) == 2 && !strcmp(name, what))
            loss = value;
    fclose(file);
    free(path);
    return loss;
}

static void test_inputs(const char *model)
{
    const double bound = 0.015, cost_bound = 0.006;
    char *folder = fixture_folder(model);
    free(folder);
    if (!folder) {
        print_message("larger fixture %s is not here\n", model);
        skip();
    }
    char *amax = fixture_path(model, "golden/full-amax.safetensors");
    read_modules(amax);
    double off = loss_of(model, false), inputs = loss_of(model, true);
    double want_off = golden_loss(model, "off"), want = golden_loss(model, "inputs");
    print_message("# %s: off %.4f, golden %.4f; inputs %.4f, golden %.4f\n", model, off, want_off,
                  inputs, want);
    assert_true(fabs(off - want_off) <= bound);
    assert_true(fabs(inputs - want) <= bound);
    assert_true(fabs((inputs - off) - (want - want_off)) <= cost_bound);
    for (; test.modules; test.modules--)
        free(test.module[test.modules - 1].name);
    free(amax);
}

static void inputs_of_nano(void **state)
{
    (void)state;
    test_inputs("v4-nano");
}

static void inputs_of_mini(void **state)
{
    (void)state;
    test_inputs("v4-mini");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inputs_of_nano),
        cmocka_unit_test(inputs_of_mini),
    };
    return cmocka_run_group_tests_name("quantized_inputs", tests, NULL, NULL);
}
