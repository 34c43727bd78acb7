/* The walker through JSON: the grammar, its limits, and documents that come in pieces. */
#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A document that is delivered `piece` bytes at a time. */
struct document {
    const char *bytes;
    size_t size, at, piece;
};

static size_t deliver(void *context, char *data, size_t room)
{
    struct document *document = context;
    size_t size = document->size - document->at;
    size = size < document->piece ? size : document->piece;
    size = size < room ? size : room;
    memcpy(data, document->bytes + document->at, size);
    document->at += size;
    return size;
}

enum { WHOLE = 1 << 20, PIECES = 5 };
static const size_t pieces[PIECES] = {1, 2, 3, 7, WHOLE};

/* Read past a whole document: NULL, or the error, which the caller frees. */
static char *read_past(const char *bytes, size_t size, size_t piece)
{
    /* A copy of the exact size, so that sanitizers see every byte read too far. */
    char *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, size);
    struct document document = {.bytes = copy, .size = size, .piece = piece};
    struct json_walk *walk = json_walk_new(deliver, &document);
    bool good = json_walk_skip(walk) && json_walk_end(walk);
    const char *error = json_walk_error(walk);
    assert_true(good == !error);
    char *text = error ? strdup(error) : NULL;
    json_walk_free(walk);
    free(copy);
    return text;
}

static void accepted(const char *bytes, size_t size, size_t piece)
{
    char *error = read_past(bytes, size, piece);
    if (error)
        fail_msg("%.80s: refused: %s", bytes, error);
    free(error);
}

/* Refused with a text that contains `words`. */
static void refused(const char *bytes, size_t size, size_t piece, const char *words)
{
    char *error = read_past(bytes, size, piece);
    if (!error)
        fail_msg("%.80s: accepted, wanted '%s'", bytes, words);
    else if (!strstr(error, words))
        fail_msg("%.80s: wanted '%s', got '%s'", bytes, words, error);
    free(error);
}

static void documents_that_are_json(void **state)
{
    (void)state;
    static const char *const text[] = {"{}",
                                       "[]",
                                       " [ ] ",
                                       "\t{\r\n}\n",
                                       "null",
                                       "true",
                                       "false",
                                       "\"\"",
                                       "0",
                                       "-0",
                                       "10",
                                       "-1.5e+10",
                                       "1E2",
                                       "1e-2",
                                       "0.0",
                                       "{\"a\":{\"b\":[1,2,{\"c\":[]}]},\"d\":null}",
                                       "[[],{},\"\",0]",
                                       "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\ud83d\\ude00\"",
                                       "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"",
                                       "\"\x7f\"",
                                       "\"\xf4\x8f\xbf\xbf\""};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        for (size_t j = 0; j < PIECES; j++)
            accepted(text[i], strlen(text[i]), pieces[j]);
}

static const char *const no_json[] = {"",
                                      " ",
                                      "{",
                                      "}",
                                      "[",
                                      "]",
                                      "{]",
                                      "[}",
                                      "[1",
                                      "[1,",
                                      "[1,]",
                                      "[,1]",
                                      "[1 2]",
                                      "{1:2}",
                                      "{\"a\"}",
                                      "{\"a\":}",
                                      "{\"a\":1,}",
                                      "{,\"a\":1}",
                                      "{\"a\" 1}",
                                      "{\"a\":1 \"b\":2}",
                                      "{a:1}",
                                      "\"",
                                      "\"a",
                                      "\"\\\"",
                                      "\"\\x41\"",
                                      "\"\\u12\"",
                                      "\"\\u123g\"",
                                      "\"\\ud800\"",
                                      "\"\\ud800\\n\"",
                                      "\"\\ud800\\u0041\"",
                                      "\"\\ud800\\ue000\"",
                                      "\"\\udc00\"",
                                      "\"\\u0000\"",
                                      "\"\n\"",
                                      "\"\t\"",
                                      "\"\x01\"",
                                      "'a'",
                                      "nul",
                                      "nulll",
                                      "True",
                                      "tru",
                                      "01",
                                      "-",
                                      "+1",
                                      ".5",
                                      "1.",
                                      "1.e1",
                                      "1e",
                                      "1e+",
                                      "--1",
                                      "0x10",
                                      "NaN",
                                      "Infinity",
                                      "1 2",
                                      "{}{}",
                                      "{} x",
                                      "// comment\n1",
                                      "\xef\xbb\xbf{}",
                                      "\"\xff\"",
                                      "\"\x80\"",
                                      "\"\xc0\x80\"",
                                      "\"\xc1\xbf\"",
                                      "\"\xc3\"",
                                      "\"\xe2\x82\"",
                                      "\"\xe0\x80\x80\"",
                                      "\"\xed\xa0\x80\"",
                                      "\"\xf0\x80\x80\x80\"",
                                      "\"\xf4\x90\x80\x80\"",
                                      "\"\xf8\x88\x80\x80\x80\"",
                                      "\x80"};

static void documents_that_are_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof no_json / sizeof *no_json; i++)
        for (size_t j = 0; j < PIECES; j++)
            refused(no_json[i], strlen(no_json[i]), pieces[j], "JSON offset ");
    refused("{}\0", 3, 1, "JSON offset 2: something follows the end of the document");
}

static void nesting(void **state)
{
    (void)state;
    enum { DEPTH = 64, DEEP = 100000 };
    char *text = malloc(2 * DEEP);
    assert_non_null(text);
    memset(text, '[', DEEP);
    memset(text + DEEP, ']', DEEP);
    accepted(text + DEEP - DEPTH, 2 * DEPTH, WHOLE);
    refused(text + DEEP - DEPTH - 1, 2 * DEPTH + 2, WHOLE, "nested deeper than 64");
    refused(text, 2 * DEEP, WHOLE, "nested deeper than 64");
    free(text);
}

static struct json_walk *walk_through(struct document *document, const char *text)
{
    *document = (struct document){.bytes = text, .size = strlen(text), .piece = 3};
    return json_walk_new(deliver, document);
}

static void numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool good;
        uint64_t value;
    } known[] = {{"0", true, 0},
                 {"18446744073709551615", true, UINT64_MAX},
                 {" 7 ", true, 7},
                 {"18446744073709551616", false, 0},
                 {"99999999999999999999999", false, 0},
                 {"-1", false, 0},
                 {"-0", false, 0},
                 {"1.0", false, 0},
                 {"1e3", false, 0},
                 {"1E3", false, 0},
                 {"01", false, 0},
                 {"\"1\"", false, 0},
                 {"null", false, 0},
                 {"", false, 0}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct document document;
        struct json_walk *walk = walk_through(&document, known[i].text);
        uint64_t value = 1;
        bool good = json_walk_number(walk, &value);
        if (good != known[i].good || (good && value != known[i].value))
            fail_msg("%s: %s", known[i].text, good ? "accepted" : json_walk_error(walk));
        json_walk_free(walk);
    }
}

static void strings(void **state)
{
    (void)state;
    struct document document;
    struct json_walk *walk = walk_through(
        &document,
        "[\"a\\u00e4\\ud83d\\ude00\\u20ac\", \"\xc3\xa4\", \"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]");
    assert_true(json_walk_array(walk) && json_walk_item(walk));
    assert_string_equal(json_walk_string(walk), "a\xc3\xa4\xf0\x9f\x98\x80\xe2\x82\xac");
    assert_true(json_walk_item(walk));
    assert_string_equal(json_walk_string(walk), "\xc3\xa4");
    assert_true(json_walk_item(walk));
    assert_string_equal(json_walk_string(walk), "\"\\/\b\f\n\r\t");
    assert_false(json_walk_item(walk));
    assert_true(json_walk_end(walk));
    json_walk_free(walk);
}

static void the_longest_string(void **state)
{
    (void)state;
    enum { LONGEST = 1 << 16 };
    char *text = malloc(LONGEST + 8);
    assert_non_null(text);
    /* Four bytes of UTF-8 at the very end are the most that can come behind the limit. */
    for (size_t tail = 1; tail <= 4; tail++) {
        static const char *const last[] = {"", "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
        text[0] = '"';
        memset(text + 1, 'x', LONGEST - 1);
        strcpy(text + LONGEST, last[tail]);
        strcat(text + LONGEST, "\"");
        accepted(text, strlen(text), WHOLE);
        text[LONGEST] = 'x';
        strcpy(text + LONGEST + 1, last[tail]);
        strcat(text + LONGEST + 1, "\"");
        refused(text, strlen(text), WHOLE, "a string longer");
    }
    free(text);
}

static void errors_stick_and_keep_to_one_line(void **state)
{
    (void)state;
    struct document document;
    struct json_walk *walk = walk_through(&document, "{\"a\":[1,2");
    const char *key;
    assert_true(json_walk_object(walk) && json_walk_key(walk, &key));
    json_walk_fail(walk, "wrong: %s", "line\nnext\033[1m\x7f\xc3\xa4");
    assert_string_equal(json_walk_error(walk), "JSON offset 5: wrong: line?next?[1m?ä");
    json_walk_fail(walk, "later");
    assert_false(json_walk_array(walk));
    assert_false(json_walk_item(walk));
    assert_null(json_walk_string(walk));
    uint64_t number;
    assert_false(json_walk_number(walk, &number));
    assert_false(json_walk_skip(walk));
    assert_false(json_walk_end(walk));
    assert_non_null(strstr(json_walk_error(walk), "wrong"));
    json_walk_free(walk);
}

static void outside_of_all_containers(void **state)
{
    (void)state;
    struct document document;
    struct json_walk *walk = walk_through(&document, "[]");
    assert_false(json_walk_item(walk));
    assert_true(json_walk_array(walk));
    assert_false(json_walk_item(walk));
    assert_false(json_walk_item(walk));
    assert_true(json_walk_end(walk));
    json_walk_free(walk);
    json_walk_free(NULL);
}

/* Any bytes give an answer, whatever they are: every byte of a document changed to every other. */
static void every_byte_changed(void **state)
{
    (void)state;
    char text[] = "{\"k\\u00e4\":[1,-2.5e3,\"\xe2\x82\xac\",true,null],\"o\":{}}";
    for (size_t i = 0; i < sizeof text - 1; i++) {
        char old = text[i];
        for (unsigned value = 0; value < 256; value++) {
            text[i] = (char)value;
            free(read_past(text, sizeof text - 1, 4));
        }
        text[i] = old;
    }
    accepted(text, sizeof text - 1, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_that_are_json),
        cmocka_unit_test(documents_that_are_not),
        cmocka_unit_test(nesting),
        cmocka_unit_test(numbers),
        cmocka_unit_test(strings),
        cmocka_unit_test(the_longest_string),
        cmocka_unit_test(errors_stick_and_keep_to_one_line),
        cmocka_unit_test(outside_of_all_containers),
        cmocka_unit_test(every_byte_changed),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
