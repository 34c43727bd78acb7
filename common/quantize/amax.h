/* amax.h: calibration results, under Model Optimizer's own key names, as a stream of scalars:
 * MODULE_input_quantizer._amax and MODULE_weight_quantizer._amax (some families: a '.' for the
 * first '_', and other names of modules), and EXPERT.tokens. */
#ifndef AMAX_H
#define AMAX_H

#include <jansson.h>
#include <stdbool.h>

#include "stream/ts.h"

enum amax_which { AMAX_INPUT, AMAX_WEIGHT };

/* If `name` is an amax key: its module, as the checkpoint calls it, into `module` (TENSOR_NAME_MAX
 * + 1 bytes), which of the two it is, and true. */
bool amax_key(const struct model *model, const char *name, char *module, enum amax_which *which);

/* The key of a module's amax; the caller frees it. */
char *amax_name(const struct model *model, const char *module, enum amax_which which);

/* The present tensor of `in`, an amax, as F32: a scalar (or one element) of BF16, F16, F32 or F64
 * that is finite and not negative, and not zero for an input; else the process ends. */
float amax_read(const struct model *model, struct ts_in *in);

struct amaxes;

/* Read a whole amax stream, to its end, and keep its names and values. Names may not repeat in it
 * (amax-merge makes sure of that). The model must live as long. */
struct amaxes *amaxes_load(const char *path, const struct model *model);
void amaxes_free(struct amaxes *amaxes);

/* The amax of a module into *value, or false. */
bool amaxes_find(const struct amaxes *amaxes, const char *module, enum amax_which which,
                 float *value);

/* What the stream says, names and values, as a SHA-256 in hexadecimal (DIGEST_TEXT bytes): for
 * histories, where a path would say nothing. */
char *amaxes_digest(const struct amaxes *amaxes, char *hex);

/* What the stages that made it counted ("input_fallback" and so on), an array. Borrowed. */
const json_t *amaxes_counts(const struct amaxes *amaxes);

#endif
