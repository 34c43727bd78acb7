/* chat_template.h: which release's chat template a text is. */
#ifndef CHAT_TEMPLATE_H
#define CHAT_TEMPLATE_H

#include "model/model.h"

/* The style of a chat template, or unknown; NULL, no template, is unknown.
 *
 * Templates are programs, and are not run. Copies differ in white space, quotes and escapes, and
 * releases were revised, so a text is not compared as a whole: it is known if it writes and
 * compares no strings but those of DeepSeek's templates, and if the parts in which these differ
 * come together as in one of them. */
enum chat_style chat_template_style(const char *template);

#endif
