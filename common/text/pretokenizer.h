/* pretokenizer.h: splits text into the pieces that byte-pair encoding processes one by one, as
 * described by the "pre_tokenizer" of a tokenizer.json. */
#ifndef PRETOKENIZER_H
#define PRETOKENIZER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "text/pattern.h"

struct pretokenizer;

/* Build from {"type": "Sequence", "pretokenizers": […]} or one of its members alone: any number of
 * {"type": "Split", "pattern": {"Regex": …}, "behavior": "Isolated" or "Removed", "invert": …}, and
 * at the end {"type": "ByteLevel", "add_prefix_space": …, "use_regex": …}. Returns NULL, or an
 * error text that the caller frees. *out is set in either case; the caller frees it with
 * pretokenizer_free(). */
char *pretokenizer_new(struct pretokenizer **out, const json_t *description);
void pretokenizer_free(struct pretokenizer *p);

/* Called with each non-empty piece; returns false to stop. */
typedef bool pretokenizer_take(void *context, const char *piece, size_t length);

/* Split non-empty, valid UTF-8 into pieces, in order. Returns NULL, or an error text if a
 * pattern takes too many steps on this text: more than *budget, from which they are taken. The
 * error text names the pattern and belongs to `p`. */
const char *pretokenizer_cut(const struct pretokenizer *p, const char *text, size_t length,
                             struct pattern_budget *budget, pretokenizer_take *take, void *context);

#endif
