/* pretokenizer.h: cuts text into the pieces that byte-pair encoding then works on, one by one, as
 * the "pre_tokenizer" of a tokenizer.json describes it. */
#ifndef PRETOKENIZER_H
#define PRETOKENIZER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct pretokenizer;

/* From {"type": "Sequence", "pretokenizers": […]} or one of its members alone: any number of
 * {"type": "Split", "pattern": {"Regex": …}, "behavior": "Isolated" or "Removed", "invert": …},
 * and at the end {"type": "ByteLevel", "add_prefix_space": …, "use_regex": …}. NULL, or what is
 * wrong or unknown (the caller frees it); *out is the caller's, who frees it with
 * pretokenizer_free(). */
char *pretokenizer_new(struct pretokenizer **out, const json_t *description);
void pretokenizer_free(struct pretokenizer *p);

/* Takes a piece, which is not empty; false: enough, no more pieces. */
typedef bool pretokenizer_take(void *context, const char *piece, size_t length);

/* Cut valid UTF-8, which is not empty, into pieces, in order. NULL, or what went wrong (static): a
 * pattern that tries too many ways at this text. */
const char *pretokenizer_cut(const struct pretokenizer *p, const char *text, size_t length,
                             pretokenizer_take *take, void *context);

#endif
