/* engines.h: which serving engines are known to take a checkpoint that is written, from the formats
 * in its table. */
#ifndef ENGINES_H
#define ENGINES_H

#include <jansson.h>

#include "model/model.h"

/* Lines for people, an array that the caller owns: of a checkpoint with routed experts in NVFP4,
 * which engines speculate with its drafts, and whether none is known to serve it; of one with NVFP4
 * elsewhere, that none is. Empty for any other checkpoint. */
json_t *engines_notes(const struct model *model, const struct toc *toc);

#endif
