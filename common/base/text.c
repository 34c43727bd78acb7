#include "base/text.h"

#include <string.h>

bool starts_with(const char *text, const char *prefix)
{
    return !strncmp(text, prefix, strlen(prefix));
}

bool ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text), tail = strlen(suffix);
    return length >= tail && !strcmp(text + length - tail, suffix);
}

bool text_is_line(const char *text)
{
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return false;
    return true;
}

void text_put_quoted(const char *text, FILE *out)
{
    fputc('"', out);
    for (size_t plain; *text; text += plain) {
        plain = strcspn(text + 1, "\"\\") + 1; /* the first one may need a backslash */
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        fwrite(text, 1, plain, out);
    }
    fputc('"', out);
}
