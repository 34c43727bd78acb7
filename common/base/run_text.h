/* run_text.h: the state of a run (run_state.h) as text. */
#ifndef RUN_TEXT_H
#define RUN_TEXT_H

#include <jansson.h>

#include "base/run_state.h"

enum { RUN_LINE = 512, RUN_BLOCK = 4 };

/* In one line, without a newline. */
void run_text_line(const struct run_view *view, char line[RUN_LINE]);

/* In up to RUN_BLOCK lines of at most `columns` characters (at least 1); returns how many. With
 * `color`, the first one and the bar have sequences for a terminal besides. */
unsigned run_text_block(const struct run_view *view, const char *title, unsigned columns,
                        bool color, char block[RUN_BLOCK][RUN_LINE]);

/* As JSON, an object that the caller owns; what is not known is left out. */
json_t *run_text_json(const struct run_view *view);

#endif
