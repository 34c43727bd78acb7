/* card.h: README.md of a converted checkpoint, which hubs call its model card: what its matrices
 * are now, how they were calibrated, what was measured, what serving engines make of it, and how to
 * serve it. Equal runs give equal bytes: it has no time and no path. */
#ifndef CARD_H
#define CARD_H

#include "write/config.h"

/* What the card says besides what the stream's header and table say. Borrowed. */
struct card {
    const json_t *counts; /* of the stages, from .end; may be NULL */
    const char *measured; /* lines about an evaluation; may be NULL */
};

/* The text, which the caller frees. Of the source's own card, README.md among the stream's side
 * files, it takes the license and the model's name. */
char *card_text(const struct card *card, struct ts_in *in, const struct toc *toc,
                const struct configs *configs);

/* "DeepSeek-V4-Flash in NVFP4": one printable line, which the caller frees. */
char *card_title(struct ts_in *in, const struct configs *configs);

/* Lines for card.measured from a file of up to 64 KiB of UTF-8 text, which the caller frees. Any
 * other file ends the process. */
char *card_measured(const char *path);

#endif
