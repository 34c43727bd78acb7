#include "report/html.h"

#include <stdarg.h>
#include <string.h>

#include "base/text.h"
#include "base/utf8.h"

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

/* What stands for a character of `length` bytes; NULL: itself. */
static const char *escape_of(const char *text, size_t length)
{
    static const char marks[] = "&<>\"'\n\t";
    static const char *const escapes[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;", NULL, NULL};
    const char *mark = length == 1 && *text ? strchr(marks, *text) : NULL;
    if (mark)
        return escapes[mark - marks];
    return text_is_plain(utf8_decode(text)) ? NULL : replacement;
}

void html_text(FILE *out, const char *text, size_t length)
{
    for (size_t at = 0, step; at < length; at += step) {
        bool valid;
        step = utf8_step(text + at, length - at, &valid);
        const char *escape = valid ? escape_of(text + at, step) : replacement;
        if (escape)
            fputs(escape, out);
        else
            fwrite(text + at, 1, step, out);
    }
}

/* Write the value of a conversion, "%s"; returns its length. */
static size_t put_value(FILE *out, const char *from, va_list *args)
{
    char conversion[16];
    size_t length = strcspn(from + 1, "%scuxfg") + 2;
    snprintf(conversion, sizeof conversion, "%.*s", (int)length, from);
    switch (from[length - 1]) {
    case 's': {
        const char *text = va_arg(*args, const char *);
        html_text(out, text, strlen(text));
        break;
    }
    case 'f':
    case 'g':
        fprintf(out, conversion, va_arg(*args, double));
        break;
    case '%':
        fputc('%', out);
        break;
    default:
        if (strchr(conversion, 'z')) {
            fprintf(out, conversion, va_arg(*args, size_t));
            break;
        }
        fprintf(out, conversion, va_arg(*args, unsigned));
    }
    return length;
}

void html_print(FILE *out, const char *markup, ...)
{
    va_list args;
    va_start(args, markup);
    while (*markup) {
        size_t plain = strcspn(markup, "%");
        fwrite(markup, 1, plain, out);
        markup += plain;
        if (*markup)
            markup += put_value(out, markup, &args);
    }
    va_end(args);
}
