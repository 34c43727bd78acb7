/* The tokenizer: the reference's ids on golden files, small tokenizers that differ in one thing,
 * and what is refused. */
#include "text/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/die.h"
#include "base/utf8.h"
#include "text/chat_template.h"
#include "text/pattern.h"
#include "text/python_json.h"
#include "text/samples.h"

#define DATA "test/data/tokenizer/"
#define FIXTURE "../shared/fixtures/tokenizer/golden.jsonl"

/* ---- golden files ---- */

/* Encode a text; its ids must be those of `wanted`. */
static void check_ids(struct tokenizer *t, const json_t *text, const json_t *wanted,
                      const char *what)
{
    struct ids ids = {0};
    /* A copy of the exact size, so that sanitizers see every byte read too far. */
    size_t length = json_string_length(text);
    char *copy = malloc(length ? length : 1);
    assert_non_null(copy);
    memcpy(copy, json_string_value(text), length);
    assert_null(tokenizer_encode(t, copy, length, SIZE_MAX, &ids));
    bool same = ids.count == json_array_size(wanted);
    for (size_t i = 0; same && i < ids.count; i++)
        same = ids.id[i] == json_integer_value(json_array_get(wanted, i));
    if (!same) {
        char *numbers = json_dumps(wanted, JSON_COMPACT);
        fail_msg("%s: '%s': wanted %zu ids, %.200s; got %zu, the first %d", what, copy,
                 json_array_size(wanted), numbers, ids.count, ids.count ? ids.id[0] : -1);
    }
    free(copy);
    free(ids.id);
}

/* The text must come back from the golden ids. */
static void check_text(struct tokenizer *t, const json_t *text, const json_t *ids)
{
    size_t count = json_array_size(ids), length;
    int32_t *id = malloc((count + 1) * sizeof *id);
    assert_non_null(id);
    for (size_t i = 0; i < count; i++)
        id[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    char *back;
    assert_int_equal(tokenizer_decode(t, id, count, &back, &length), count);
    assert_int_equal(length, json_string_length(text));
    assert_memory_equal(back, json_string_value(text), length);
    free(back);
    free(id);
}

/* Each line of a JSONL file; returns how many there are. */
static size_t each_line(const char *path, void (*check)(const json_t *line, void *context),
                        void *context)
{
    FILE *file = fopen(path, "r");
    char *text = NULL;
    size_t room = 0, lines = 0;
    assert_non_null(file);
    for (ssize_t length; (length = getline(&text, &room, file)) > 0; lines++) {
        json_t *line = json_loadb(text, (size_t)length, JSON_ALLOW_NUL, NULL);
        assert_non_null(line);
        check(line, context);
        json_decref(line);
    }
    free(text);
    fclose(file);
    return lines;
}

struct column {
    struct tokenizer *t;
    const char *name;
};

static void check_line(const json_t *line, void *context)
{
    const struct column *column = context;
    const json_t *text = json_object_get(line, "text"), *ids = json_object_get(line, column->name);
    assert_true(json_is_string(text) && json_is_array(ids));
    check_ids(column->t, text, ids, column->name);
    check_text(column->t, text, ids);
}

static void check_golden(const char *tokenizer, const char *name)
{
    struct column column = {tokenizer_open(tokenizer), name};
    assert_true(each_line(DATA "golden.jsonl", check_line, &column) > 300);
    if (!access(FIXTURE, R_OK))
        assert_true(each_line(FIXTURE, check_line, &column) > 700);
    tokenizer_free(column.t);
}

static void golden_nano(void **state)
{
    (void)state;
    check_golden("test/data/v4-nano/ckpt", "nano");
}

static void golden_deepseek(void **state)
{
    (void)state;
    const char *path = getenv("DEEPSEEK_TOKENIZER");
    if (!path)
        skip(); /* set it to the tokenizer.json that test/data/tokenizer/README.md names */
    check_golden(path, "deepseek");
}

/* ---- small tokenizers ---- */

static json_t *tiny(void)
{
    json_t *tokenizer = json_load_file(DATA "tiny.json", 0, NULL);
    assert_non_null(tokenizer);
    return tokenizer;
}

/* The error text of what a tokenizer.json is refused for, or NULL. */
static char *parse_text(struct tokenizer **t, const char *text, size_t length)
{
    char *copy = malloc(length ? length : 1);
    assert_non_null(copy);
    memcpy(copy, text, length);
    char *error = tokenizer_parse(t, copy, length);
    free(copy);
    return error;
}

static char *parse(struct tokenizer **t, const json_t *tokenizer)
{
    char *text = json_dumps(tokenizer, JSON_COMPACT);
    assert_non_null(text);
    char *error = parse_text(t, text, strlen(text));
    free(text);
    return error;
}

/* RFC 7396, less the removal of members. */
static void merge_patch(json_t *target, const json_t *patch)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)patch, key, value)
    {
        json_t *old = json_object_get(target, key);
        if (json_is_object(value) && json_is_object(old))
            merge_patch(old, value);
        else
            json_object_set_new(target, key, json_deep_copy(value));
    }
}

static void check_variant(const json_t *line, void *context)
{
    (void)context;
    const json_t *texts = json_object_get(line, "texts"), *ids = json_object_get(line, "ids");
    json_t *tokenizer = tiny();
    merge_patch(tokenizer, json_object_get(line, "change"));
    struct tokenizer *t;
    assert_null(parse(&t, tokenizer));
    assert_int_equal(json_array_size(texts), json_array_size(ids));
    for (size_t i = 0; i < json_array_size(texts); i++)
        check_ids(t, json_array_get(texts, i), json_array_get(ids, i),
                  json_string_value(json_object_get(line, "name")));
    tokenizer_free(t);
    json_decref(tokenizer);
}

static void variants(void **state)
{
    (void)state;
    assert_int_equal(each_line(DATA "variants.jsonl", check_variant, NULL), 14);
}

/* tiny.json with a patch is refused with `words`. */
static void refused(const char *patch, const char *words)
{
    json_t *tokenizer = tiny();
    json_error_t reason;
    json_t *change = json_loads(patch, 0, &reason);
    if (!change)
        fail_msg("%s: %s", patch, reason.text);
    merge_patch(tokenizer, change);
    struct tokenizer *t;
    char *error = parse(&t, tokenizer);
    if (!error || !strstr(error, words))
        fail_msg("%s: wanted '%s', got '%s'", patch, words, error ? error : "no error");
    free(error);
    tokenizer_free(t);
    json_decref(change);
    json_decref(tokenizer);
}

/* tiny.json with a patch is read, and makes these ids of a text. */
static void accepted(const char *patch, const char *text, const char *wanted)
{
    json_t *tokenizer = tiny();
    json_t *change = json_loads(patch, 0, NULL), *ids = json_loads(wanted, 0, NULL);
    json_t *string = json_string(text);
    assert_true(change && ids && string);
    merge_patch(tokenizer, change);
    struct tokenizer *t;
    char *error = parse(&t, tokenizer);
    if (error)
        fail_msg("%s: refused: %s", patch, error);
    check_ids(t, string, ids, patch);
    tokenizer_free(t);
    json_decref(string);
    json_decref(ids);
    json_decref(change);
    json_decref(tokenizer);
}

#define STEP(text) "{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [" text "]}}"
#define BYTE_LEVEL "{\"type\": \"ByteLevel\"}"
#define SPLIT(pattern)                                                                             \
    "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" pattern "\"}, \"behavior\": \"Isolated\"}"
#define SPLITS_4 SPLIT("a") "," SPLIT("b") "," SPLIT("c") "," SPLIT("d") ","
#define SPLITS_16 SPLITS_4 SPLITS_4 SPLITS_4 SPLITS_4

static void unknown_components(void **state)
{
    (void)state;
    refused("{\"normalizer\": {\"type\": \"NFC\"}}", "normalizer: 'NFC'");
    refused("{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Strip\"}]}}",
            "normalizer: 'Strip'");
    refused("{\"normalizer\": 7}", "normalizer: ");
    refused("{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{}]}}",
            "normalizer: 'without a type'");
    refused("{\"decoder\": {\"type\": \"Metaspace\"}}", "decoder: 'Metaspace'");
    refused("{\"pre_tokenizer\": null}", "pre_tokenizer: ");
    refused("{\"pre_tokenizer\": {\"type\": \"Whitespace\"}}", "'Whitespace' is not supported");
    refused(STEP(""), "an empty Sequence");
    refused(STEP(BYTE_LEVEL ", " BYTE_LEVEL), "'ByteLevel' is not supported before the last");
    refused(STEP(SPLIT("a")), "wanted ByteLevel");
    refused(STEP(SPLITS_16 SPLITS_16 BYTE_LEVEL), "more than 16 steps");
    refused(STEP(SPLITS_16 BYTE_LEVEL), "more than 16 steps"); /* a space before is a step */
    refused(STEP("{\"type\": \"Digits\"}, " BYTE_LEVEL), "'Digits'");
    refused(STEP("{\"type\": \"Split\", \"pattern\": {\"String\": \" \"}}, " BYTE_LEVEL),
            "of kind Regex");
    refused(STEP("{\"type\": \"Split\", \"pattern\": {\"Regex\": \" \"}, \"behavior\": "
                 "\"MergedWithNext\"}, " BYTE_LEVEL),
            "behavior 'MergedWithNext'");
    refused("{\"model\": {\"type\": \"Unigram\"}}", "wanted BPE, got 'Unigram'");
    refused("{\"model\": {\"dropout\": 0.1}}", "dropout");
    refused("{\"model\": {\"unk_token\": \"<unk>\"}}", "unk_token");
    refused("{\"model\": {\"end_of_word_suffix\": \"</w>\"}}", "end_of_word_suffix");
    refused("{\"model\": {\"byte_fallback\": true}}", "byte_fallback");
    refused("{\"model\": 1}", "model: ");
}

/* What says in so many words that it is not there. */
static void components_that_are_empty(void **state)
{
    (void)state;
    accepted("{\"model\": {\"dropout\": 0, \"byte_fallback\": false}}", "ab", "[259]");
    accepted("{\"model\": {\"dropout\": 0.0, \"end_of_word_suffix\": \"\"}}", "ab", "[259]");
    accepted("{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": []}}", "ab", "[259]");
    accepted("{\"added_tokens\": [{\"content\": \"\", \"id\": 900}]}", "ab", "[259]");
}

/* A token that is not spelled in the alphabet has an id, but no text becomes it. */
static void unspelled_token(void **state)
{
    (void)state;
    accepted("{\"model\": {\"ignore_merges\": true, \"vocab\": {\"\u4e00\": 900}}}", "\xe4\xb8\x80",
             "[228, 184, 128]");
}

static void wrong_numbers(void **state)
{
    (void)state;
    refused("{\"model\": {\"vocab\": {\"zz\": -1}}}", "is not a number from 0");
    refused("{\"model\": {\"vocab\": {\"zz\": 4000000000}}}", "is not a number from 0");
    refused("{\"model\": {\"vocab\": {\"zz\": 1.5}}}", "is not a number from 0");
    refused("{\"model\": {\"vocab\": {\"zz\": 65}}}", "the id of another token, 65");
    refused("{\"model\": {\"vocab\": {\"word\": 1000}}}", "another id");
    refused("{\"model\": {\"vocab\": []}}", "wanted an object 'vocab'");
    refused("{\"model\": {\"merges\": [\"a b c\"]}}", "merges[0]: wanted");
    refused("{\"model\": {\"merges\": [\"ab\"]}}", "merges[0]: wanted");
    refused("{\"model\": {\"merges\": [[\"a\"]]}}", "merges[0]: wanted");
    refused("{\"model\": {\"merges\": [[\"a\", 3]]}}", "merges[0]: wanted");
    refused("{\"model\": {\"merges\": [[3, \"a\"]]}}", "merges[0]: wanted");
    refused("{\"model\": {\"merges\": [[\"a\", \"b\"], \"q q\"]}}", "merges[1]: 'q' and 'q'");
    refused("{\"model\": {\"merges\": [\"qq a\"]}}", "merges[0]: 'qq' and 'a'");
    refused("{\"model\": {\"merges\": [\"a qq\"]}}", "merges[0]: 'a' and 'qq'");
    refused("{\"model\": {\"merges\": [\"qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq a\"]}}",
            "merges[0]: 'qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq' and 'a'");
    refused("{\"added_tokens\": [{\"content\": \"x\"}]}", "added_tokens[0]: wanted");
    refused("{\"added_tokens\": [{\"content\": \"xx\", \"id\": -5}]}", "added_tokens[0]: wanted");
    refused("{\"added_tokens\": [{\"content\": \"xx\", \"id\": 99999999}]}", "added_tokens[0]: ");
    refused("{\"added_tokens\": [{\"content\": \"xx\", \"id\": 65}]}", "id of another token, 65");
    refused("{\"added_tokens\": [{\"content\": \"xx\", \"id\": 262}]}", "id of another token, 262");
    refused("{\"added_tokens\": [{\"content\": \"xx\", \"id\": 900}, "
            "{\"content\": \"yy\", \"id\": 900}]}",
            "id of another token, 900");
    refused("{\"added_tokens\": [{\"content\": \"xx\", \"id\": 900}, "
            "{\"content\": \"xx\", \"id\": 901}]}",
            "occurs twice");
}

/* More added tokens than are allowed. */
static void many_added_tokens(void **state)
{
    (void)state;
    json_t *tokenizer = tiny(), *many = json_array();
    for (int i = 0; i <= 1 << 16; i++)
        json_array_append_new(many, json_null());
    json_object_set_new(tokenizer, "added_tokens", many);
    struct tokenizer *t;
    char *error = parse(&t, tokenizer);
    assert_non_null(error);
    assert_non_null(strstr(error, "65537 of them, more than the 65536 allowed"));
    free(error);
    tokenizer_free(t);
    json_decref(tokenizer);
}

/* A vocabulary without a token for some byte, which matters if the byte occurs in UTF-8. */
static void missing_byte(void **state)
{
    (void)state;
    json_t *tokenizer = tiny();
    json_t *vocab = json_object_get(json_object_get(tokenizer, "model"), "vocab");
    static const char *const not_utf8[] = {"\u00c0", "\u00c1", "\u00f5", "\u00fe", "\u00ff"};
    struct tokenizer *t;
    for (size_t i = 0; i < sizeof not_utf8 / sizeof *not_utf8; i++)
        assert_int_equal(json_object_del(vocab, not_utf8[i]), 0);
    assert_null(parse(&t, tokenizer));
    tokenizer_free(t);
    json_object_del(vocab, "~");
    char *error = parse(&t, tokenizer);
    assert_non_null(error);
    assert_non_null(strstr(error, "no token is byte 0x7e"));
    free(error);
    tokenizer_free(t);
    json_decref(tokenizer);
}

/* A tokenizer.json that is cut anywhere is refused; with any byte changed it may be good or not,
 * but nothing else happens. */
static void cut_and_changed(void **state)
{
    (void)state;
    json_t *tokenizer = tiny();
    char *text = json_dumps(tokenizer, JSON_COMPACT);
    assert_non_null(text);
    size_t length = strlen(text);
    struct tokenizer *t;
    for (size_t i = 0; i < length; i++) {
        char *error = parse_text(&t, text, i);
        assert_non_null(error);
        free(error);
        tokenizer_free(t);
    }
    for (size_t i = 0; i < length; i += 3) {
        char old = text[i];
        text[i] = (char)(old ^ (1 << i % 7));
        char *error = parse_text(&t, text, length);
        if (!error) {
            struct ids ids = {0};
            free(tokenizer_encode(t, "the word, <r> ab 12\xc3\xa9", 21, SIZE_MAX, &ids));
            free(ids.id);
        }
        free(error);
        tokenizer_free(t);
        text[i] = old;
    }
    free(text);
    json_decref(tokenizer);
}

/* ---- tokenizer_config.json ---- */

static void configuration(void **state)
{
    (void)state;
    struct tokenizer *t = tokenizer_open("test/data/v4-nano/ckpt");
    assert_int_equal(tokenizer_bos(t), 0);
    assert_int_equal(tokenizer_eos(t), 1);
    assert_int_equal(tokenizer_pad(t), 1);
    assert_null(tokenizer_chat_template(t));
    static const char other[] =
        "{\"bos_token\": \"<｜User｜>\", \"eos_token\": {\"content\": \"<｜Assistant｜>\"}, "
        "\"pad_token\": null, \"chat_template\": [{\"name\": \"tools\", \"template\": \"x\"}, "
        "{\"name\": \"default\", \"template\": \"y\"}]}";
    assert_null(tokenizer_configure(t, other, sizeof other - 1));
    assert_int_equal(tokenizer_bos(t), tokenizer_added(t, "<｜User｜>"));
    assert_int_equal(tokenizer_pad(t), tokenizer_added(t, "<｜Assistant｜>"));
    assert_string_equal(tokenizer_chat_template(t), "y");
    static const char nameless[] = "{\"chat_template\": [{\"template\": \"x\"}, 3]}";
    assert_null(tokenizer_configure(t, nameless, sizeof nameless - 1));
    assert_string_equal(tokenizer_chat_template(t), "y"); /* no default one there */
    static const char *const wrong[] = {"", "[]", "{\"bos_token\": \"nothing\"}",
                                        "{\"eos_token\": 3}", "{\"pad_token\": {}}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *error = tokenizer_configure(t, wrong[i], strlen(wrong[i]));
        assert_non_null(error);
        free(error);
    }
    tokenizer_free(t);
    tokenizer_free(NULL);
}

/* ---- ids ---- */

static void stops_when_enough(void **state)
{
    (void)state;
    struct tokenizer *t = tokenizer_open("test/data/v4-nano/ckpt");
    static const char text[] = "one two three <think> four five six seven eight nine ten";
    struct ids all = {0};
    assert_null(tokenizer_encode(t, text, sizeof text - 1, SIZE_MAX, &all));
    for (size_t enough = 1; enough < all.count; enough++) {
        struct ids some = {0};
        assert_null(tokenizer_encode(t, text, sizeof text - 1, enough, &some));
        assert_true(some.count >= enough && some.count < enough + 8);
        assert_memory_equal(some.id, all.id, some.count * sizeof *some.id);
        free(some.id);
    }
    free(all.id);
    tokenizer_free(t);
}

static void decodes_what_there_is(void **state)
{
    (void)state;
    struct tokenizer *t = tokenizer_open(DATA "tiny.json");
    const int32_t good[] = {'a', 0xc3, 'b', 0xe2, 0x82, 0xff, 0xc3, 0xa9};
    const int32_t bad[] = {'a', 269, 270, 100000};
    char *text;
    size_t length;
    assert_int_equal(tokenizer_decode(t, good, 8, &text, &length), 8);
    assert_string_equal(text, "a\xef\xbf\xbd"
                              "b\xef\xbf\xbd\xef\xbf\xbd\xc3\xa9");
    assert_int_equal(length, strlen(text));
    free(text);
    assert_int_equal(tokenizer_decode(t, bad, 4, &text, &length), 3);
    assert_int_equal(tokenizer_decode(t, (int32_t[]){-1}, 1, &text, &length), 0);
    assert_int_equal(tokenizer_decode(t, NULL, 0, &text, &length), 0);
    assert_int_equal(length, 0);
    free(text);
    tokenizer_free(t);
}

/* "<r>" takes the white space behind it along: the characters of \s, and no others. */
static void strips_white_space(void **state)
{
    (void)state;
    struct tokenizer *t = tokenizer_open(DATA "tiny.json");
    struct pattern *space;
    size_t start, end;
    assert_null(pattern_new(&space, "\\s", 2));
    struct ids ids = {0};
    for (uint32_t code = 1; code < 0x3100; code++) {
        char text[8] = "<r>";
        size_t length = 3 + utf8_put(code, text + 3);
        ids.count = 0;
        assert_null(tokenizer_encode(t, text, length, SIZE_MAX, &ids));
        bool white = pattern_find(space, text, length, 3, &(struct pattern_budget){0}, &start,
                                  &end) == PATTERN_FOUND;
        if ((ids.count == 1) != white)
            fail_msg("U+%04x is %s, but %zu ids came", code, white ? "space" : "none", ids.count);
    }
    free(ids.id);
    pattern_free(space);
    tokenizer_free(t);
}

/* A single word may stand behind a character of four bytes that is of no word. */
static void single_word_behind_four_bytes(void **state)
{
    (void)state;
    accepted("{}", "\U0001f600word", "[240, 159, 152, 128, 266]");
    accepted("{}", "\U00020000word", "[240, 160, 128, 128, 119, 111, 114, 100]");
}

/* One piece of 2 MB: merging it must not take the square of that. */
static void long_piece(void **state)
{
    (void)state;
    struct tokenizer *t = tokenizer_open(DATA "tiny.json");
    enum { COUNT = 1 << 21 };
    char *text = malloc(COUNT);
    assert_non_null(text);
    for (size_t i = 0; i < COUNT; i++)
        text[i] = i % 2 ? 'b' : 'a';
    struct ids ids = {0};
    assert_null(tokenizer_encode(t, text, COUNT, SIZE_MAX, &ids));
    assert_int_equal(ids.count, COUNT / 2); /* "ab" outranks what else there is */
    free(ids.id);
    free(text);
    tokenizer_free(t);
}

/* ---- patterns ---- */

static void syntax(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *words;
    } wrong[] = {
        {"^a", "an anchor"},       {"a$", "an anchor"},        {"\\d", "an escape"},
        {"\\w", "an escape"},      {"\\h", "an escape"},       {"\\b", "an escape"},
        {"\\1", "an escape"},      {"\\", "an escape"},        {"\\p{Han}", "a property"},
        {"\\p{^L}", "a property"}, {"\\p", "a property"},      {"\\pL", "a property"},
        {"[\\S]", "in a class"},   {"[\\P{L}]", "in a class"}, {"[a[b]]", "a class in a class"},
        {"[a&&b]", "a class in"},  {"[[:alpha:]]", "a class"}, {"[]", "begins with ]"},
        {"[a", "a class without"}, {"(?i:a)", "a group"},      {"(?<n>a)", "a group"},
        {"(?R)", "a group"},       {"(*FAIL)", "(*"},          {"a{,3}", "begins no count"},
        {"a{2}+", "after {n,m}"},  {"a{2}?", "after {n,m}"},   {"a{x}", "begins no count"},
        {"(", "pattern: "},        {"*", "pattern: "},         {"a{3,1}", "pattern: "},
        {"(?<=a*)b", "pattern: "}, {"[b-a]", "pattern: "},     {"a{99999}", "pattern: "},
        {"(?C1)", "a group"},      {"(?#x)", "a group"},       {"[^]", "begins with ]"},
        {"\\\x7f", "an escape"},   {"(?", "a group"},          {"a{1", "begins no count"},
        {"\\K", "an escape"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct pattern *pattern;
        char *error = pattern_new(&pattern, wrong[i].pattern, strlen(wrong[i].pattern));
        if (!error || !strstr(error, wrong[i].words))
            fail_msg("%s: wanted '%s', got '%s'", wrong[i].pattern, wrong[i].words,
                     error ? error : "no error");
        free(error);
        pattern_free(pattern);
    }
}

static void too_long(void **state)
{
    (void)state;
    enum { MOST = 1 << 14 };
    char text[MOST + 1];
    struct pattern *pattern;
    memset(text, 'a', sizeof text);
    assert_null(pattern_new(&pattern, text, MOST));
    pattern_free(pattern);
    char *error = pattern_new(&pattern, text, MOST + 1);
    assert_non_null(error);
    assert_non_null(strstr(error, "a pattern of 16385 bytes, more than the 16384 allowed"));
    free(error);
    pattern_free(pattern);
}

static bool matches(const char *text, uint32_t code)
{
    struct pattern *pattern;
    char character[4];
    size_t start, end, size = utf8_put(code, character);
    assert_null(pattern_new(&pattern, text, strlen(text)));
    bool found = pattern_find(pattern, character, size, 0, &(struct pattern_budget){0}, &start,
                              &end) == PATTERN_FOUND;
    pattern_free(pattern);
    return found;
}

/* White_Space and categories as Unicode 16 has them, whatever PCRE2 knows. */
static void categories(void **state)
{
    (void)state;
    static const uint32_t space[] = {'\t', '\n',   0xb,    0xc,    '\r',   ' ',   0x85,
                                     0xa0, 0x1680, 0x2000, 0x200a, 0x2028, 0x3000};
    for (size_t i = 0; i < sizeof space / sizeof *space; i++) {
        assert_true(matches("\\s", space[i]));
        assert_false(matches("[^\\s]", space[i]));
        assert_false(matches("\\S", space[i]));
    }
    assert_true(matches("\\r", '\r') && matches("[\\n]", '\n') && matches("\\t", '\t'));
    assert_false(matches("\\s", 0x180e));
    assert_true(matches("\\S", 0x180e));
    assert_false(matches("\\s", 0x200b));
    assert_true(matches("\\p{S}", 0x1fae8));    /* 15.0 */
    assert_true(matches("[x\\p{S}]", 0x1fae9)); /* 16.0 */
    assert_false(matches("\\P{S}", 0x1fae9));
    assert_true(matches("\\p{L}", 0x1c89)); /* 16.0 */
    assert_true(matches("\\p{N}", 0x10d40));
    assert_true(matches("\\p{M}", 0x897));
    assert_true(matches("\\p{P}", 0x1b4e));
    assert_false(matches("\\p{L}", 0x378)); /* assigned by none */
}

static void gives_up(void **state)
{
    (void)state;
    json_t *tokenizer = tiny();
    json_t *change = json_loads(STEP(SPLIT("(?:a|aa|a+)+(?:b|d)") "," BYTE_LEVEL), 0, NULL);
    assert_non_null(change);
    merge_patch(tokenizer, change);
    struct tokenizer *t;
    assert_null(parse(&t, tokenizer));
    char text[4000];
    memset(text, 'a', sizeof text);
    struct ids ids = {0};
    char *error = tokenizer_encode(t, text, sizeof text, SIZE_MAX, &ids);
    assert_non_null(error);
    assert_non_null(strstr(error, "too many steps on this text: (?:a|aa|a+)+(?:b|d)"));
    free(error);
    free(ids.id);
    tokenizer_free(t);
    json_decref(change);
    json_decref(tokenizer);
}

/* ---- UTF-8 ---- */

static void utf8(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 0x110000; code++) {
        char bytes[8];
        bool valid;
        size_t size = utf8_put(code, bytes);
        assert_int_equal(utf8_step(bytes, size, &valid) == size && valid,
                         code < 0xd800 || code > 0xdfff);
        assert_int_equal(utf8_decode(bytes), code);
        if (code >= 0x80) {
            utf8_step(bytes, size - 1, &valid);
            assert_false(valid);
        }
    }
    /* What is broken, and what a reader makes of it: a replacement for each part that begins no
     * character, as Unicode recommends. */
    static const struct {
        const char *text;
        size_t valid, broken;
    } texts[] = {
        {"abcdefghij\xff", 10, 1},
        {"\xc0\xaf", 0, 2},
        {"\xed\xa0\x80", 0, 3},
        {"\xf4\x90\x80\x80", 0, 4},
        {"\xe2\x82", 0, 1},
        {"\xf0\x9f\x98 x", 0, 1},
        {"\xe2\x82\xac\x80", 3, 1},
        {"\xf8\x88\x80\x80", 0, 4},
        {"\xe0\x80\x80", 0, 3},
        {"aaaaaaa\xc3\xa9", 9, 0},
        {"", 0, 0},
        {"\xc3\xc3\xa9", 0, 1},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *repaired;
        size_t length = strlen(texts[i].text), broken = 0;
        assert_int_equal(utf8_valid(texts[i].text, length), texts[i].valid);
        size_t size = utf8_repair(texts[i].text, length, &repaired);
        assert_int_equal(utf8_valid(repaired, size), size);
        for (size_t k = 0; k + 2 < size; k++)
            broken += !memcmp(repaired + k, "\xef\xbf\xbd", 3);
        assert_int_equal(broken, texts[i].broken);
        free(repaired);
    }
}

/* ---- samples and conversations ---- */

static void check_chat(const json_t *line, void *context)
{
    struct tokenizer *t = context;
    const json_t *wanted = json_object_get(line, "ids");
    const json_t *golden = json_object_get(line, "golden");
    struct passage passage;
    assert_null(chat_text(CHAT_V4, json_object_get(line, "messages"),
                          json_object_get(line, "tools"), &passage));
    assert_int_equal(passage.length, json_string_length(golden));
    assert_memory_equal(passage.text, json_string_value(golden), passage.length);
    struct ids ids = {0};
    assert_null(tokenizer_encode_passage(t, &passage, SIZE_MAX, &ids));
    for (size_t i = 0; i < json_array_size(wanted); i++)
        assert_int_equal(i < ids.count ? ids.id[i] : -1,
                         json_integer_value(json_array_get(wanted, i)));
    assert_true(!wanted || ids.count == json_array_size(wanted));
    free(ids.id);
    passage_free(&passage);
}

static void conversations(void **state)
{
    (void)state;
    struct tokenizer *t = tokenizer_open("test/data/v4-nano/ckpt");
    assert_int_equal(each_line(DATA "chat.jsonl", check_chat, t), 12);
    tokenizer_free(t);
}

/* A case's text by one of the encoders, or why it is refused (NULL in "here"). */
static void check_case(const json_t *line, const char *encoder, enum chat_style style)
{
    const json_t *here = json_object_get(json_object_get(line, "here"), encoder);
    const json_t *wanted = here ? here : json_object_get(line, encoder);
    struct passage passage;
    char *error = chat_text(style, json_object_get(line, "messages"), NULL, &passage);
    const char *name = json_string_value(json_object_get(line, "case"));
    if (json_is_null(wanted) ? !error
                             : error || strcmp(passage.text, json_string_value(wanted)) != 0)
        fail_msg("%s by %s: wanted '%s', got '%s'", name, encoder,
                 json_is_null(wanted) ? "an error" : json_string_value(wanted),
                 error ? error : passage.text);
    free(error);
    passage_free(&passage);
}

static void check_cases(const json_t *line, void *context)
{
    (void)context;
    check_case(line, "v4", CHAT_V4);
    check_case(line, "v41", CHAT_V41);
}

static void conversations_of_v4_and_v41(void **state)
{
    (void)state;
    assert_int_equal(each_line(DATA "encoding-cases.jsonl", check_cases, NULL), 18);
}

/* Python 3.11's json.dumps(json.loads(text), ensure_ascii=False). */
static void values_as_python_writes_them(void **state)
{
    (void)state;
    static const struct {
        const char *value, *written;
    } values[] = {
        {"[0.00001, 0.0001, 1.25e-7, 5e-324]", "[1e-05, 0.0001, 1.25e-07, 5e-324]"},
        {"[1e15, 1e16, 1.5e16, 1e100, 1.7976931348623157e308]",
         "[1000000000000000.0, 1e+16, 1.5e+16, 1e+100, 1.7976931348623157e+308]"},
        {"[1.0, -0.0, 0.0, 10.0, -12.50, 123456789.125]",
         "[1.0, -0.0, 0.0, 10.0, -12.5, 123456789.125]"},
        {"[0.1, 0.30000000000000004, 123456789012345678.0, 9007199254740993.0]",
         "[0.1, 0.30000000000000004, 1.2345678901234568e+17, 9007199254740992.0]"},
        {"[7, -7, 9223372036854775807, true, false, null, [], {}]",
         "[7, -7, 9223372036854775807, true, false, null, [], {}]"},
        {"{\"b\":{\"\\u00e9\":1},\"a\":[\"/\\u2028\\u007f\\ud83d\\ude00\"]}",
         "{\"b\": {\"é\": 1}, \"a\": [\"/\u2028\x7f😀\"]}"},
        {"\"\\\"\\\\\\n\\r\\t\\f\\b\\u001f\\u0000\"", "\"\\\"\\\\\\n\\r\\t\\f\\b\\u001f\\u0000\""},
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char *text;
        size_t length;
        FILE *out = open_memstream(&text, &length);
        json_t *value = json_loads(values[i].value, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_non_null(value);
        python_json_put(value, out);
        assert_false(fclose(out));
        assert_string_equal(text, values[i].written);
        json_decref(value);
        free(text);
    }
}

/* A line's text is `wanted`; or, for NULL, it is refused with `words`. */
static void check_sample(enum chat_style style, const char *field, const char *line,
                         const char *wanted, const char *words)
{
    struct passage passage;
    char *error = sample_text(line, strlen(line), field, style, &passage);
    const char *text = passage.text ? passage.text : "(none)";
    if (wanted && (error || strcmp(text, wanted) != 0))
        fail_msg("%s: wanted '%s', got '%s'", line, wanted, error ? error : text);
    if (!wanted && (!error || passage.text || !strstr(error, words)))
        fail_msg("%s: wanted '%s', got '%s'", line, words, error ? error : text);
    free(error);
    passage_free(&passage);
}

/* What no case has: V4.1's system messages after the beginning, tools without one, arguments that
 * are JSON twice. */
static void v41_conversations(void **state)
{
    (void)state;
    static const struct {
        const char *line, *wanted;
    } cases[] = {
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"system\", "
         "\"content\": \"s\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}",
         "<｜User｜>a<｜System｜>s<｜Assistant｜></think>b<｜end▁of▁sentence｜>"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
         "\"content\": \"b\", \"reasoning_content\": \"r\"}, {\"role\": \"system\", \"content\": "
         "\"s\"}]}",
         "<｜System｜>Reasoning Effort: 75 (range 1-100, the higher the value, the more thorough "
         "the "
         "reasoning)\n\n<｜User｜>a<｜Assistant｜></think>b<｜end▁of▁sentence｜><｜System｜>s"
         "<｜Assistant｜><think>"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
         "\"content\": \"\", \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": "
         "\"\\\"{\\\\\\\"x\\\\\\\": 1}\\\"\"}}]}, {\"role\": \"tool\", \"content\": \"t\"}]}",
         "<｜User｜>a<｜Assistant｜></think>\n\n<｜DSML｜ calls>\n<｜DSML｜ invoke "
         "name=\"f\">\n<｜DSML｜ "
         "parameter name=\"x\" string=\"false\">1</｜DSML｜ parameter>\n</｜DSML｜ "
         "invoke>\n</｜DSML｜ calls><｜end▁of▁sentence｜><｜User｜><tool_result>t</tool_result>"
         "<｜Assistant｜></think>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_sample(CHAT_V41, NULL, cases[i].line, cases[i].wanted, "");
    struct passage passage;
    json_t *messages = json_loads("[{\"role\": \"user\", \"content\": \"a\"}]", 0, NULL);
    json_t *tools = json_loads("[{\"function\": {\"name\": \"f\"}}]", 0, NULL);
    assert_null(chat_text(CHAT_V41, messages, tools, &passage));
    assert_ptr_equal(strstr(passage.text, "<｜System｜>\n\n## Tools\n"), passage.text);
    assert_non_null(strstr(passage.text, "invoke tool calls.\n<｜User｜>a<｜Assistant｜></think>"));
    passage_free(&passage);
    json_decref(messages);
    json_decref(tools);
}

static void samples(void **state)
{
    (void)state;
    check_sample(CHAT_V4, NULL, "{\"article\": \"b\", \"text\": \"a\"}", "a", NULL);
    check_sample(CHAT_V4, NULL, "{\"article\": \"b\", \"text\": null}", "b", NULL);
    check_sample(CHAT_V4, NULL, "{\"response\": \"r\", \"prompt\": \"p\"}", "p\nr", NULL);
    check_sample(CHAT_V4, NULL, "{\"text\": null}", "(none)", NULL);
    check_sample(CHAT_V4, NULL, "{\"prompt\": \"p\", \"response\": null}", "(none)", NULL);
    check_sample(CHAT_V4, "x+y", "{\"y\": null, \"x\": \"a\"}", "(none)", NULL);
    check_sample(CHAT_V4, "x+y+x", "{\"x\": \"1\", \"y\": \"2\"}", "1\n2\n1", NULL);
    check_sample(CHAT_V4, NULL, "{\"prompt\": \"p\"}", NULL, "wanted text, article");
    check_sample(CHAT_V4, "x+y", "{\"x\": \"1\"}", NULL,
                 "wanted x+y; the row has x; name what holds the text with --field");
    check_sample(CHAT_V4, NULL, "{}", NULL, "the row has no field");
    check_sample(CHAT_V4, NULL, "{\"text\": 1}", NULL, "text is not a text");
    check_sample(CHAT_V4, NULL, "[\"text\"]", NULL,
                 "a row must be a JSON object, such as {\"text\": \"...\"}");
    check_sample(CHAT_V4, NULL, "{\"text\": \"a\"} x", NULL, "end of file expected");
    check_sample(CHAT_V4, NULL, "{\"text\": \"\\ud800\"}", NULL, "invalid Unicode");
    check_sample(CHAT_V4, NULL, "", NULL, "");
    check_sample(CHAT_V4, "c", "{\"c\": []}", NULL, "wanted 1 to");
    check_sample(CHAT_V4, NULL, "{\"messages\": [1]}", NULL, "messages[0]: unknown role ''");
    check_sample(CHAT_V4, NULL, "{\"messages\": [{\"role\": \"bard\"}]}", NULL, "role 'bard'");
    check_sample(CHAT_V4, NULL, "{\"messages\": [{\"role\": \"user\", \"content\": {}}]}", NULL,
                 "a content is not text");
    check_sample(CHAT_V4, NULL,
                 "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\"}]}]}",
                 NULL, "a block without text");
    check_sample(CHAT_V4, NULL,
                 "{\"messages\": [{\"role\": \"user\", \"content\": \"x\", \"task\": \"y\"}]}",
                 NULL, "task 'y'");
    check_sample(CHAT_V4, NULL,
                 "{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"id\": 1}]}]}", NULL,
                 "a tool call has no function");
    check_sample(CHAT_V4, NULL, "{\"messages\": [{\"role\": \"user\"}], \"tools\": [1]}", NULL,
                 "tools[0] has no function");
    /* Blocks of text, and reasoning inside of the content. */
    check_sample(CHAT_V4, NULL,
                 "{\"messages\": [{\"role\": \"user\", \"content\": [{\"text\": \"a\"}, "
                 "{\"text\": \"b\"}]}, {\"role\": \"assistant\", \"content\": "
                 "\"<think>hm</think>c\"}]}",
                 "<｜User｜>a\n\nb<｜Assistant｜><think>hm</think>c<｜end▁of▁sentence｜>", NULL);
}

/* A style's text of a conversation in which a system message stands in the middle, contents are
 * blocks and null, and reasoning does not come last. Whole templates: see st-tokenize.bats. */
static void conversations_v3(void **state)
{
    (void)state;
    static const char line[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"text\": \"a\"}, {\"text\": "
        "\"b\"}]}, "
        "{\"role\": \"assistant\", \"content\": \"<think>x</think>b\"}, {\"role\": \"system\", "
        "\"content\": \"s\"}, {\"role\": \"user\", \"content\": null}]}";
    check_sample(CHAT_V3, NULL, line,
                 "s<｜User｜>a\nb<｜Assistant｜><think>x</think>b<｜end▁of▁sentence｜><｜User｜>",
                 NULL);
    check_sample(CHAT_R1, NULL, line,
                 "s<｜User｜>a\nb<｜Assistant｜>b<｜end▁of▁sentence｜><｜User｜>", NULL);
    check_sample(CHAT_V31, NULL, line,
                 "s<｜User｜>a\nb<｜Assistant｜></think>b<｜end▁of▁sentence｜><｜User｜>", NULL);
    check_sample(CHAT_UNKNOWN, NULL, line, NULL, "the format of messages is unknown");
    check_sample(
        CHAT_R1_0528, NULL,
        "{\"messages\": [{\"role\": \"assistant\", \"content\": [{\"text\": \"a\"}], "
        "\"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"x\": 1.0}}}]}]}",
        "a<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"x\": "
        "1.0}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>",
        NULL);
    check_sample(CHAT_R1, NULL,
                 "{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"id\": 1}]}]}", NULL,
                 "a tool call has no function");
    check_sample(CHAT_V31, NULL, "{\"messages\": [{\"role\": \"user\"}], \"tools\": [1]}", NULL,
                 "tools[0] has no function with a name");
}

static void templates(void **state)
{
    (void)state;
    assert_int_equal(chat_template_style(NULL), CHAT_UNKNOWN);
    assert_int_equal(chat_template_style(""), CHAT_UNKNOWN);
    assert_int_equal(chat_template_style("<|im_start|>"), CHAT_UNKNOWN);
    static const char first[] = "{{'<｜User｜>'}}{% if message['role'] == 'assistant' and "
                                "message['content'] is none %}{{'```json'}}";
    assert_int_equal(chat_template_style(first), CHAT_V25);
    /* Cut: in a tag, in a string, after a brace. */
    for (size_t length = sizeof first - 2; length > 0; length--) {
        char *cut = xprintf("%.*s", (int)length, first);
        assert_int_equal(chat_template_style(cut), CHAT_UNKNOWN);
        free(cut);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_nano),
        cmocka_unit_test(golden_deepseek),
        cmocka_unit_test(variants),
        cmocka_unit_test(unknown_components),
        cmocka_unit_test(components_that_are_empty),
        cmocka_unit_test(unspelled_token),
        cmocka_unit_test(wrong_numbers),
        cmocka_unit_test(missing_byte),
        cmocka_unit_test(many_added_tokens),
        cmocka_unit_test(cut_and_changed),
        cmocka_unit_test(configuration),
        cmocka_unit_test(stops_when_enough),
        cmocka_unit_test(decodes_what_there_is),
        cmocka_unit_test(strips_white_space),
        cmocka_unit_test(single_word_behind_four_bytes),
        cmocka_unit_test(long_piece),
        cmocka_unit_test(syntax),
        cmocka_unit_test(too_long),
        cmocka_unit_test(categories),
        cmocka_unit_test(gives_up),
        cmocka_unit_test(utf8),
        cmocka_unit_test(conversations),
        cmocka_unit_test(conversations_of_v4_and_v41),
        cmocka_unit_test(v41_conversations),
        cmocka_unit_test(values_as_python_writes_them),
        cmocka_unit_test(samples),
        cmocka_unit_test(conversations_v3),
        cmocka_unit_test(templates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
