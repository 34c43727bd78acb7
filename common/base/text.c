#include "base/text.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/utf8.h"

bool starts_with(const char *text, const char *prefix)
{
    return !strncmp(text, prefix, strlen(prefix));
}

bool ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text), tail = strlen(suffix);
    return length >= tail && !strcmp(text + length - tail, suffix);
}

bool text_is_plain(uint32_t code)
{
    static const struct {
        uint32_t first, last;
    } obeyed[] = {
        {0, 0x1f},        {0x7f, 0x9f},     {0xad, 0xad},     {0x61c, 0x61c},
        {0x180e, 0x180e}, {0x200b, 0x200b}, {0x200e, 0x200f}, {0x2028, 0x202e},
        {0x2060, 0x206f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe007f},
    };
    for (size_t i = 0; i < sizeof obeyed / sizeof *obeyed; i++)
        if (code >= obeyed[i].first && code <= obeyed[i].last)
            return false;
    return true;
}

/* The length of the character at `text`, which ends at `end`; *plain says whether it is one. */
static size_t character(const char *text, const char *end, bool *plain)
{
    *plain = *text >= ' ' && *text <= '~'; /* as are most, in hundreds of thousands of names */
    if (*plain)
        return 1;
    size_t length = utf8_step(text, (size_t)(end - text), plain);
    *plain = *plain && text_is_plain(utf8_decode(text));
    return length;
}

char *printable(char *text)
{
    char *to = text;
    const char *end = text + strlen(text);
    bool plain;
    size_t length;
    for (const char *from = text; from < end; from += length) {
        length = character(from, end, &plain);
        if (plain)
            memmove(to, from, length);
        else
            *to = '?';
        to += plain ? length : 1;
    }
    *to = 0;
    return text;
}

bool text_is_line(const char *text)
{
    const char *end = text + strlen(text);
    bool plain = true;
    while (text < end && plain)
        text += character(text, end, &plain);
    return plain;
}

void text_write(FILE *out, const char *text, size_t length)
{
    const char *end = text + length;
    bool terminal = isatty(fileno(out)), plain;
    if (!terminal)
        fwrite(text, 1, length, out);
    for (size_t size; terminal && text < end; text += size) {
        size = character(text, end, &plain);
        if (plain || *text == '\n' || *text == '\t')
            fwrite(text, 1, size, out);
        else
            fputc('?', out);
    }
}

void text_print(FILE *out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = xvprintf(format, args);
    va_end(args);
    size_t length = strlen(text);
    bool newline = length && text[length - 1] == '\n';
    text[length - newline] = 0;
    fputs(printable(text), out);
    if (newline)
        fputc('\n', out);
    free(text);
}

/* Characters; each is taken to be one column wide. */
static size_t columns_of(const char *text, size_t length)
{
    size_t columns = 0;
    for (size_t i = 0; i < length; i++)
        columns += ((unsigned char)text[i] & 0xc0) != 0x80;
    return columns;
}

void text_wrap(FILE *out, unsigned column, unsigned indent, const char *text)
{
    char *line = printable(xstrdup(text));
    size_t at = column;
    bool first = true;
    for (const char *word = line + strspn(line, " "); *word; word += strspn(word, " ")) {
        size_t length = strcspn(word, " "), width = columns_of(word, length);
        if (!first && at + 1 + width > TEXT_WIDTH) {
            fprintf(out, "\n%*s", (int)indent, "");
            at = indent;
        } else if (!first) {
            fputc(' ', out);
            at++;
        }
        fwrite(word, 1, length, out);
        at += width;
        word += length;
        first = false;
    }
    fputc('\n', out);
    free(line);
}

void text_put_quoted(const char *text, FILE *out)
{
    fputc('"', out);
    for (;;) {
        size_t plain = strcspn(text, "\"\\");
        fwrite(text, 1, plain, out);
        text += plain;
        if (!*text)
            break;
        fputc('\\', out);
        fputc(*text++, out);
    }
    fputc('"', out);
}

char *text_of_file(const char *path, size_t most, size_t *size)
{
    char *text = xalloc(most + 2, 1);
    FILE *in = fopen(path, "r");
    if (!in)
        die_errno("%s", path);
    *size = fread(text, 1, most + 1, in);
    if (ferror(in))
        die_errno("%s", path);
    fclose(in);
    return text;
}
