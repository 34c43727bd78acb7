#include "text/samples.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/utf8.h"

enum { PIECE = 1 << 20 };

struct samples {
    const char *name;
    FILE *file;
    enum samples_format format;
    const char *field;
    enum chat_style style;
    char *text; /* of the current sample of JSONL */
    char *data; /* what was read; data[begin] to data[end] is unprocessed */
    size_t begin, end, room;
    bool ended;
    uint64_t offset;     /* of data[begin] in the file */
    uint64_t line, next; /* of the current text, and of data[begin], from 1 */
};

/* ---- one line of JSON ---- */

/* The member of `object` whose name has `length` bytes; NULL if it is missing or null. */
static const json_t *member(const json_t *object, const char *name, size_t length)
{
    char *key = xprintf("%.*s", (int)length, name);
    const json_t *value = json_object_get(object, key);
    free(key);
    return json_is_null(value) ? NULL : value;
}

/* True if all fields of "a+b" exist. */
static bool present(const json_t *object, const char *field)
{
    for (;; field++) {
        size_t length = strcspn(field, "+");
        if (!member(object, field, length))
            return false;
        field += length;
        if (!*field)
            return true;
    }
}

static const char *first_present(const json_t *object)
{
    static const char *const usual[] = {"text", "article", "prompt+response", "messages"};
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (present(object, usual[i]))
            return usual[i];
    return NULL;
}

/* The texts of "a+b", joined by a newline. */
static char *join(const json_t *object, const char *field, char **text, size_t *text_length)
{
    char *error = NULL;
    FILE *out = open_memstream(text, text_length);
    if (!out)
        die("out of memory");
    for (const char *at = field;; at++) {
        size_t length = strcspn(at, "+");
        const json_t *value = member(object, at, length);
        if (!json_is_string(value)) {
            error = xprintf("%.*s is not a text", (int)length, at);
            break;
        }
        fwrite(json_string_value(value), 1, json_string_length(value), out);
        at += length;
        if (!*at)
            break;
        fputc('\n', out);
    }
    if (fclose(out))
        die("out of memory");
    if (error) {
        free(*text);
        *text = NULL;
    }
    return error;
}

static char *object_text(const json_t *object, const char *field, enum chat_style style,
                         char **text, size_t *text_length)
{
    if (!json_is_object(object))
        return xprintf("not a JSON object");
    const char *wanted = field ? field : first_present(object);
    if (!wanted || !present(object, wanted))
        return xprintf("wanted %s; name what holds the text with --field",
                       field ? field : "text, article, prompt and response, or messages");
    const json_t *value = json_object_get(object, wanted);
    if (json_is_array(value))
        return chat_text(style, value, json_object_get(object, "tools"), text, text_length);
    return join(object, wanted, text, text_length);
}

char *sample_text(const char *line, size_t length, const char *field, enum chat_style style,
                  char **text, size_t *text_length)
{
    *text = NULL;
    json_error_t reason;
    json_t *object = json_loadb(line, length, JSON_ALLOW_NUL, &reason);
    if (!object)
        return xprintf("%s", reason.text);
    char *error = object_text(object, field, style, text, text_length);
    json_decref(object);
    return error;
}

/* ---- files ---- */

struct samples *samples_open(const char *path, enum samples_format format, const char *field,
                             enum chat_style style)
{
    struct samples *s = xalloc(1, sizeof *s);
    *s = (struct samples){.name = path ? path : "<stdin>",
                          .file = path ? fopen(path, "re") : stdin,
                          .format = format,
                          .field = field,
                          .style = style,
                          .next = 1,
                          .room = (size_t)2 * PIECE};
    if (!s->file)
        die_errno("%s", s->name);
    s->data = xgrow(NULL, s->room, 1);
    return s;
}

void samples_close(struct samples *s)
{
    if (s->file != stdin)
        fclose(s->file);
    free(s->text);
    free(s->data);
    free(s);
}

/* Read more; move the unprocessed data to the front. */
static void fill(struct samples *s)
{
    memmove(s->data, s->data + s->begin, s->end - s->begin);
    s->end -= s->begin;
    s->begin = 0;
    if (s->end == s->room) {
        if (s->room >= SAMPLE_MAX)
            die("%s: line %" PRIu64 ": longer than %d MiB; is this text, or JSON lines?", s->name,
                s->next, SAMPLE_MAX >> 20);
        s->room *= 2;
        s->data = xgrow(s->data, s->room, 1);
    }
    size_t got = fread(s->data + s->end, 1, s->room - s->end, s->file);
    if (ferror(s->file))
        die_errno("%s", s->name);
    s->end += got;
    s->ended = got == 0;
}

/* The length of the first line with its newline; 0 if it is incomplete. */
static size_t whole_line(const struct samples *s)
{
    const char *from = s->data + s->begin;
    const char *newline = s->end > s->begin ? memchr(from, '\n', s->end - s->begin) : NULL;
    return newline ? (size_t)(newline + 1 - from) : 0;
}

/* The length of the next piece: up to the start of a line that begins with a printable ASCII
 * character; 0 if more must be read. White space can belong to what follows it, but a newline never
 * belongs to such a character. */
static size_t whole_piece(const struct samples *s)
{
    for (size_t at = s->end; at > s->begin + PIECE; at--)
        if (at < s->end && s->data[at - 1] == '\n' && s->data[at] > ' ' && s->data[at] < 0x7f)
            return at - s->begin;
    return 0;
}

/* The next piece or line of the file, checked; false at its end. */
static bool next_chunk(struct samples *s, const char **text, size_t *length)
{
    size_t size;
    while (!(size = s->format == SAMPLES_TEXT ? whole_piece(s) : whole_line(s)) && !s->ended)
        fill(s);
    if (!size)
        size = s->end - s->begin;
    *text = s->data + s->begin;
    *length = size;
    s->line = s->next;
    size_t valid = size ? utf8_valid(*text, size) : 0;
    for (size_t i = 0; i < valid; i++)
        s->next += (*text)[i] == '\n';
    if (valid < size)
        die("%s: line %" PRIu64 ", offset %" PRIu64 ": not UTF-8 (byte 0x%02x); convert the file "
            "first, for example with iconv",
            s->name, s->next, s->offset + valid, (uint8_t)(*text)[valid]);
    s->begin += size;
    s->offset += size;
    return size > 0;
}

static bool blank(const char *line, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!strchr(" \t\r\n", line[i]) || !line[i])
            return false;
    return true;
}

bool samples_next(struct samples *s, const char **text, size_t *length)
{
    if (s->format == SAMPLES_TEXT)
        return next_chunk(s, text, length);
    const char *line;
    size_t size;
    do
        if (!next_chunk(s, &line, &size))
            return false;
    while (blank(line, size));
    free(s->text);
    char *error = sample_text(line, size, s->field, s->style, &s->text, length);
    if (error)
        die("%s: line %" PRIu64 ": %s", s->name, s->line, error);
    *text = s->text;
    return true;
}

const char *samples_name(const struct samples *s)
{
    return s->name;
}

uint64_t samples_line(const struct samples *s)
{
    return s->line;
}

uint64_t samples_bytes(const struct samples *s)
{
    return s->offset;
}
