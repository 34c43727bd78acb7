/* pattern.h: the regular expressions of tokenizers.
 *
 * tokenizer.json is written for Oniguruma. What DeepSeek's patterns use of it means the same here,
 * through PCRE2, whatever version that has: \p{L} and its like are the categories of Unicode 16,
 * \s is White_Space. What could mean another thing (anchors, classes in classes, back references,
 * options, the shorthands \d \w \h \b …) is refused. */
#ifndef PATTERN_H
#define PATTERN_H

#include <stddef.h>

struct pattern;

/* Compile `length` bytes of text. NULL, or what is wrong (the caller frees it). The pattern is the
 * caller's, who frees it with pattern_free(). */
char *pattern_new(struct pattern **pattern, const char *text, size_t length);
void pattern_free(struct pattern *pattern);

/* What matches a character of a word, as Unicode's technical standard 18 has it. As above. */
char *pattern_new_word(struct pattern **pattern);

enum pattern_result { PATTERN_NONE, PATTERN_FOUND, PATTERN_GAVE_UP };

/* The first match in valid UTF-8 that begins at or behind byte `from`: *start to *end. Nothing
 * before or behind the text is seen. Gives up on a pattern that tries too many ways. */
enum pattern_result pattern_find(struct pattern *pattern, const char *text, size_t length,
                                 size_t from, size_t *start, size_t *end);

#endif
