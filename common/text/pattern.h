/* pattern.h: the regular expressions of tokenizers.
 *
 * tokenizer.json is written for Oniguruma. The syntax that DeepSeek's patterns use means the same
 * here with any version of PCRE2: \p{L} and its like are the categories of Unicode 16, \s is
 * White_Space. Everything that could mean something else (anchors, nested classes, back references,
 * options, the shorthands \d \w \h \b …) is refused. */
#ifndef PATTERN_H
#define PATTERN_H

#include <stddef.h>
#include <stdint.h>

struct pattern;

/* Compile `length` bytes of text. Returns NULL, or an error text that the caller frees. *pattern is
 * set in either case; the caller frees it with pattern_free(), which accepts NULL. */
char *pattern_new(struct pattern **pattern, const char *text, size_t length);
void pattern_free(struct pattern *pattern);

/* A pattern that matches one word character, as defined by Unicode Technical Standard 18. Returns
 * as above. */
char *pattern_new_word(struct pattern **pattern);

enum pattern_result { PATTERN_NONE, PATTERN_FOUND, PATTERN_GAVE_UP };

/* What the matches in texts may take: far more than those of any pattern that looks at a character
 * some times only. Each text adds to it by its length, and what it leaves of that is taken away
 * again, so that many texts that each take a little too much come to an end, too. Steps are counted
 * beyond the first few hundred of each match, to within a factor of 8. What one step takes is not
 * counted (a repeat of one character is a step, and may read the whole text), so the thread's
 * processor time has a bound, too: it is looked at before a match gets more steps, and now and then
 * between matches. All zeros: no more than those first steps. */
struct pattern_budget {
    uint64_t steps;
    int64_t left_ns; /* between texts */
    int64_t end_ns;  /* in a text: of the thread's CLOCK_THREAD_CPUTIME_ID */
    /* Since it was last looked at: */
    unsigned matches;
    uint64_t read; /* bytes, if each of them read on to the end once */
};

/* That before the first text. One thread splits a text, of `length` bytes, from begin to end. */
struct pattern_budget pattern_budget(void);
void pattern_budget_begin(struct pattern_budget *budget, size_t length);
void pattern_budget_end(struct pattern_budget *budget);

/* The first match in valid UTF-8 that begins at byte `from` or later: *start to *end. Only the text
 * itself is seen, nothing before or after it. PATTERN_GAVE_UP if the budget does not suffice, or
 * one match takes too many steps. */
enum pattern_result pattern_find(struct pattern *pattern, const char *text, size_t length,
                                 size_t from, struct pattern_budget *budget, size_t *start,
                                 size_t *end);

#endif
