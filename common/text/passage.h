/* passage.h: a text to tokenize that knows which of it is only text. In a conversation, role tokens
 * come from the rules that write it; where somebody's words are spelled like one ("<think>"), they
 * are words. */
#ifndef PASSAGE_H
#define PASSAGE_H

#include <stddef.h>

/* Bytes of a text: from `start` to before `end`. */
struct stretch {
    size_t start, end;
};

/* All 0 before its first use. The owner ends it with passage_free(). */
struct passage {
    char *text; /* `length` bytes, and a 0 behind; may hold others */
    size_t length;
    struct stretch *plain; /* where no added token begins or ends; in order, apart */
    size_t plains;
};

/* Say that the text is plain from `start` to before `end`; stretches come in order. */
void passage_plain(struct passage *passage, size_t start, size_t end);

/* Free what it holds; it is all 0 then. */
void passage_free(struct passage *passage);

#endif
