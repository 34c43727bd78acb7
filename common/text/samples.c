#include "text/samples.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/json.h"
#include "base/utf8.h"
#include "text/sharegpt.h"
#include "text/unpacked.h"

enum { ROW_PARSED_MAX = 256 << 20 }; /* bytes of a row as a tree; its text has SAMPLE_MAX */
enum { PIECE = 1 << 20 };

struct samples {
    struct unpacked *file;
    enum samples_format format;
    const char *field;
    enum chat_style style;
    struct passage passage; /* the current sample of JSONL */
    char *data;             /* what was read; data[begin] to data[end] is unprocessed */
    size_t begin, end, room;
    bool ended;
    bool array;          /* the rows are members of one array */
    uint64_t rows;       /* of the array, so far */
    uint64_t nulls;      /* rows whose text is null */
    uint64_t offset;     /* of data[begin] in the text */
    uint64_t line, next; /* of the current text, and of data[begin], from 1 */
};

/* ---- one row ---- */

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

/* True if some field of "a+b" exists, and is null. */
static bool is_null(const json_t *object, const char *field)
{
    for (;; field++) {
        size_t length = strcspn(field, "+");
        char *key = xprintf("%.*s", (int)length, field);
        const json_t *value = json_object_get(object, key);
        free(key);
        if (json_is_null(value))
            return true;
        field += length;
        if (!*field)
            return false;
    }
}

/* The texts of "a+b", joined by a newline. */
static char *join(const json_t *object, const char *field, struct passage *passage)
{
    char *error = NULL;
    FILE *out = open_memstream(&passage->text, &passage->length);
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
    if (error)
        passage_free(passage);
    return error;
}

/* The error text for a row without the wanted field: it lists those that the row has. */
static char *no_field(const json_t *object, const char *wanted)
{
    enum { SHOWN = 12 };
    char *error, *text;
    size_t length, count = 0;
    const char *key;
    json_t *value;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        die("out of memory");
    json_object_foreach((json_t *)object, key, value)
    {
        if (count++ < SHOWN)
            fprintf(out, "%s%.40s", count > 1 ? ", " : "", key);
    }
    fprintf(out, "%s", count > SHOWN ? ", ..." : count ? "" : "no field");
    if (fclose(out))
        die("out of memory");
    error =
        xprintf("wanted %s; the row has %s; name what holds the text with --field", wanted, text);
    free(text);
    return error;
}

static char *conversation_text(const json_t *object, json_t *conversation, enum chat_style style,
                               struct passage *passage)
{
    json_t *messages = sharegpt_messages(conversation);
    char *error = chat_text(style, messages, json_object_get(object, "tools"), passage);
    json_decref(messages);
    return error;
}

static char *object_text(const json_t *object, const char *field, enum chat_style style,
                         struct passage *passage)
{
    static const char *const usual[] = {"text", "article", "prompt+response", "messages",
                                        "conversations"};
    enum { USUAL = sizeof usual / sizeof *usual };
    if (!json_is_object(object))
        return xprintf("a row must be a JSON object, such as {\"text\": \"...\"}");
    const char *const *names = field ? &field : usual;
    size_t count = field ? 1 : USUAL;
    for (size_t i = 0; i < count; i++) {
        if (!present(object, names[i]))
            continue;
        json_t *value = json_object_get(object, names[i]);
        return json_is_array(value) ? conversation_text(object, value, style, passage)
                                    : join(object, names[i], passage);
    }
    for (size_t i = 0; i < count; i++)
        if (is_null(object, names[i]))
            return NULL;
    return no_field(
        object, field ? field : "text, article, prompt and response, messages, or conversations");
}

char *sample_text(const char *row, size_t length, const char *field, enum chat_style style,
                  struct passage *passage)
{
    *passage = (struct passage){0};
    json_error_t reason;
    json_t *object =
        json_load_within(row, length, JSON_ALLOW_NUL | JSON_DECODE_ANY, ROW_PARSED_MAX, &reason);
    if (!object)
        return xprintf("%s", reason.text);
    char *error = object_text(object, field, style, passage);
    json_decref(object);
    return error;
}

/* ---- files ---- */

/* Read more; move unprocessed data to the front. */
static void fill(struct samples *s)
{
    memmove(s->data, s->data + s->begin, s->end - s->begin);
    s->end -= s->begin;
    s->begin = 0;
    if (s->end == s->room) {
        if (s->room >= SAMPLE_MAX)
            die("%s: line %" PRIu64 ": longer than %d MiB; is this text, or JSON lines?",
                samples_name(s), s->next, SAMPLE_MAX >> 20);
        s->room *= 2;
        s->data = xgrow(s->data, s->room, 1);
    }
    size_t got = unpacked_read(s->file, s->data + s->end, s->room - s->end);
    s->end += got;
    s->ended = got == 0;
}

/* Take the next `size` bytes, after checking that they are UTF-8, and not binary data or UTF-16
 * that happen to be. */
static const char *take(struct samples *s, size_t size)
{
    const char *text = s->data + s->begin;
    s->line = s->next;
    size_t valid = size ? utf8_valid(text, size) : 0;
    const char *nul = valid ? memchr(text, 0, valid) : NULL;
    if (nul)
        valid = (size_t)(nul - text);
    for (size_t i = 0; i < valid; i++)
        s->next += text[i] == '\n';
    if (nul)
        die("%s: line %" PRIu64 ", offset %" PRIu64 ": a NUL byte; it is UTF-16, an archive or "
            "another binary file: make UTF-8 text of it first",
            samples_name(s), s->next, s->offset + valid);
    if (valid < size)
        die("%s: line %" PRIu64 ", offset %" PRIu64 ": not UTF-8 (byte 0x%02x); convert the file "
            "first, for example with iconv",
            samples_name(s), s->next, s->offset + valid, (uint8_t)text[valid]);
    s->begin += size;
    s->offset += size;
    return text;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Skip blanks. Returns the next byte, which is not taken, or EOF. */
static int skip_blanks(struct samples *s)
{
    for (;;) {
        size_t blanks = 0;
        while (s->begin + blanks < s->end && is_blank(s->data[s->begin + blanks]))
            blanks++;
        take(s, blanks);
        if (s->begin < s->end)
            return (uint8_t)s->data[s->begin];
        if (s->ended)
            return EOF;
        fill(s);
    }
}

static void skip_mark(struct samples *s)
{
    static const char mark[] = "\xef\xbb\xbf";
    if (s->end >= 3 && !memcmp(s->data, mark, 3))
        take(s, 3);
}

/* True if the first byte other than blanks opens an array. */
static bool begins_array(const struct samples *s)
{
    const char *at = s->data + s->begin, *end = s->data + s->end;
    while (at < end && is_blank(*at))
        at++;
    return at < end && *at == '[';
}

struct samples *samples_open(const char *path, enum samples_format format, const char *field,
                             enum chat_style style)
{
    struct samples *s = xalloc(1, sizeof *s);
    *s = (struct samples){.file = unpacked_open(path),
                          .format = format,
                          .field = field,
                          .style = style,
                          .next = 1,
                          .room = (size_t)2 * PIECE};
    s->data = xgrow(NULL, s->room, 1);
    fill(s);
    skip_mark(s);
    s->array = format == SAMPLES_JSONL && begins_array(s);
    if (s->array && skip_blanks(s) == '[')
        take(s, 1);
    return s;
}

void samples_close(struct samples *s)
{
    unpacked_close(s->file);
    passage_free(&s->passage);
    free(s->data);
    free(s);
}

/* The length of the next line with its newline; 0 if it is incomplete. */
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

/* The length of the next value, up to its closing brace or the delimiter after it; 0 if it is
 * incomplete. */
static size_t whole_value(const struct samples *s)
{
    size_t depth = 0;
    bool quoted = false;
    for (size_t at = s->begin; at < s->end; at++) {
        char c = s->data[at];
        if (quoted) {
            at += c == '\\';
            quoted = c != '"';
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (!depth && (c == ',' || c == ']' || c == '}')) {
            return at - s->begin;
        } else if ((c == '}' || c == ']') && !--depth) {
            return at + 1 - s->begin;
        }
    }
    return 0;
}

/* Take as many bytes as `whole` says, or the rest of the file; false at the end. */
static bool take_whole(struct samples *s, size_t (*whole)(const struct samples *s),
                       const char **text, size_t *length)
{
    while (!(*length = whole(s)) && !s->ended)
        fill(s);
    if (!*length)
        *length = s->end - s->begin;
    *text = take(s, *length);
    return *length > 0;
}

/* Take the next member of the array; false at its end. */
static bool take_member(struct samples *s, const char **text, size_t *length)
{
    int c = skip_blanks(s);
    if (c == ']') {
        take(s, 1);
        if (skip_blanks(s) != EOF)
            die("%s: line %" PRIu64 ": text after the array's end", samples_name(s), s->next);
        s->array = false; /* nothing is left */
        return false;
    }
    if (c == EOF)
        die("%s: line %" PRIu64 ": the array has no end; is the file whole?", samples_name(s),
            s->next);
    if (s->rows++) {
        if (c != ',')
            die("%s: line %" PRIu64 ": wanted a comma, or the array's end", samples_name(s),
                s->next);
        take(s, 1);
        skip_blanks(s);
    }
    take_whole(s, whole_value, text, length);
    return true;
}

static bool blank(const char *line, size_t length)
{
    while (length && is_blank(line[length - 1]))
        length--;
    return !length;
}

static bool take_row(struct samples *s, const char **text, size_t *length)
{
    if (s->array)
        return take_member(s, text, length);
    do
        if (!take_whole(s, whole_line, text, length))
            return false;
    while (blank(*text, *length));
    return true;
}

bool samples_next(struct samples *s, struct passage *passage)
{
    const char *text;
    size_t length;
    if (s->format == SAMPLES_TEXT) {
        bool more = take_whole(s, whole_piece, &text, &length);
        *passage = (struct passage){.text = (char *)text, .length = length};
        return more;
    }
    while (take_row(s, &text, &length)) {
        passage_free(&s->passage);
        char *error = sample_text(text, length, s->field, s->style, &s->passage);
        if (error)
            die("%s: line %" PRIu64 ": %s", samples_name(s), s->line, error);
        *passage = s->passage;
        if (passage->text)
            return true;
        s->nulls++;
    }
    return false;
}

uint64_t samples_nulls(const struct samples *s)
{
    return s->nulls;
}

const char *samples_name(const struct samples *s)
{
    return unpacked_name(s->file);
}

uint64_t samples_line(const struct samples *s)
{
    return s->line;
}

uint64_t samples_bytes(const struct samples *s)
{
    return unpacked_bytes(s->file);
}
