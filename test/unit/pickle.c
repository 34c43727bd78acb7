/* The pickle machine on programs written by hand: what torch.save() writes is read, and everything
 * else is refused with the right words. */
#include "stream/pickle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Pieces of programs. Python remembers nearly every value; here nothing is remembered unless a test
 * wants it. */
#define TEXT_1(character) "X\x01\0\0\0" character
#define STORAGE(type, elements)                                                                    \
    "(X\x07\0\0\0storagectorch\n" type "Storage\n" TEXT_1("0") "X\x03\0\0\0cpu" elements "tQ"
#define REBUILD "ctorch._utils\n_rebuild_tensor_v2\n"
#define NO_HOOKS "ccollections\nOrderedDict\n)R"
#define TENSOR_OF(storage, offset, shape, stride)                                                  \
    REBUILD "(" storage offset shape stride "\x89" NO_HOOKS "tR"
#define SCALAR TENSOR_OF(STORAGE("BFloat16", "K\x01"), "K\0", ")", ")")
#define BEGIN "\x80\x02}"

/* A program less the 0 behind its string. */
struct program {
    const char *bytes;
    size_t size;
};
#define PROGRAM(text) ((struct program){(text), sizeof(text) - 1})

static char *parse(struct pickle *pickle, struct program program)
{
    /* A copy of the exact size, so that sanitizers see every byte read too far. */
    char *bytes = malloc(program.size ? program.size : 1);
    assert_non_null(bytes);
    memcpy(bytes, program.bytes, program.size);
    char *error = pickle_parse(pickle, bytes, program.size);
    free(bytes);
    return error;
}

static struct pickle accepted(struct program program)
{
    struct pickle pickle;
    char *error = parse(&pickle, program);
    if (error)
        fail_msg("refused: %s", error);
    return pickle;
}

/* Refused with a text that contains `words`. */
static void refused(struct program program, const char *words)
{
    struct pickle pickle;
    char *error = parse(&pickle, program);
    pickle_free(&pickle);
    if (!error)
        fail_msg("accepted, wanted '%s'", words);
    else if (!strstr(error, words))
        fail_msg("wanted '%s', got '%s'", words, error);
    free(error);
}

static void no_tensor(void **state)
{
    (void)state;
    struct pickle pickle = accepted(PROGRAM(BEGIN "."));
    assert_int_equal(pickle.count, 0);
    pickle_free(&pickle);
}

static void one_item(void **state)
{
    (void)state;
    struct pickle pickle = accepted(PROGRAM(BEGIN TEXT_1("a") SCALAR "s."));
    assert_int_equal(pickle.count, 1);
    assert_string_equal(pickle.tensor[0].name, "a");
    assert_string_equal(pickle.tensor[0].storage, "0");
    assert_int_equal(pickle.tensor[0].rank, 0);
    assert_int_equal(pickle.tensor[0].dtype, DTYPE_BF16);
    assert_int_equal(pickle.tensor[0].elements, 1);
    assert_int_equal(pickle.tensor[0].offset, 0);
    pickle_free(&pickle);
}

static void items_in_batches_of_an_ordered_dict(void **state)
{
    (void)state;
    struct pickle pickle = accepted(PROGRAM("\x80\x02" NO_HOOKS "(" TEXT_1("b") SCALAR TEXT_1(
        "a") SCALAR "u(" TEXT_1("d") SCALAR TEXT_1("c") SCALAR "u."));
    assert_int_equal(pickle.count, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pickle.tensor[i].name[0], "badc"[i]);
    pickle_free(&pickle);
}

static void numbers_of_all_widths(void **state)
{
    (void)state;
    struct pickle pickle = accepted(PROGRAM(BEGIN TEXT_1("a") TENSOR_OF(
        STORAGE("Float", "\x8a\x05\xff\xff\xff\xff\x7f"), "\x8a\x02\x00\x01",
        "(K\xff"
        "M\xfe\xff"
        "J\xff\xff\xff\x7f"
        "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7ft",
        "(\x8a\0K\x02K\x03K\x04t") "s."));
    const struct pickle_tensor *tensor = &pickle.tensor[0];
    assert_int_equal(tensor->elements, 0x7fffffffff);
    assert_int_equal(tensor->offset, 256);
    assert_int_equal(tensor->rank, 4);
    assert_int_equal(tensor->dim[0], 255);
    assert_int_equal(tensor->dim[1], 65534);
    assert_int_equal(tensor->dim[2], INT32_MAX);
    assert_int_equal(tensor->dim[3], INT64_MAX);
    assert_int_equal(tensor->stride[0], 0);
    assert_int_equal(tensor->stride[3], 4);
    pickle_free(&pickle);
}

static void tuples_of_one_to_eight(void **state)
{
    (void)state;
    static const struct program program[] = {
        PROGRAM(BEGIN TEXT_1("a")
                    TENSOR_OF(STORAGE("Long", "K\x01"), "K\0", "K\x01\x85", "K\x01\x85") "s."),
        PROGRAM(BEGIN TEXT_1("a") TENSOR_OF(STORAGE("Long", "K\x01"), "K\0", "K\x01K\x02\x86",
                                            "K\x02K\x01\x86") "s."),
        PROGRAM(BEGIN TEXT_1("a") TENSOR_OF(STORAGE("Long", "K\x01"), "K\0", "K\x01K\x02K\x03\x87",
                                            "K\x06K\x03K\x01\x87") "s."),
        PROGRAM(BEGIN TEXT_1("a") TENSOR_OF(STORAGE("Long", "K\x01"), "K\0",
                                            "(K\x01K\x02K\x03K\x04K\x05K\x06K\x07K\x08t",
                                            "(K\x01K\x02K\x03K\x04K\x05K\x06K\x07K\x08t") "s."),
    };
    static const unsigned rank[] = {1, 2, 3, 8};
    for (size_t i = 0; i < sizeof rank / sizeof *rank; i++) {
        struct pickle pickle = accepted(program[i]);
        assert_int_equal(pickle.tensor[0].rank, rank[i]);
        for (unsigned k = 0; k < rank[i]; k++)
            assert_int_equal(pickle.tensor[0].dim[k], k + 1);
        pickle_free(&pickle);
    }
    refused(PROGRAM(BEGIN TEXT_1("a") "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t"), "at most 8 values");
}

static void every_storage(void **state)
{
    (void)state;
    static const struct {
        struct program program;
        enum dtype dtype;
    } known[] = {
#define OF(type) PROGRAM(BEGIN TEXT_1("a") TENSOR_OF(STORAGE(type, "K\x01"), "K\0", ")", ")") "s.")
        {OF("BFloat16"), DTYPE_BF16}, {OF("Float"), DTYPE_F32}, {OF("Half"), DTYPE_F16},
        {OF("Double"), DTYPE_F64},    {OF("Long"), DTYPE_I64},  {OF("Int"), DTYPE_I32},
        {OF("Short"), DTYPE_I16},     {OF("Char"), DTYPE_I8},   {OF("Byte"), DTYPE_U8},
        {OF("Bool"), DTYPE_BOOL},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct pickle pickle = accepted(known[i].program);
        assert_int_equal(pickle.tensor[0].dtype, known[i].dtype);
        pickle_free(&pickle);
    }
    refused(OF("ComplexFloat"), "a: byte 56 of the pickle: global 'torch ComplexFloatStorage'");
#undef OF
}

/* The program of one tensor as Python writes it, everything remembered; then the same tensor under
 * another key, and a third one from remembered pieces. */
#define AS_WRITTEN                                                                                 \
    "\x80\x02}q\0(X\x01\0\0\0aq\x01" REBUILD "q\x02((X\x07\0\0\0storageq\x03"                      \
    "ctorch\nHalfStorage\nq\x04X\x01\0\0\0Zq\x05X\x03\0\0\0cpuq\x06K\x09tr\x07\0\0\0QK\x04K\x01"   \
    "\x85q\x08K\x01\x85q\x09\x89" NO_HOOKS "q\x0atq\x0bRq\x0c"                                     \
    "X\x01\0\0\0bq\x0dh\x0c"                                                                       \
    "X\x01\0\0\0cq\x0eh\x02(j\x07\0\0\0QK\0h\x08h\x09\x89h\x0atq\x0fRq\x10u."

static void memo(void **state)
{
    (void)state;
    struct pickle pickle = accepted(PROGRAM(AS_WRITTEN));
    assert_int_equal(pickle.count, 3);
    for (size_t i = 0; i < 3; i++) {
        const struct pickle_tensor *tensor = &pickle.tensor[i];
        assert_int_equal(tensor->name[0], "abc"[i]);
        assert_string_equal(tensor->storage, "Z");
        assert_int_equal(tensor->dtype, DTYPE_F16);
        assert_int_equal(tensor->elements, 9);
        assert_int_equal(tensor->offset, i < 2 ? 4 : 0);
        assert_int_equal(tensor->rank, 1);
        assert_int_equal(tensor->dim[0], 1);
    }
    pickle_free(&pickle);
    refused(PROGRAM(BEGIN "h\0."), "memo entry 0 of 0");
    refused(PROGRAM(BEGIN "q\0j\x01\0\0\0."), "memo entry 1 of 1");
    refused(PROGRAM(BEGIN "j\xff\xff\xff\xff."), "memo entry 4294967295 of 0");
    refused(PROGRAM(BEGIN "q\x01."), "wanted memo entry 0, got 1");
    refused(PROGRAM(BEGIN "q\0q\0."), "wanted memo entry 1, got 0");
    refused(PROGRAM(BEGIN "r\xff\xff\xff\xff."), "wanted memo entry 0, got 4294967295");
    refused(PROGRAM("\x80\x02q\0."), "wanted 1 values on the stack, got 0");
    refused(PROGRAM(BEGIN "(q\0."), "wanted 1 values on the stack, got 0");
}

static void cut_anywhere(void **state)
{
    (void)state;
    struct program program = PROGRAM(AS_WRITTEN);
    while (program.size-- > 0)
        refused(program, program.size < 2 ? "no pickle of protocol 2" : "the pickle ends");
}

/* One byte changed, to everything: read or refused, nothing else. */
static void changed_anywhere(void **state)
{
    (void)state;
    char bytes[] = AS_WRITTEN;
    for (size_t i = 0; i < sizeof bytes - 1; i++) {
        char kept = bytes[i];
        for (int value = 0; value < 256; value++) {
            struct pickle pickle;
            bytes[i] = (char)value;
            free(parse(&pickle, (struct program){bytes, sizeof bytes - 1}));
            pickle_free(&pickle);
        }
        bytes[i] = kept;
    }
}

static void other_opcodes(void **state)
{
    (void)state;
    static const char known[] = ")(.JKMQRXchjqrstu}\x85\x86\x87\x88\x89\x8a";
    for (int opcode = 0; opcode < 256; opcode++) {
        char bytes[] = BEGIN TEXT_1("a") "?", words[128];
        if (memchr(known, opcode, sizeof known - 1))
            continue;
        bytes[sizeof bytes - 2] = (char)opcode;
        snprintf(
            words, sizeof words,
            "a: byte 9 of the pickle: opcode 0x%02x is more than tensors need; this file could "
            "run code",
            opcode);
        refused((struct program){bytes, sizeof bytes - 1}, words);
    }
}

static void code(void **state)
{
    (void)state;
    refused(PROGRAM("\x80\x02"
                    "cos\nsystem\nX\x02\0\0\0id\x85R."),
            "byte 2 of the pickle: global 'os system' is more than tensors need");
    refused(PROGRAM("\x80\x02"
                    "c__builtin__\neval\n."),
            "global '__builtin__ eval'");
    refused(PROGRAM(BEGIN "ctorch._utils\n_rebuild_tensor_v2 \n."), "global");
    refused(PROGRAM(BEGIN "ctorch\n_utils _rebuild_tensor_v2\n."), "global");
    refused(PROGRAM(BEGIN "ctorch._utils _rebuild_tensor_v2\n\n."), "global");
    refused(PROGRAM(BEGIN "c\x1b[31m\n\xff\n."), "global '?[31m ?'");
    refused(PROGRAM(BEGIN
                    "caaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"
                    "b\n."),
            "global 'aaa");
    refused(PROGRAM(BEGIN TEXT_1("a") ")R."), "a call of a string with a tuple");
    refused(PROGRAM(BEGIN "ctorch\nIntStorage\n)R."), "a call of 'torch IntStorage'");
    refused(PROGRAM(BEGIN "ccollections\nOrderedDict\n)\x85R."),
            "a call of 'collections OrderedDict'");
    refused(PROGRAM(BEGIN "ccollections\nOrderedDict\nK\x01R."), "with a number");
    refused(PROGRAM("\x80\x02)R."), "wanted 2 values on the stack, got 1");
    refused(PROGRAM(BEGIN TEXT_1("a") SCALAR "s}b."), "opcode 0x62");
}

static void other_values(void **state)
{
    (void)state;
    refused(PROGRAM(BEGIN "(" TEXT_1("a") SCALAR TEXT_1("b") "}u."),
            "b: byte 139 of the pickle: wanted a tensor, got a dict");
    refused(PROGRAM(BEGIN "(" TEXT_1("a") SCALAR TEXT_1("b") "}" TEXT_1("c") SCALAR "su."),
            "b: byte 267 of the pickle: wanted a tensor, got a dict; save the inner dict alone");
    refused(PROGRAM(BEGIN "(" TEXT_1("b") "}(" TEXT_1("c") SCALAR "uu."),
            "wanted a tensor, got a dict; save the inner dict alone");
    refused(PROGRAM(BEGIN TEXT_1("b") NO_HOOKS "s."), "b: byte 36 of the pickle: wanted a tensor");
    refused(PROGRAM(BEGIN TEXT_1("a") "K\x01s."),
            "a: byte 11 of the pickle: wanted a tensor, got a "
            "number");
    refused(PROGRAM(BEGIN TEXT_1("a") TEXT_1("b") "s."), "got a string");
    refused(PROGRAM(BEGIN TEXT_1("a") "\x88s."), "got a bool");
    refused(PROGRAM(BEGIN TEXT_1("a") ")s."), "got a tuple");
    refused(PROGRAM(BEGIN TEXT_1("a") STORAGE("Int", "K\x01") "s."), "got a storage");
    refused(PROGRAM(BEGIN TEXT_1("a") REBUILD "s."), "got a type or function");
    refused(PROGRAM(BEGIN "K\x01" SCALAR "s."), "a key is a number");
    refused(PROGRAM(BEGIN "(" TEXT_1("a") "u."),
            "wanted a dict followed by pairs of key and tensor");
    refused(PROGRAM("\x80\x02)" TEXT_1("a") SCALAR "s."), "wanted a dict followed by pairs");
    refused(PROGRAM("\x80\x02" TEXT_1("a") SCALAR "s."), "wanted a dict followed by pairs");
    refused(PROGRAM("\x80\x02(u."), "wanted a dict followed by pairs");
    refused(PROGRAM(BEGIN TEXT_1("a") SCALAR "u."), "wanted a mark");
    refused(PROGRAM(BEGIN TEXT_1("a") "s."), "a: byte 9");
}

static void wrong_tensors(void **state)
{
    (void)state;
#define WITH(offset, shape, stride)                                                                \
    PROGRAM(BEGIN TEXT_1("a") TENSOR_OF(STORAGE("Int", "K\x01"), offset, shape, stride) "s.")
    refused(WITH("J\xff\xff\xff\xff", ")", ")"), "its offset is -1");
    refused(WITH("K\0", "J\xff\xff\xff\xff\x85", "K\x01\x85"), "its shape holds a negative number");
    refused(WITH("K\0", "K\x01\x85", "\x8a\x01\xff\x85"), "its stride holds a negative number");
    refused(WITH("K\0", "\x8a\x08\0\0\0\0\0\0\0\x80\x85", "K\x01\x85"),
            "its shape holds a negative number");
    refused(WITH("K\0", "\x89\x85", "K\x01\x85"), "its shape holds a bool");
    refused(WITH("K\0", ")\x85", "K\x01\x85"), "its shape holds a tuple");
    refused(WITH("K\0", "K\x01\x85", ")"), "its shape has 1 dimensions, its stride 0");
    refused(WITH("K\0", "K\x01", ")"), "a: byte 126 of the pickle: wanted a tensor made of");
    refused(WITH("K\0K\0", ")", ")"), "wanted a tensor made of");
    refused(WITH("\x8a\x09\0\0\0\0\0\0\0\0\0", ")", ")"), "a number of 9 bytes");
    refused(WITH(")", ")", ")"), "wanted a tensor made of");
#undef WITH
    refused(PROGRAM(BEGIN TEXT_1("a") REBUILD ")R."), "wanted a tensor made of");
    refused(PROGRAM(BEGIN TEXT_1("a") STORAGE("Int", "J\xff\xff\xff\xff") "."),
            "a storage of -1 elements");
    refused(PROGRAM(BEGIN TEXT_1("a") STORAGE("Int", ")") "."), "wanted ('storage', type");
    refused(PROGRAM(BEGIN TEXT_1("a") "Q."), "got a string");
    refused(PROGRAM(BEGIN TEXT_1("a") ")Q."), "wanted ('storage', type");
    refused(PROGRAM(BEGIN "(" TEXT_1("a") "ctorch\nIntStorage\n" TEXT_1("0") TEXT_1("0") "K\1tQ."),
            "wanted a storage, got 'a'");
    refused(PROGRAM(BEGIN "(X\x07\0\0\0storage" REBUILD TEXT_1("0") TEXT_1("0") "K\1tQ."),
            "of type torch._utils _rebuild_tensor_v2");
    refused(PROGRAM(BEGIN TEXT_1("a") STORAGE("Int", "K\1") "Q."), "got a storage of other form");
}

static void wrong_strings(void **state)
{
    (void)state;
    refused(PROGRAM(BEGIN TEXT_1("\0") "."), "byte 0x00, wanted printable ASCII");
    refused(PROGRAM(BEGIN TEXT_1("\n") "."), "byte 0x0a");
    refused(PROGRAM(BEGIN TEXT_1("\x7f") "."), "byte 0x7f");
    refused(PROGRAM(BEGIN "X\x02\0\0\0\xc3\xa9."), "byte 0xc3");
    refused(PROGRAM(BEGIN "X\xff\xff\xff\xff."), "a string of 4294967295 bytes");
    refused(PROGRAM(BEGIN "X\0\x04\0\0."), "a string of 1024 bytes, wanted at most 1023");
}

static void wrong_frames(void **state)
{
    (void)state;
    refused(PROGRAM(""), "no pickle of protocol 2");
    refused(PROGRAM("}."), "no pickle of protocol 2");
    refused(PROGRAM("\x80\x04}."), "no pickle of protocol 2");
    refused(PROGRAM(BEGIN "\x80\x02."), "opcode 0x80");
    refused(PROGRAM("\x80\x02."), "wanted one dict of tensors, got something else");
    refused(PROGRAM(BEGIN "}."), "wanted one dict of tensors, got something else");
    refused(PROGRAM("\x80\x02)."), "wanted one dict of tensors, got a tuple");
    refused(PROGRAM("\x80\x02" SCALAR "."), "wanted one dict of tensors, got a tensor");
    refused(PROGRAM(BEGIN TEXT_1("a") SCALAR "s\x85."), "wanted one dict of tensors, got a tuple");
    refused(PROGRAM("\x80\x02(."), "wanted one dict of tensors");
    refused(PROGRAM(BEGIN ".."), "the pickle stops here, but 1 bytes follow");
    refused(PROGRAM(BEGIN "t."), "wanted a mark and at most 8 values");
    refused(PROGRAM(BEGIN "(K\1\x86."), "wanted 2 values on the stack, got 1");
}

/* A program of a beginning, `count` times the same piece and an end is refused with these words. */
static void refused_when_repeated(struct program begin, struct program piece, size_t count,
                                  struct program end, const char *words)
{
    char *bytes = malloc(begin.size + count * piece.size + end.size), *at = bytes;
    assert_non_null(bytes);
    memcpy(at, begin.bytes, begin.size);
    at += begin.size;
    for (size_t i = 0; i < count; i++, at += piece.size)
        memcpy(at, piece.bytes, piece.size);
    memcpy(at, end.bytes, end.size);
    at += end.size;
    refused((struct program){bytes, (size_t)(at - bytes)}, words);
    free(bytes);
}

static void bounds(void **state)
{
    (void)state;
    struct program begin = PROGRAM(BEGIN), none = PROGRAM("");
    refused_when_repeated(begin, PROGRAM("("), 1 << 17, none, "more than 65536 values at once");
    refused_when_repeated(begin, PROGRAM(TEXT_1("a")), 1 << 17, none,
                          "more than 65536 values at once");
    refused_when_repeated(begin, PROGRAM("\x85"), 1 << 24, PROGRAM("\x85"),
                          "more than 16777216 values at once");
    refused_when_repeated(begin, PROGRAM("\x85"), 1 << 24, PROGRAM("(K\1t"),
                          "more than 16777216 values at once");
    refused_when_repeated(PROGRAM(BEGIN TEXT_1("a") "q\0" SCALAR "q\1s"), PROGRAM("h\0h\1s"),
                          1 << 20, none, "more than 1048576 tensors");
    refused_when_repeated(PROGRAM(BEGIN TEXT_1("a") "q\0" REBUILD "q\1(" STORAGE(
                              "BFloat16", "K\x01") "K\0))\x89" NO_HOOKS "tq\2Rs"),
                          PROGRAM("h\0h\1h\2Rs"), 1 << 20, none, "more than 1048576 tensors");
}

/* Each entry of the memo has its number. */
static void bound_of_the_memo(void **state)
{
    (void)state;
    enum { MOST = 1 << 23, PUT = 5 };
    struct program begin = PROGRAM(BEGIN);
    char *bytes = malloc(begin.size + (size_t)PUT * (MOST + 1)), *at = bytes + begin.size;
    assert_non_null(bytes);
    memcpy(bytes, begin.bytes, begin.size);
    for (uint32_t i = 0; i <= MOST; i++, at += PUT) {
        *at = 'r';
        memcpy(at + 1, &i, sizeof i);
    }
    refused((struct program){bytes, (size_t)(at - bytes)}, "more than 8388608 values at once");
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_tensor),
        cmocka_unit_test(one_item),
        cmocka_unit_test(items_in_batches_of_an_ordered_dict),
        cmocka_unit_test(numbers_of_all_widths),
        cmocka_unit_test(tuples_of_one_to_eight),
        cmocka_unit_test(every_storage),
        cmocka_unit_test(memo),
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(changed_anywhere),
        cmocka_unit_test(other_opcodes),
        cmocka_unit_test(code),
        cmocka_unit_test(other_values),
        cmocka_unit_test(wrong_tensors),
        cmocka_unit_test(wrong_strings),
        cmocka_unit_test(wrong_frames),
        cmocka_unit_test(bounds),
        cmocka_unit_test(bound_of_the_memo),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
