/* passage.h: a text to tokenize, and the stretches of it that are plain. In a conversation, only
 * the rules that format it write role tokens; in the contents of messages, the spelling of one
 * ("<think>") is plain text. */
#ifndef PASSAGE_H
#define PASSAGE_H

#include <stddef.h>

/* Bytes of a text: from `start` to before `end`. */
struct stretch {
    size_t start, end;
};

/* All 0 before its first use. The owner frees it with passage_free(). */
struct passage {
    char *text; /* `length` bytes and a final NUL; may contain other NULs */
    size_t length;
    struct stretch *plain; /* where no added token matches; in order, not adjacent */
    size_t plains;
};

/* Mark bytes `start` to before `end` as plain. Stretches are added in order. */
void passage_plain(struct passage *passage, size_t start, size_t end);

/* Free its contents; then it is all 0. */
void passage_free(struct passage *passage);

#endif
