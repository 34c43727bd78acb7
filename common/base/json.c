#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/text.h"
#include "base/utf8.h"

enum { WINDOW = 1 << 16, STRING_MAX = 1 << 16, DEPTH_MAX = 64 };

struct json_walk {
    json_fill *fill;
    void *context;
    char *error;
    uint64_t consumed; /* bytes before window[0] */
    size_t at, length;
    bool ended;
    bool first; /* no member of the innermost container has been read yet */
    unsigned depth;
    char closing[DEPTH_MAX];
    char window[WINDOW];
    char string[STRING_MAX + 8];
};

size_t json_fill_file(void *context, char *data, size_t room)
{
    ssize_t got;
    do
        got = read(*(int *)context, data, room);
    while (got < 0 && errno == EINTR);
    return got > 0 ? (size_t)got : 0;
}

struct json_walk *json_walk_new(json_fill *fill, void *context)
{
    struct json_walk *walk = xalloc(1, sizeof *walk);
    walk->fill = fill;
    walk->context = context;
    return walk;
}

void json_walk_free(struct json_walk *walk)
{
    if (walk)
        free(walk->error);
    free(walk);
}

const char *json_walk_error(const struct json_walk *walk)
{
    return walk->error;
}

void json_walk_fail(struct json_walk *walk, const char *format, ...)
{
    if (walk->error)
        return;
    va_list args;
    va_start(args, format);
    char *reason;
    if (vasprintf(&reason, format, args) < 0)
        die("out of memory");
    va_end(args);
    walk->error =
        xprintf("JSON offset %" PRIu64 ": %s", walk->consumed + walk->at, printable(reason));
    free(reason);
}

/* The next byte without consuming it, or -1 at the end or after an error. */
static int peek(struct json_walk *walk)
{
    if (walk->error)
        return -1;
    if (walk->at == walk->length && !walk->ended) {
        walk->consumed += walk->length;
        walk->at = 0;
        walk->length = walk->fill(walk->context, walk->window, sizeof walk->window);
        walk->ended = walk->length == 0;
    }
    return walk->at < walk->length ? (unsigned char)walk->window[walk->at] : -1;
}

static int take(struct json_walk *walk)
{
    int c = peek(walk);
    if (c >= 0)
        walk->at++;
    return c;
}

static bool take_text(struct json_walk *walk, const char *text)
{
    while (*text)
        if (take(walk) != *text++)
            return false;
    return true;
}

static int peek_token(struct json_walk *walk)
{
    int c;
    while ((c = peek(walk)) == ' ' || c == '\t' || c == '\n' || c == '\r')
        walk->at++;
    return c;
}

static bool expect(struct json_walk *walk, char wanted)
{
    if (peek_token(walk) != wanted) {
        json_walk_fail(walk, "wanted '%c'", wanted);
        return false;
    }
    walk->at++;
    return true;
}

static bool enter(struct json_walk *walk, char opening, char closing)
{
    if (!expect(walk, opening))
        return false;
    if (walk->depth == DEPTH_MAX) {
        json_walk_fail(walk, "nested deeper than %d", DEPTH_MAX);
        return false;
    }
    walk->closing[walk->depth++] = closing;
    walk->first = true;
    return true;
}

bool json_walk_object(struct json_walk *walk)
{
    return enter(walk, '{', '}');
}

bool json_walk_array(struct json_walk *walk)
{
    return enter(walk, '[', ']');
}

bool json_walk_item(struct json_walk *walk)
{
    int c = peek_token(walk);
    if (walk->error || !walk->depth)
        return false;
    if (c == walk->closing[walk->depth - 1]) {
        walk->at++;
        walk->depth--;
        walk->first = false;
        return false;
    }
    if (!walk->first && !expect(walk, ','))
        return false;
    walk->first = false;
    return true;
}

bool json_walk_key(struct json_walk *walk, const char **key)
{
    if (!json_walk_item(walk))
        return false;
    *key = json_walk_string(walk);
    return *key && expect(walk, ':');
}

static bool hex4(struct json_walk *walk, unsigned *value)
{
    *value = 0;
    for (int i = 0; i < 4; i++) {
        int c = take(walk);
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) {
            json_walk_fail(walk, "malformed \\u escape");
            return false;
        }
        *value = *value << 4 | (unsigned)digit;
    }
    return true;
}

static size_t put_utf8(char *out, unsigned code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

static bool take_escape(struct json_walk *walk, unsigned *code)
{
    int c = take(walk);
    switch (c) {
    case '"':
    case '\\':
    case '/':
        *code = (unsigned)c;
        return true;
    case 'b':
        *code = '\b';
        return true;
    case 'f':
        *code = '\f';
        return true;
    case 'n':
        *code = '\n';
        return true;
    case 'r':
        *code = '\r';
        return true;
    case 't':
        *code = '\t';
        return true;
    case 'u': {
        unsigned low;
        if (!hex4(walk, code))
            return false;
        if (*code >= 0xd800 && *code < 0xdc00) {
            if (!take_text(walk, "\\u") || !hex4(walk, &low) || low < 0xdc00 || low > 0xdfff) {
                json_walk_fail(walk, "half a surrogate pair");
                return false;
            }
            *code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
        } else if (*code >= 0xdc00 && *code < 0xe000) {
            json_walk_fail(walk, "half a surrogate pair");
            return false;
        }
        return true;
    }
    default:
        json_walk_fail(walk, "unknown escape");
        return false;
    }
}

/* One non-ASCII character, whose first byte is c, checked and copied. Returns its length. */
static size_t take_utf8(struct json_walk *walk, int c, char *out)
{
    unsigned length = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2, code;
    static const unsigned lead[5] = {0, 0, 0x1f, 0x0f, 0x07},
                          least[5] = {0, 0, 0x80, 0x800, 0x10000};
    code = (unsigned)c & lead[length];
    for (unsigned i = 1; i < length; i++) {
        int next = take(walk);
        if (next < 0 || (next & 0xc0) != 0x80) {
            json_walk_fail(walk, "not UTF-8");
            return 0;
        }
        code = code << 6 | ((unsigned)next & 0x3f);
    }
    if (c < 0xc2 || c > 0xf4 || code < least[length] || code > 0x10ffff ||
        (code >= 0xd800 && code < 0xe000)) {
        json_walk_fail(walk, "not UTF-8");
        return 0;
    }
    return put_utf8(out, code);
}

/* Take the characters that stand for themselves, as far as they are read and there is room; returns
 * the length of the string then. */
static size_t take_plain(struct json_walk *walk, size_t length)
{
    for (; walk->at < walk->length && length < STRING_MAX; walk->at++) {
        unsigned char c = (unsigned char)walk->window[walk->at];
        if (c < ' ' || c >= 0x80 || c == '"' || c == '\\')
            break;
        walk->string[length++] = (char)c;
    }
    return length;
}

const char *json_walk_string(struct json_walk *walk)
{
    if (!expect(walk, '"'))
        return NULL;
    size_t length = 0;
    for (;;) {
        length = take_plain(walk, length);
        int c = take(walk);
        if (c == '"')
            break;
        if (c < 0)
            json_walk_fail(walk, "a string does not end");
        else if (c < ' ')
            json_walk_fail(walk, "a control character in a string");
        else if (length >= STRING_MAX)
            json_walk_fail(walk, "a string longer than %d bytes", STRING_MAX);
        if (walk->error)
            return NULL;
        if (c == '\\') {
            unsigned code = 0;
            if (take_escape(walk, &code) && code == 0)
                json_walk_fail(walk, "a NUL character in a string");
            length += put_utf8(walk->string + length, code);
        } else if (c < 0x80) {
            walk->string[length++] = (char)c;
        } else {
            length += take_utf8(walk, c, walk->string + length);
        }
        if (walk->error)
            return NULL;
    }
    walk->string[length] = 0;
    return walk->string;
}

bool json_walk_number(struct json_walk *walk, uint64_t *number)
{
    int first = peek_token(walk), c;
    unsigned digits = 0;
    *number = 0;
    while ((c = peek(walk)) >= '0' && c <= '9') {
        if (!mul_fits(*number, 10, number) || !add_fits(*number, (uint64_t)(c - '0'), number)) {
            json_walk_fail(walk, "a number beyond 64 bits");
            return false;
        }
        digits++;
        walk->at++;
    }
    if (walk->error || digits == 0 || (first == '0' && digits > 1) || c == '.' || c == 'e' ||
        c == 'E') {
        json_walk_fail(walk, "wanted a non-negative whole number");
        return false;
    }
    return true;
}

static bool skip_digits(struct json_walk *walk)
{
    unsigned digits = 0;
    for (int c; (c = peek(walk)) >= '0' && c <= '9'; digits++)
        walk->at++;
    return digits > 0;
}

static void skip_number(struct json_walk *walk)
{
    if (peek(walk) == '-')
        walk->at++;
    bool zero = peek(walk) == '0';
    if (zero)
        walk->at++;
    bool good = zero || skip_digits(walk);
    if (good && peek(walk) == '.') {
        walk->at++;
        good = skip_digits(walk);
    }
    if (good && (peek(walk) == 'e' || peek(walk) == 'E')) {
        walk->at++;
        if (peek(walk) == '+' || peek(walk) == '-')
            walk->at++;
        good = skip_digits(walk);
    }
    if (!good)
        json_walk_fail(walk, "malformed number");
}

static void skip_word(struct json_walk *walk, const char *word)
{
    if (!take_text(walk, word))
        json_walk_fail(walk, "unknown word");
}

bool json_walk_skip(struct json_walk *walk)
{
    const char *key;
    int c = peek_token(walk);
    if (c == '{') {
        for (json_walk_object(walk); json_walk_key(walk, &key);)
            json_walk_skip(walk);
    } else if (c == '[') {
        for (json_walk_array(walk); json_walk_item(walk);)
            json_walk_skip(walk);
    } else if (c == '"') {
        json_walk_string(walk);
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        skip_number(walk);
    } else if (c == 't') {
        skip_word(walk, "true");
    } else if (c == 'f') {
        skip_word(walk, "false");
    } else {
        skip_word(walk, "null");
    }
    return !walk->error;
}

bool json_walk_end(struct json_walk *walk)
{
    if (peek_token(walk) >= 0)
        json_walk_fail(walk, "something follows the end of the document");
    return !walk->error;
}

/* What the values of a document take as a tree, at most; of one that is none, anything. */
static uint64_t memory_of(const char *data, size_t length)
{
    enum {
        MEMBER = 128,
        ARRAY = 192,
        OBJECT = 384
    }; /* of Jansson, tables and allocation included */
    uint64_t bytes = MEMBER;
    bool in_string = false;
    for (const char *p = data; p < data + length; p++) {
        if (in_string && *p == '\\')
            p++;
        else if (*p == '"')
            in_string = !in_string;
        else if (!in_string)
            bytes += *p == ',' ? MEMBER : *p == '[' ? ARRAY : *p == '{' ? OBJECT : 0;
    }
    return bytes + length;
}

static json_t *refuse(json_error_t *error, const char *why)
{
    if (error) {
        error->line = 1;
        snprintf(error->text, sizeof error->text, "%s", why);
    }
    return NULL;
}

json_t *json_load_within(const char *data, size_t length, size_t flags, size_t most,
                         json_error_t *error)
{
    return memory_of(data, length) > most ? refuse(error, "far too many values")
                                          : json_loadb(data, length, flags, error);
}

json_t *json_file_within(const char *path, size_t flags, json_error_t *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return refuse(error, strerror(errno));
    char *data = xgrow(NULL, JSON_FILE_MAX + 1, 1);
    size_t length = 0;
    for (size_t got; (got = json_fill_file(&fd, data + length, JSON_FILE_MAX + 1 - length)) > 0;)
        length += got;
    close(fd);
    json_t *value = length > JSON_FILE_MAX
                        ? refuse(error, "more than 1 MiB")
                        : json_load_within(data, length, flags, JSON_MEMORY, error);
    free(data);
    return value;
}

json_t *json_object_from(const char *data, size_t length, const char *name)
{
    json_error_t error;
    json_t *value = json_load_within(data, length, JSON_REJECT_DUPLICATES, JSON_MEMORY, &error);
    if (!value)
        die("%s: line %d: %s; it is damaged, make or get it again", name, error.line,
            printable(error.text));
    if (!json_is_object(value))
        die("%s: not a JSON object; it is damaged, make or get it again", name);
    return value;
}

/* Only strings hold what is escaped here, of which Jansson has escaped C0. */
void json_print(FILE *out, const json_t *value, bool indent)
{
    char *text = json_dumps(value, (indent ? JSON_INDENT(2) : JSON_COMPACT) | JSON_ENCODE_ANY |
                                       JSON_REAL_PRECISION(17));
    if (!text)
        die("out of memory");
    const char *end = text + strlen(text);
    bool valid;
    for (const char *p = text; p < end;) {
        size_t length = utf8_step(p, (size_t)(end - p), &valid);
        uint32_t code = valid ? utf8_decode(p) : '?';
        if (code >= 0x10000 && !text_is_plain(code))
            fprintf(out, "\\u%04x\\u%04x", 0xd800 + ((code - 0x10000) >> 10),
                    0xdc00 + (code & 0x3ff));
        else if (code != '\n' && !text_is_plain(code))
            fprintf(out, "\\u%04x", code);
        else
            fwrite(p, 1, length, out);
        p += length;
    }
    free(text);
}

char *json_text(const json_t *value, bool indent, bool sorted)
{
    char *text = json_dumps(value, (indent ? JSON_INDENT(2) : JSON_COMPACT) |
                                       (sorted ? JSON_SORT_KEYS : JSON_PRESERVE_ORDER) |
                                       JSON_REAL_PRECISION(17));
    if (!text)
        die("out of memory");
    char *line = xprintf("%s\n", text);
    free(text);
    return line;
}
