/* unquantized.h: the list of modules that a checkpoint's configs exclude from quantization. */
#ifndef UNQUANTIZED_H
#define UNQUANTIZED_H

#include <jansson.h>

#include "model/model.h"

/* The modules of matrices that are not quantized, as patterns that serving engines match with the
 * beginnings of names: "X*" for all of X where nothing quantized begins so ("X.*" where only another
 * module does, as layers.10 for layers.1), else the module itself. Sorted by the names in
 * calibration dumps; then each MTP layer that is not quantized, as a whole. Embeddings are none. An
 * array that the caller owns.
 *
 * Source: Model Optimizer's modelopt/torch/export/quant_utils.py,
 * _prefix_wildcard_summarize_exclude_modules, and examples/deepseek/deepseek_v3/ptq.py; but these
 * have "X" beside "X.*", which vLLM finds in the names of layers.10, too (modelopt.py:
 * is_layer_excluded). */
json_t *unquantized_modules(const struct model *model, const struct toc *toc);

#endif
