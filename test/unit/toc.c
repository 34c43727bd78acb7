/* The table of contents: as text and back, names, sizes, and lines that are none. */
#include "tensor/toc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* NULL, or why a table is refused, which the caller frees. */
static char *parse(struct toc *toc, const char *text, size_t size)
{
    /* A copy of the exact size, so that sanitizers see every byte read too far. */
    char *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, text, size);
    char *error = toc_parse(toc, copy, size);
    free(copy);
    return error;
}

static const char table[] = "a.weight\tBF16\t[2048,4096]\tm.safetensors\tdata\n"
                            "a.scale\tF8_E8M0\t[]\tm.safetensors\tcontext\n"
                            "b\tI64\t[0]\tn.safetensors\tdata\n"
                            "b\tI64\t[1,2,3,4,5,6,7,8]\tm.safetensors\tdata\n";

static void text_and_back(void **state)
{
    (void)state;
    struct toc *toc = toc_new();
    assert_null(parse(toc, table, sizeof table - 1));
    assert_int_equal(toc->count, 4);
    assert_int_equal(toc->shards, 2);
    assert_int_equal(toc->tensor[0].size, 2048 * 4096 * 2);
    assert_int_equal(toc->tensor[1].size, 1);
    assert_true(toc->tensor[1].context);
    assert_int_equal(toc->tensor[2].size, 0);
    assert_int_equal(toc->tensor[3].size, 40320 * 8);
    assert_int_equal(toc_find(toc, "b"), 2);
    assert_int_equal(toc_find(toc, "c"), -1);
    char *text;
    size_t size = toc_format(toc, &text);
    assert_int_equal(size, sizeof table - 1);
    assert_memory_equal(text, table, size);
    free(text);
    toc_free(toc);
    toc = toc_new();
    assert_null(parse(toc, "", 0));
    assert_int_equal(toc->count, 0);
    toc_free(toc);
}

static void lines_of_a_part(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t line[3]; /* -1: context, of which nothing is said */
        bool there;
    } parts[] = {
        {"", {0}, true},
        {"b\tI64\t[0]\tn.safetensors\tdata\n", {2}, true},
        {"b\tI64\t[1,2,3,4,5,6,7,8]\tm.safetensors\tdata\n", {3}, true},
        {"a.weight\tBF16\t[2048,4096]\tm.safetensors\tdata\n"
         "x\tBF16\t[1]\tx.safetensors\tcontext\n"
         "b\tI64\t[1,2,3,4,5,6,7,8]\tm.safetensors\tdata\n",
         {0, -1, 3},
         true},
        {"a.scale\tF8_E8M0\t[]\tm.safetensors\tdata\n", {0}, false}, /* it is context there */
        {"b\tI64\t[1]\tn.safetensors\tdata\n", {0}, false},
        {"b\tF64\t[0]\tn.safetensors\tdata\n", {0}, false},
        {"b\tI64\t[0,1]\tn.safetensors\tdata\n", {0}, false},
        {"b\tI64\t[0]\to.safetensors\tdata\n", {0}, false},
        {"c\tI64\t[0]\tn.safetensors\tdata\n", {0}, false},
        {"b\tI64\t[0]\tn.safetensors\tdata\n" /* another order */
         "a.weight\tBF16\t[2048,4096]\tm.safetensors\tdata\n",
         {0},
         false},
    };
    struct toc *whole = toc_new();
    assert_null(parse(whole, table, sizeof table - 1));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct toc *part = toc_new();
        assert_null(parse(part, parts[i].text, strlen(parts[i].text)));
        uint32_t *line = toc_lines_in(part, whole);
        assert_int_equal(line != NULL, parts[i].there);
        for (size_t j = 0; line && j < part->count; j++)
            if (parts[i].line[j] >= 0)
                assert_int_equal(line[j], parts[i].line[j]);
        free(line);
        toc_free(part);
    }
    toc_free(whole);
}

/* The line "NAME DTYPE SHAPE SHARD USE" is refused for a reason with `words`. */
static void refused(const char *line, const char *words)
{
    struct toc *toc = toc_new();
    char *text = malloc(strlen(table) + strlen(line) + 1);
    assert_non_null(text);
    sprintf(text, "%s%s", table, line);
    char *error = parse(toc, text, strlen(text));
    if (!error)
        fail_msg("accepted: %s", line);
    else if (!strstr(error, words) || !strstr(error, "line 5") || strpbrk(error, "\n\r\033"))
        fail_msg("wanted '%s', got '%s'", words, error);
    free(error);
    free(text);
    toc_free(toc);
}

static const char *const no_shape[] = {"",
                                       "1",
                                       "[",
                                       "]",
                                       "[1",
                                       "1]",
                                       "[]]",
                                       "[1,]",
                                       "[,1]",
                                       "[,]",
                                       "[ 1]",
                                       "[1 ]",
                                       "[1, 2]",
                                       "[-1]",
                                       "[+1]",
                                       "[01]",
                                       "[1.0]",
                                       "[0x1]",
                                       "[1][2]",
                                       "[18446744073709551616]",
                                       "[1,1,1,1,1,1,1,1,1]",
                                       "[a]"};

static void malformed_lines(void **state)
{
    (void)state;
    refused("c\tU8\t[1]\tm\tdata", "the last line has no newline");
    refused("\n", "five fields");
    refused("c\n", "five fields");
    refused("c\tU8\t[1]\tm\n", "five fields");
    refused("c\tU8\t[1]\tm\tdata\t\n", "use must be");
    refused("c\tU8\t[1]\tm\tdata \n", "use must be");
    refused("c\tU8\t[1]\tm\t\n", "use must be");
    refused("c\tU8\t[1]\tm\tDATA\n", "use must be");
    refused("c\tU8\t[1]\tm\tdata\r\n", "use must be");
    static const char *const dtype[] = {"", "u8", "U9", "BF16 ", "F6_E2M3", "F8_E4M3FN"};
    static const char *const name[] = {"",    ".",        "..",    ".end",      ".a",     "files/x",
                                       "/x",  "x/",       "a//b",  "../x",      "a/../b", "a/.",
                                       "a b", "a\033[1m", "a\x7f", "a\xc3\xa4", "\x01"};
    static const char *const shard[] = {"",     ".",   "..",  ".a",       "a/b", "/a",
                                        "../a", "a b", "a@b", "\xc3\xa4", "a\r"};
    char line[256];
    for (size_t i = 0; i < sizeof dtype / sizeof *dtype; i++) {
        snprintf(line, sizeof line, "c\t%s\t[1]\tm\tdata\n", dtype[i]);
        refused(line, "unknown dtype");
    }
    for (size_t i = 0; i < sizeof no_shape / sizeof *no_shape; i++) {
        snprintf(line, sizeof line, "c\tU8\t%s\tm\tdata\n", no_shape[i]);
        refused(line, "malformed shape");
    }
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        snprintf(line, sizeof line, "%s\tU8\t[1]\tm\tdata\n", name[i]);
        refused(line, "a tensor's name must be");
    }
    for (size_t i = 0; i < sizeof shard / sizeof *shard; i++) {
        snprintf(line, sizeof line, "c\tU8\t[1]\t%s\tdata\n", shard[i]);
        refused(line, "a shard must be a plain file name");
    }
    refused("c\tU8\t[4294967296,4294967296]\tm\tdata\n", "its size overflows");
    refused("c\tU8\t[9223372036854775808]\tm\tdata\n", "its size overflows");
    refused("c\tF64\t[2305843009213693952]\tm\tdata\n", "its size overflows");
    refused("c\tF4\t[2,3]\tm\tdata\n", "F4 rows are no whole bytes");
    refused("c\tF4\t[]\tm\tdata\n", "F4 rows are no whole bytes");
    refused("a.weight\tU8\t[1]\tm.safetensors\tdata\n", "already in the same shard");
}

static void nul_bytes(void **state)
{
    (void)state;
    struct toc *toc = toc_new();
    char *error = parse(toc, "c\tU8\t[1]\tm\tda\0ta\n", 17);
    assert_non_null(strstr(error, "NUL"));
    free(error);
    toc_free(toc);
}

static void cut_at_every_byte(void **state)
{
    (void)state;
    for (size_t size = 1; size < sizeof table - 1; size++) {
        struct toc *toc = toc_new();
        char *error = parse(toc, table, size);
        if (!error != (table[size - 1] == '\n'))
            fail_msg("cut to %zu bytes: %s", size, error ? error : "accepted");
        free(error);
        toc_free(toc);
    }
}

static void every_byte_changed(void **state)
{
    (void)state;
    char text[sizeof table];
    memcpy(text, table, sizeof table);
    for (size_t i = 0; i < sizeof table - 1; i++) {
        for (unsigned value = 0; value < 256; value++) {
            struct toc *toc = toc_new();
            text[i] = (char)value;
            char *error = parse(toc, text, sizeof table - 1), *back;
            if (error && strpbrk(error, "\n\r\033\t"))
                fail_msg("byte %zu as %u: the message is not one line: %s", i, value, error);
            if (!error) {
                /* What is accepted is in the one form that there is. */
                assert_int_equal(toc_format(toc, &back), sizeof table - 1);
                assert_memory_equal(back, text, sizeof table - 1);
                free(back);
            }
            free(error);
            toc_free(toc);
        }
        text[i] = table[i];
    }
}

static void longest_names(void **state)
{
    (void)state;
    char name[TENSOR_NAME_MAX + 2];
    struct toc *toc = toc_new();
    struct tensor line = {.name = name, .dtype = DTYPE_U8, .shard = toc_shard(toc, "s")};
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    assert_non_null(toc_add(toc, &line));
    name[TENSOR_NAME_MAX] = 0;
    line.rank = TENSOR_RANK_MAX + 1;
    assert_string_equal(toc_add(toc, &line), "it has more than 8 dimensions");
    line.rank = 0;
    assert_null(toc_add(toc, &line));
    assert_int_equal(toc_find(toc, name), 0);
    toc_free(toc);
    name[SHARD_NAME_MAX] = 0;
    assert_true(shard_name_valid(name));
    name[SHARD_NAME_MAX] = 'x';
    name[SHARD_NAME_MAX + 1] = 0;
    assert_false(shard_name_valid(name));
}

/* Names are found among many, also after lines were added to a table that was searched already. */
static void many_names(void **state)
{
    (void)state;
    enum { MANY = 20000 };
    char name[32];
    struct toc *toc = toc_new();
    struct tensor line = {.name = name, .dtype = DTYPE_U8, .shard = toc_shard(toc, "s")};
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "layers.%d.x", i);
        assert_int_equal(toc_find(toc, name), -1);
        assert_null(toc_add(toc, &line));
        assert_int_equal(toc_find(toc, name), i);
    }
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "layers.%d.x", i);
        assert_int_equal(toc_find(toc, name), i);
    }
    size_t second = 0;
    assert_null(toc_check_unique(toc, &second));
    assert_null(toc_add(toc, &line));
    assert_non_null(toc_check_unique(toc, &second));
    assert_int_equal(second, MANY);
    toc_free(toc);
}

/* A table may have a shard for each tensor: that must take no time either. */
static void many_shards(void **state)
{
    (void)state;
    enum { MANY = 300000 };
    char name[32];
    struct toc *toc = toc_new();
    for (int round = 0; round < 2; round++)
        for (unsigned i = 0; i < MANY; i++) {
            snprintf(name, sizeof name, "%u.safetensors", i * 7919 % MANY);
            assert_int_equal(toc_shard(toc, name), i);
        }
    assert_int_equal(toc->shards, MANY);
    assert_string_equal(toc->shard[1], "7919.safetensors");
    assert_int_equal(toc_shard(toc, "1"), MANY);
    toc_free(toc);
}

static void sums_of_sizes_saturate(void **state)
{
    (void)state;
    struct toc *toc = toc_new();
    struct tensor line = {.name = "a", .dtype = DTYPE_U8, .shard = toc_shard(toc, "s"), .rank = 1};
    line.dim[0] = INT64_MAX;
    assert_null(toc_add(toc, &line));
    line.name = "b";
    line.context = true;
    assert_null(toc_add(toc, &line));
    assert_int_equal(toc_bytes(toc, false), INT64_MAX);
    assert_int_equal(toc_bytes(toc, true), 2 * (uint64_t)INT64_MAX);
    line.name = "c";
    assert_null(toc_add(toc, &line));
    assert_int_equal(toc_bytes(toc, true), UINT64_MAX);
    toc_free(toc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_and_back),     cmocka_unit_test(lines_of_a_part),
        cmocka_unit_test(malformed_lines),   cmocka_unit_test(nul_bytes),
        cmocka_unit_test(cut_at_every_byte), cmocka_unit_test(every_byte_changed),
        cmocka_unit_test(longest_names),     cmocka_unit_test(many_names),
        cmocka_unit_test(many_shards),       cmocka_unit_test(sums_of_sizes_saturate),
    };
    return cmocka_run_group_tests_name("toc", tests, NULL, NULL);
}
