#include "text/token_classes.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/names.h"
#include "base/utf8.h"
#include "text/normal_form.h"

/* A text of one token, NUL-terminated. */
struct key {
    char *text;
    size_t length;
};

static void append(struct key *key, const char *text, size_t length)
{
    memcpy(key->text + key->length, text, length);
    key->length += length;
    key->text[key->length] = 0;
}

/* ---- characters ---- */

static bool is_mark(uint32_t code)
{
    for (size_t i = 0; i < sizeof normal_marks / sizeof *normal_marks; i++)
        if (code >= normal_marks[i].first && code <= normal_marks[i].last)
            return true;
    return false;
}

static int by_code(const void *key, const void *entry)
{
    uint32_t a = *(const uint32_t *)key, b = ((const struct normal_form *)entry)->code;
    return (a > b) - (a < b);
}

/* Append the normal form of the character at `text`, `length` bytes. */
static void append_normal(struct key *key, const char *text, size_t length)
{
    uint32_t code = utf8_decode(text);
    char lower = (char)(code >= 'A' && code <= 'Z' ? code + 'a' - 'A' : code);
    if (code < 0x80) {
        append(key, &lower, 1);
        return;
    }
    const struct normal_form *form = bsearch(
        &code, normal_form, sizeof normal_form / sizeof *normal_form, sizeof *form, by_code);
    if (form)
        append(key, form->to, strlen(form->to));
    else if (!is_mark(code))
        append(key, text, length);
}

/* Unicode's White_Space. */
static bool is_space(uint32_t code)
{
    return (code >= 0x9 && code <= 0xd) || code == ' ' || code == 0x85 || code == 0xa0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
           code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

/* ---- keys ---- */

static void collapse_spaces(struct key *key)
{
    size_t to = 0;
    for (size_t i = 0; i < key->length; i++) {
        bool space = strchr(" \t\r\n", key->text[i]) && key->text[i];
        if (space)
            key->text[i] = ' ';
        if (!space || !to || key->text[to - 1] != ' ')
            key->text[to++] = key->text[i];
    }
    key->text[to] = 0;
    key->length = to;
}

/* Remove spaces at both ends. */
static void strip(struct key *key)
{
    bool valid;
    size_t first = 0, end = 0;
    for (size_t i = 0, step; i < key->length; i += step) {
        step = utf8_step(key->text + i, key->length - i, &valid);
        bool space = is_space(utf8_decode(key->text + i));
        if (!space)
            end = i + step;
        else if (!end)
            first = i + step;
    }
    key->length = end > first ? end - first : 0;
    memmove(key->text, key->text + first, key->length);
    key->text[key->length] = 0;
}

/* What decoding makes of incomplete characters; some tokens have it themselves. */
static const char replacement[] = "\xEF\xBF\xBD";

/* The key of a token: its normal form, or itself if nothing is left of it. Of an incomplete
 * character, or U+FFFD, what tokenizer.json writes for its bytes. */
static void make_key(struct key *key, const char *token, size_t length)
{
    enum { GROWTH = 8 }; /* bytes of a form for each of the character */
    bool valid;
    char letter[4];
    key->text = xgrow(key->text, GROWTH * length + 1, 1);
    key->text[0] = 0;
    key->length = 0;
    if (utf8_valid(token, length) < length || memmem(token, length, replacement, 3)) {
        for (size_t i = 0; i < length; i++)
            append(key, letter, utf8_put(bpe_letter((unsigned char)token[i]), letter));
        return;
    }
    for (size_t i = 0, step; i < length; i += step) {
        step = utf8_step(token + i, length - i, &valid);
        append_normal(key, token + i, step);
    }
    collapse_spaces(key);
    if (!strcmp(key->text, " "))
        return;
    strip(key);
    if (!key->length)
        append(key, token, length);
}

uint64_t token_classes(const struct tokenizer *t, int32_t *class, uint64_t size)
{
    struct names *names = names_new();
    struct key key = {0};
    uint64_t count = 0;
    for (uint64_t id = 0; id < size; id++) {
        size_t length;
        const char *token = tokenizer_token(t, (int32_t)id, &length);
        class[id] = -1;
        if (!token)
            continue;
        make_key(&key, token, length);
        class[id] = (int32_t)names_add(names, key.text);
        count = (uint64_t) class[id] + 1 > count ? (uint64_t) class[id] + 1 : count;
    }
    names_free(names);
    free(key.text);
    return count;
}
