/* source_card.h: what the source's own card, its README.md, says that holds for a conversion, too.
 * Nothing in it is trusted to be well-formed. */
#ifndef SOURCE_CARD_H
#define SOURCE_CARD_H

#include <stdio.h>

/* Copy the lines about the license from the YAML that a card may begin with to `out`: those whose
 * value is on the line. `card` may be NULL. */
void source_card_license(const char *card, FILE *out);

/* The model's name: the first heading of the first level, if it is a plain name ("DeepSeek-V4");
 * otherwise NULL. The caller frees it. */
char *source_card_name(const char *card);

#endif
