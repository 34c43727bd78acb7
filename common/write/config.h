/* config.h: config.json and hf_quant_config.json of a checkpoint, derived from the formats that its
 * tensors have.
 *
 * The keys and values are those of Model Optimizer's examples/deepseek/deepseek_v4/
 * quantize_to_nvfp4.py, by which the serving engines know such a checkpoint. */
#ifndef CONFIG_H
#define CONFIG_H

#include <jansson.h>
#include <stdbool.h>

#include "stream/ts.h"

struct configs {
    char *config;       /* text of config.json, or NULL: stays as it is (or there is none) */
    char *hf_quant;     /* text of hf_quant_config.json, or NULL: there is none */
    bool keep_hf_quant; /* the side file of that name stays as it is */
};

/* Derive both from the outgoing stream: its header's `quant`, its config.json, and the table of the
 * whole checkpoint, of which the stream may bring a part. A stream whose formats no stage changed
 * keeps both. The caller frees it with configs_free(). */
void configs_derive(struct configs *configs, struct ts_in *in, const struct toc *toc);
void configs_free(struct configs *configs);

#endif
