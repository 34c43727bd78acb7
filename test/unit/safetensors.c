/* The safetensors reader on files that are cut or changed at every byte, and on the layouts that
 * the writer makes. What is wrong with whole files is in test/bats/hostile-checkpoint.bats. */
#include "stream/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "child.h"

static const char header[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"a.weight\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
    "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[12,16]}}";
enum { HEADER = sizeof header - 1, DATA = 16, FILE_SIZE = 8 + HEADER + DATA };

static void put_file(int fd, const void *bytes, size_t size)
{
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, bytes, size, 0), size);
}

static void make_file(unsigned char *bytes)
{
    memset(bytes, 0, FILE_SIZE);
    bytes[0] = HEADER;
    memcpy(bytes + 8, header, HEADER);
}

/* NULL, or the reason for which a file is refused, which the caller frees. */
static char *read_file(int fd, size_t size, struct toc *toc)
{
    uint64_t *offset = NULL;
    char *error = safetensors_read(fd, size, toc, toc_shard(toc, "s"), &offset);
    if (!error)
        for (size_t i = 0; i < toc->count; i++)
            assert_true(offset[i] >= 8 && offset[i] + toc->tensor[i].size <= size);
    free(offset);
    return error;
}

static void whole_file(void **state)
{
    unsigned char bytes[FILE_SIZE];
    int fd = *(int *)*state;
    struct toc *toc = toc_new();
    make_file(bytes);
    put_file(fd, bytes, sizeof bytes);
    char *error = read_file(fd, sizeof bytes, toc);
    if (error)
        fail_msg("refused: %s", error);
    assert_int_equal(toc->count, 2);
    assert_string_equal(toc->tensor[0].name, "a.weight");
    assert_int_equal(toc->tensor[1].size, 4);
    toc_free(toc);
}

static void cut_at_every_byte(void **state)
{
    unsigned char bytes[FILE_SIZE];
    int fd = *(int *)*state;
    make_file(bytes);
    for (size_t size = 0; size < sizeof bytes; size++) {
        struct toc *toc = toc_new();
        put_file(fd, bytes, size);
        char *error = read_file(fd, size, toc);
        if (!error)
            fail_msg("accepted when cut to %zu bytes", size);
        free(error);
        toc_free(toc);
    }
}

static void cut_header_at_every_byte(void **state)
{
    unsigned char bytes[FILE_SIZE];
    int fd = *(int *)*state;
    for (unsigned length = 0; length < HEADER; length++) {
        struct toc *toc = toc_new();
        make_file(bytes);
        bytes[0] = (unsigned char)length;
        put_file(fd, bytes, 8 + length + DATA);
        char *error = read_file(fd, 8 + length + DATA, toc);
        if (!error)
            fail_msg("accepted with a header of %u bytes", length);
        free(error);
        toc_free(toc);
    }
}

/* Not every change is an error (of a name, say), but none may make a reader go astray: read_file()
 * looks at the offsets, sanitizers at the rest. */
static void every_byte_changed(void **state)
{
    unsigned char bytes[FILE_SIZE];
    int fd = *(int *)*state;
    size_t refused = 0;
    for (size_t i = 0; i < 8 + HEADER; i++)
        for (unsigned value = 0; value < 256; value++) {
            struct toc *toc = toc_new();
            make_file(bytes);
            bytes[i] = (unsigned char)value;
            put_file(fd, bytes, sizeof bytes);
            char *error = read_file(fd, sizeof bytes, toc);
            if (error && strpbrk(error, "\n\r\033"))
                fail_msg("byte %zu as %u: the message is not one line: %s", i, value, error);
            refused += error != NULL;
            free(error);
            toc_free(toc);
        }
    assert_true(refused > (size_t)HEADER * 200);
}

/* In the order of their data, whatever order the header has them in; empty ones first. */
static void any_order(void **state)
{
    static const struct {
        const char *header, *error; /* NULL: none */
    } files[] = {
        {"{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[1,4]},"
         "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,1]}}",
         NULL},
        {"{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[3,4]},"
         "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
         "tensor a: begins at 2 of the data, but the one before ends at 1 (hole)"},
    };
    int fd = *(int *)*state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct toc *toc = toc_new();
        char bytes[512] = {0};
        size_t length = strlen(files[i].header);
        bytes[0] = (char)length;
        strcpy(bytes + 8, files[i].header);
        put_file(fd, bytes, 8 + length + 4);
        char *error = read_file(fd, 8 + length + 4, toc);
        if (files[i].error) {
            assert_non_null(error);
            assert_string_equal(error, files[i].error);
        } else {
            assert_null(error);
            assert_string_equal(toc->tensor[0].name, "c");
            assert_string_equal(toc->tensor[1].name, "a");
            assert_string_equal(toc->tensor[2].name, "b");
        }
        free(error);
        toc_free(toc);
    }
}

/* ---- layouts ---- */

/* The header of a layout must read back as the lines it was made of, at the same offsets, aligned.
 */
static void check_layout(int fd, const struct tensor *line, size_t count, uint32_t phase)
{
    struct toc *toc = toc_new(), *back = toc_new();
    uint32_t *lines = calloc(count, sizeof *lines);
    uint64_t *offset = calloc(count, sizeof *offset), header_size;
    char *text;
    toc_shard(toc, "s");
    for (size_t i = 0; i < count; i++) {
        assert_null(toc_add(toc, &line[i]));
        lines[i] = (uint32_t)i;
    }
    uint64_t size = safetensors_layout(toc, lines, count, phase, offset, &text, &header_size);
    put_file(fd, text, (size_t)header_size);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    uint64_t *found = NULL;
    char *error = safetensors_read(fd, size, back, toc_shard(back, "s"), &found);
    if (error)
        fail_msg("refused: %s", error);
    assert_int_equal(back->count, count);
    for (size_t i = 0; i < count; i++) {
        int64_t j = toc_find(back, line[i].name);
        assert_true(j >= 0 && tensor_same_form(&back->tensor[j], &toc->tensor[i]));
        assert_int_equal(found[j], offset[i]);
        assert_int_equal(offset[i] % dtype_size(line[i].dtype), 0);
    }
    free(found);
    free(text);
    free(lines);
    free(offset);
    toc_free(toc);
    toc_free(back);
}

static void layouts_read_back(void **state)
{
    int fd = *(int *)*state;
    const struct tensor line[] = {
        {.name = "byte", .dtype = DTYPE_U8, .rank = 1, .dim = {3}},
        {.name = "scalar", .dtype = DTYPE_F32},
        {.name = "empty", .dtype = DTYPE_F64, .rank = 2, .dim = {0, UINT64_MAX}},
        {.name = "page", .dtype = DTYPE_I8, .rank = 2, .dim = {64, 64}},
        {.name = "quote\"back\\slash", .dtype = DTYPE_BF16, .rank = 1, .dim = {1}},
        {.name = "wide", .dtype = DTYPE_I64, .rank = 8, .dim = {1, 1, 1, 1, 1, 1, 1, 1}},
        {.name = "pages", .dtype = DTYPE_BF16, .rank = 1, .dim = {4096}},
    };
    size_t count = sizeof line / sizeof *line;
    for (uint32_t phase = 0; phase < 4096; phase += 7)
        check_layout(fd, line, count, phase);
    for (size_t i = 0; i <= count; i++)
        check_layout(fd, line, i, 8);
}

/* Where the first line's data begin modulo 4096, with a header for `phase`. */
static uint64_t begins_at(const struct tensor *line, size_t count, uint32_t phase)
{
    struct toc *toc = toc_new();
    uint32_t lines[] = {0, 1};
    uint64_t offset[2], header_size;
    char *text;
    toc_shard(toc, "s");
    for (size_t i = 0; i < count; i++)
        assert_null(toc_add(toc, &line[i]));
    safetensors_layout(toc, lines, count, phase, offset, &text, &header_size);
    free(text);
    toc_free(toc);
    return offset[0] % 4096;
}

/* Pages can be shared with a source whose data begin at the same phase. */
static void data_begin_at_the_phase(void **state)
{
    (void)state;
    const struct tensor line[] = {{.name = "pages", .dtype = DTYPE_I8, .rank = 1, .dim = {8192}},
                                  {.name = "wide", .dtype = DTYPE_F32, .rank = 1, .dim = {3}}};
    for (uint32_t phase = 0; phase < 4096; phase++) {
        assert_int_equal(begins_at(line, 1, phase), phase);
        assert_int_equal(begins_at(line, 2, phase), phase % 4 ? 0 : phase);
    }
}

/* What safetensors_layout() is given. */
struct layout {
    struct toc *toc;
    uint32_t *line;
    size_t lines;
    uint64_t *offset;
};

static void lay_out(void *context)
{
    const struct layout *l = context;
    uint64_t size;
    char *text;
    safetensors_layout(l->toc, l->line, l->lines, 0, l->offset, &text, &size);
}

/* A header over 100 MB is written by none: the process ends, and says why. */
static void header_too_large(void **state)
{
    (void)state;
    enum { TENSORS = 100000 };
    char name[TENSOR_NAME_MAX + 1], said[256];
    struct layout l = {toc_new(), calloc(TENSORS, sizeof *l.line), TENSORS,
                       calloc(TENSORS, sizeof *l.offset)};
    assert_true(l.line && l.offset);
    struct tensor tensor = {.name = name, .dtype = DTYPE_U8, .shard = toc_shard(l.toc, "s")};
    for (uint32_t i = 0; i < TENSORS; i++) {
        snprintf(name, sizeof name, "%01000" PRIu32, i);
        assert_null(toc_add(l.toc, &tensor));
        l.line[i] = i;
    }
    assert_int_equal(end_of(lay_out, &l, said, sizeof said), 1);
    assert_non_null(strstr(said, "s: the header of this shard would be over 100 MB"));
    free(l.line);
    free(l.offset);
    toc_free(l.toc);
}

static int open_file(void **state)
{
    static int fd;
    fd = memfd_create("file.safetensors", 0);
    *state = &fd;
    return fd < 0;
}

static int close_file(void **state)
{
    return close(*(int *)*state);
}

/* What cannot be read, and a size that is not the file's. */
static void unreadable(void **state)
{
    int fd = *(int *)*state;
    unsigned char bytes[FILE_SIZE];
    struct toc *toc = toc_new();
    uint64_t *offset = NULL;
    char *error = safetensors_read(-1, FILE_SIZE, toc, toc_shard(toc, "s"), &offset);
    assert_string_equal(error, "Bad file descriptor");
    free(error);
    make_file(bytes);
    put_file(fd, bytes, sizeof bytes);
    error = safetensors_read(fd, 4, toc, toc_shard(toc, "s"), &offset);
    assert_non_null(strstr(error, "but the file has 4 (truncated?)"));
    free(error);
    free(offset);
    toc_free(toc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_file),
        cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(cut_header_at_every_byte),
        cmocka_unit_test(every_byte_changed),
        cmocka_unit_test(unreadable),
        cmocka_unit_test(any_order),
        cmocka_unit_test(layouts_read_back),
        cmocka_unit_test(data_begin_at_the_phase),
        cmocka_unit_test(header_too_large),
    };
    return cmocka_run_group_tests_name("safetensors", tests, open_file, close_file);
}
