#include "quantize/amax.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/die.h"
#include "base/digest.h"
#include "base/json.h"
#include "quantize/fit.h"

static const char *const suffix[] = {[AMAX_INPUT] = "input_quantizer._amax",
                                     [AMAX_WEIGHT] = "weight_quantizer._amax",
                                     [AMAX_ENGINE_INPUT] = "input_quantizer._amax_engine",
                                     [AMAX_HEADROOM] = "input_quantizer._amax_headroom",
                                     [AMAX_ENGINE_HEADROOM] =
                                         "input_quantizer._amax_engine_headroom"};

/* The length of the module's name in a key: the text before a separator ("_" or "."; the reference
 * uses both) and the suffix. 0 if it is not a key. */
static size_t module_length(const char *name, enum amax_which which)
{
    size_t length = strlen(name), tail = strlen(suffix[which]) + 1;
    if (length <= tail || length > TENSOR_NAME_MAX)
        return 0;
    const char *end = name + length - tail;
    return (*end == '_' || *end == '.') && !strcmp(end + 1, suffix[which]) ? length - tail : 0;
}

bool amax_key(const struct model *model, const char *name, char *module, enum amax_which *which)
{
    for (int i = 0; i < AMAX_KINDS; i++) {
        char dumped[TENSOR_NAME_MAX + 1];
        size_t length = module_length(name, (enum amax_which)i);
        if (!length)
            continue;
        memcpy(dumped, name, length);
        dumped[length] = 0;
        *which = (enum amax_which)i;
        model_from_dump(model, dumped, module);
        return true;
    }
    return false;
}

bool amax_is_tokens(const struct tensor *tensor)
{
    const char *dot = strrchr(tensor->name, '.');
    return dot && !strcmp(dot, ".tokens") && tensor->dtype == DTYPE_I64 && tensor->size == 8;
}

char *amax_name(const struct model *model, const char *module, enum amax_which which)
{
    char dumped[TENSOR_NAME_MAX + 1];
    model_to_dump(model, module, dumped);
    return xprintf("%s%s%s", dumped, model_amax_separator(model), suffix[which]);
}

double amax_read(const struct model *model, struct ts_in *in)
{
    const struct tensor *tensor = ts_present(in);
    char module[TENSOR_NAME_MAX + 1], shape[TENSOR_SHAPE_TEXT];
    enum amax_which which;
    enum dtype dtype = tensor->dtype;
    bool known =
        dtype == DTYPE_BF16 || dtype == DTYPE_F16 || dtype == DTYPE_F32 || dtype == DTYPE_F64;
    if (!amax_key(model, tensor->name, module, &which))
        die("%s: %s: wanted an amax, the name of which ends in input_quantizer._amax or "
            "weight_quantizer._amax",
            ts_name(in), tensor->name);
    if (!known || tensor->size != dtype_size(dtype))
        die("%s: %s: wanted an amax, one floating-point number, got %s %s", ts_name(in),
            tensor->name, dtype_name(dtype), tensor_shape(tensor, shape));
    void *data = ts_read_all(in);
    double value = dtype_value(dtype, data, 0);
    free(data);
    float amax = (float)value;
    if (!isfinite(amax) || amax < 0 || signbit(amax))
        die("%s: %s: an amax must be finite and not negative, got %g; calibrate again", ts_name(in),
            tensor->name, value);
    if (amax == 0 && which != AMAX_WEIGHT)
        die("%s: %s: an input amax of 0 means that this layer saw no signal; calibrate again",
            ts_name(in), tensor->name);
    return value;
}

/* After loading, only names and values are kept: the table is five times their size. */
struct amax {
    const char *name; /* in the arena */
    double value;
};

struct amaxes {
    const struct model *model;
    char *path;
    struct amax *amax; /* by name */
    size_t count;
    struct arena *arena;
    bool plan; /* without values */
    char digest[DIGEST_TEXT], calibration[DIGEST_TEXT];
    json_t *counts;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct amax *)a)->name, ((const struct amax *)b)->name);
}

/* As F32 if it is one. */
static void digest_value(struct digest *digest, double value)
{
    float single = (float)value;
    if ((double)single == value)
        digest_add(digest, &single, sizeof single);
    else
        digest_add(digest, &value, sizeof value);
}

static const struct amax *keep(struct amaxes *amaxes, const char *module, enum amax_which which,
                               double value)
{
    char *name = amax_name(amaxes->model, module, which);
    struct amax *amax = &amaxes->amax[amaxes->count++];
    *amax = (struct amax){arena_copy(amaxes->arena, name, strlen(name)), value};
    free(name);
    return amax;
}

static void keep_planned(struct amaxes *amaxes, const struct toc *toc)
{
    for (size_t i = 0; i < toc->count; i++) {
        char module[TENSOR_NAME_MAX + 1];
        enum amax_which which;
        if (amax_key(amaxes->model, toc->tensor[i].name, module, &which))
            keep(amaxes, module, which, 0);
    }
}

static void digest_history(struct amaxes *amaxes, struct ts_in *in)
{
    struct digest *digest = digest_new();
    char *text = json_text(json_object_get(ts_header(in), "history"), false, true);
    digest_add(digest, text, strlen(text));
    digest_end(digest, amaxes->calibration);
    free(text);
}

static void read_amaxes(struct amaxes *amaxes, const struct model *model, struct ts_in *in)
{
    struct digest *digest = digest_new();
    struct toc *toc = ts_toc(in);
    for (const struct tensor *tensor; (tensor = ts_next(in));) {
        char module[TENSOR_NAME_MAX + 1];
        enum amax_which which;
        if (toc_find(toc, tensor->name) != tensor - toc->tensor)
            die("%s: %s occurs twice; amax-merge joins the dumps of several ranks", ts_name(in),
                tensor->name);
        if (!amax_key(model, tensor->name, module, &which))
            continue;
        if (which != AMAX_INPUT && which != AMAX_WEIGHT)
            die("%s: %s: this calibration is not merged; amax-merge chooses which amax of the "
                "input counts",
                ts_name(in), tensor->name);
        const struct amax *amax = keep(amaxes, module, which, amax_read(model, in));
        digest_add(digest, amax->name, strlen(amax->name) + 1);
        digest_value(digest, amax->value);
    }
    digest_end(digest, amaxes->digest);
}

struct arg amaxes_arg(const char **to)
{
    return (struct arg){.name = "amax",
                        .kind = ARG_INPUT,
                        .to = to,
                        .value = "file",
                        .help =
                            "amax stream with the input amaxes (from amax-merge); -n does without",
                        .required = EVERY_FORM,
                        .silent = true}; /* amaxes_record() records what it says */
}

struct amaxes *amaxes_load(const char *path, const struct model *model, bool plan)
{
    struct amaxes *amaxes = xalloc(1, sizeof *amaxes);
    struct ts_in *in = ts_open(path, NULL);
    amaxes->model = model;
    amaxes->path = xstrdup(ts_name(in));
    amaxes->arena = arena_new();
    amaxes->amax = xalloc(ts_toc(in)->count, sizeof *amaxes->amax);
    read_amaxes(amaxes, model, in);
    digest_history(amaxes, in);
    amaxes->plan = ts_plan_only(in);
    if (amaxes->plan && !plan)
        die("%s: only a plan, without values; make it without -n", ts_name(in));
    if (amaxes->plan)
        keep_planned(amaxes, ts_toc(in));
    if (!amaxes->count)
        die("%s: holds no amax; amax-merge makes such a stream from a calibration", ts_name(in));
    qsort(amaxes->amax, amaxes->count, sizeof *amaxes->amax, by_name);
    amaxes->counts = json_deep_copy(ts_end_counts(in));
    ts_close(in);
    return amaxes;
}

void amaxes_free(struct amaxes *amaxes)
{
    if (!amaxes)
        return;
    arena_free(amaxes->arena);
    json_decref(amaxes->counts);
    free(amaxes->amax);
    free(amaxes->path);
    free(amaxes);
}

bool amaxes_find(const struct amaxes *amaxes, const char *module, enum amax_which which,
                 double *value)
{
    char *name = amax_name(amaxes->model, module, which);
    const struct amax key = {.name = name};
    const struct amax *amax =
        bsearch(&key, amaxes->amax, amaxes->count, sizeof *amaxes->amax, by_name);
    free(name);
    if (!amax)
        return false;
    *value = amax->value;
    return true;
}

void amaxes_check(const struct amaxes *amaxes, struct ts_in *checkpoint)
{
    struct fit *fit = fit_begin(checkpoint);
    for (size_t i = 0; i < amaxes->count; i++) {
        char module[TENSOR_NAME_MAX + 1];
        enum amax_which which;
        if (amax_key(amaxes->model, amaxes->amax[i].name, module, &which))
            fit_add(fit, module);
    }
    fit_end(fit, amaxes->path);
}

const char *amaxes_digest(const struct amaxes *amaxes)
{
    return amaxes->plan ? NULL : amaxes->digest;
}

void amaxes_record(const struct amaxes *amaxes, json_t *entry)
{
    const char *digest = amaxes ? amaxes_digest(amaxes) : NULL; /* NULL of a plan */
    json_object_set_new(entry, "amax", digest ? json_string(digest) : json_null());
}

const char *amaxes_calibration(const struct amaxes *amaxes)
{
    return amaxes->calibration;
}

json_t *amaxes_input_scale(const struct amaxes *amaxes)
{
    size_t last = json_array_size(amaxes->counts);
    return last ? json_object_get(json_array_get(amaxes->counts, last - 1), "input_scale") : NULL;
}

const json_t *amaxes_counts(const struct amaxes *amaxes)
{
    return amaxes->counts;
}
