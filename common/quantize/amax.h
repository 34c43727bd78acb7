/* amax.h: calibration results as a stream of scalars with Model Optimizer's key names:
 * MODULE_input_quantizer._amax, MODULE_weight_quantizer._amax and EXPERT.tokens. Some families use
 * '.' instead of the first '_', and other module names.
 *
 * A calibration that is not merged yet also has MODULE_input_quantizer._amax_engine, which only
 * amax-calib and amax-merge know: what serving engines quantize where it is another input than the
 * model's own. DeepSeek-V4's code multiplies with the router's weight before w2, engines after it;
 * so for w2 the model's amax is that with the weight, the engines' that without. amax-merge keeps
 * one of them under the first name.
 *
 * With --headroom, a calibration also has ._amax_headroom, and ._amax_engine_headroom of what has
 * ._amax_engine: amaxes that leave room above what was seen (see tensor/headroom.h). amax-merge
 * takes them for the others with --input-scale headroom, and drops them without. */
#ifndef AMAX_H
#define AMAX_H

#include <jansson.h>
#include <stdbool.h>

#include "base/args.h"
#include "stream/ts.h"

enum amax_which {
    AMAX_INPUT,
    AMAX_WEIGHT,
    AMAX_ENGINE_INPUT,
    AMAX_HEADROOM,
    AMAX_ENGINE_HEADROOM,
    AMAX_KINDS
};

/* If `name` is an amax key: true, its module under the checkpoint's name in `module`
 * (TENSOR_NAME_MAX + 1 bytes), and in *which the quantizer. */
bool amax_key(const struct model *model, const char *name, char *module, enum amax_which *which);

/* True if the tensor is the number of tokens that reached an expert: EXPERT.tokens, an I64. */
bool amax_is_tokens(const struct tensor *tensor);

/* The key of a module's amax, which the caller frees. */
char *amax_name(const struct model *model, const char *module, enum amax_which which);

/* The current tensor of `in`, an amax. It must be a scalar (or one element) of BF16, F16, F32 or
 * F64 that as F32 is finite and not negative, and not zero for an input. Anything else ends the
 * process. */
double amax_read(const struct model *model, struct ts_in *in);

struct amaxes;

/* --amax, into *to: a file of input amaxes, which only a plan does without. */
struct arg amaxes_arg(const char **to);

/* Read a whole amax stream and keep its names and values. A duplicate name, and an amax of two
 * kinds, end the process (amax-merge joins them, and chooses). With `plan`, the stream may be a
 * plan: its values are then 0. The model must outlive the result; amaxes_free() frees it and
 * accepts NULL. */
struct amaxes *amaxes_load(const char *path, const struct model *model, bool plan);
void amaxes_free(struct amaxes *amaxes);

/* *value = the amax of a module; false if there is none. */
bool amaxes_find(const struct amaxes *amaxes, const char *module, enum amax_which which,
                 double *value);

/* End the process if the checkpoint lacks routed experts that have amaxes (see fit.h). */
void amaxes_check(const struct amaxes *amaxes, struct ts_in *checkpoint);

/* What the stream says, names and values, as a SHA-256 in hexadecimal: for histories, where a path
 * would say nothing. NULL of a plan. Owned by amaxes. amaxes_record() puts it into a stage's
 * history entry; `amaxes` may be NULL. */
const char *amaxes_digest(const struct amaxes *amaxes);
void amaxes_record(const struct amaxes *amaxes, json_t *entry);

/* The same of its history: with which programs, options and tokens it was made. A plan has the one
 * of the stream that will be. */
const char *amaxes_calibration(const struct amaxes *amaxes);

/* The input scale that all of them stand for, of amax-merge --input-scale, a number owned by
 * amaxes. NULL: they come from a calibration. */
json_t *amaxes_input_scale(const struct amaxes *amaxes);

/* The counts of the stages that made the stream ("input_fallback" and so on), an array; owned by
 * amaxes. */
const json_t *amaxes_counts(const struct amaxes *amaxes);

#endif
