#include "report/html.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/text.h"
#include "base/utf8.h"

/* What stands for a character of `length` bytes; NULL: itself. */
static const char *escape_of(const char *text, size_t length)
{
    if (length > 1)
        return text_is_plain(utf8_decode(text)) ? NULL : "\xEF\xBF\xBD";
    switch (*text) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    case '\n':
    case '\t':
        return NULL;
    default:
        return text_is_plain((unsigned char)*text) ? NULL : "\xEF\xBF\xBD";
    }
}

void html_write(FILE *out, const char *text, size_t length)
{
    for (size_t at = 0, step; at < length; at += step) {
        bool valid;
        step = utf8_step(text + at, length - at, &valid);
        const char *escape = valid ? escape_of(text + at, step) : "\xEF\xBF\xBD";
        if (escape)
            fputs(escape, out);
        else
            fwrite(text + at, 1, step, out);
    }
}

void html_text(FILE *out, const char *text)
{
    html_write(out, text, strlen(text));
}

void html_print(FILE *out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = xvprintf(format, args);
    va_end(args);
    html_text(out, text);
    free(text);
}
