/* config.h: config.json and hf_quant_config.json of a checkpoint, derived from the formats of its
 * tensors.
 *
 * Keys and values follow Model Optimizer's examples/deepseek/deepseek_v4/quantize_to_nvfp4.py;
 * serving engines recognize such a checkpoint by them. */
#ifndef CONFIG_H
#define CONFIG_H

#include <jansson.h>
#include <stdbool.h>

#include "engines/rule.h"
#include "stream/ts.h"

struct configs {
    char *config;             /* text of config.json, or NULL: unchanged (or absent) */
    char *hf_quant;           /* text of hf_quant_config.json, or NULL: none */
    bool keep_hf_quant;       /* that side file stays unchanged */
    bool converted;           /* a stage made or removed a quantized format, and the tensors are not
                               * in files of ranks */
    struct evidence evidence; /* the checkpoint, with both files as they will be */
};

/* Derive both from the outgoing stream: its header's `quant`, its config.json, and `toc`, the table
 * of the whole checkpoint, of which the stream may bring only a part. Every key of config.json
 * about formats then states the formats present, at any depth. If no stage changed the formats,
 * both stay unchanged. configs_free() frees the content. */
void configs_derive(struct configs *configs, struct ts_in *in, const struct toc *toc);
void configs_free(struct configs *configs);

#endif
