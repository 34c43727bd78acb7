/* formats.h: the formats of a checkpoint's matrices, as far as engines differ over them. */
#ifndef ENGINES_FORMATS_H
#define ENGINES_FORMATS_H

#include "engines/facts.h"
#include "model/model.h"

/* The facts of what there is (facts.h), by the names, dtypes and shapes in a table, and, for
 * FACT_DRAFTS_NOT_IGNORED, by config.json, which may be NULL. */
uint64_t formats_found(const struct model *model, const struct toc *toc, const json_t *config);

/* quantization_config of config.json, or of its text_config; NULL if there is none. */
const json_t *quantization_of(const json_t *config);

/* The first of an array's patterns (fnmatch()) that matches the module, or NULL. */
const char *matching_pattern(const json_t *patterns, const char *module);

#endif
