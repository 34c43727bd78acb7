/* golden.h: what the reference implementation made of the codecs' inputs, for the tests to compare
 * with: the file golden_path. Reads the file by itself, so that a mistake in the project's own
 * reader cannot hide one in a codec. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *golden_path = "test/data/codecs/golden.safetensors.gz";

static struct {
    json_t *header; /* entries that were asked for get a member "read" */
    uint8_t *payload;
    size_t bytes;
} golden;

/* Setup of a group of tests: 0, or -1 if the file cannot be had. */
static inline int golden_open(void **state)
{
    (void)state;
    char command[FILENAME_MAX];
    snprintf(command, sizeof command, "gzip -dcf -- '%s'", golden_path); /* also if it is not */
    FILE *file = popen(command, "r");                                    /* NOLINT(cert-env33-c) */
    if (!file) {
        perror(golden_path);
        return -1;
    }
    uint64_t length;
    if (fread(&length, sizeof length, 1, file) == 1 && length < 1 << 20) {
        char *text = malloc(length);
        if (text && fread(text, 1, length, file) == length)
            golden.header = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
        free(text);
    }
    enum { ROOM = 4 << 20 };
    golden.payload = malloc(ROOM);
    if (golden.payload)
        golden.bytes = fread(golden.payload, 1, ROOM, file);
    if (pclose(file))
        return -1;
    if (golden.header && golden.bytes)
        return 0;
    fprintf(stderr, "%s: not a safetensors file\n", golden_path);
    return -1;
}

/* Teardown of the group. */
static inline int golden_close(void **state)
{
    (void)state;
    json_decref(golden.header);
    free(golden.payload);
    return 0;
}

/* The elements of the tensor with the printf-made name, which must have that dtype and as many. */
__attribute__((format(printf, 3, 4))) static inline const void *
golden_tensor(const char *dtype, size_t count, const char *format, ...)
{
    char name[64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    json_t *entry = json_object_get(golden.header, name);
    if (!entry)
        fail_msg("%s has no %s", golden_path, name);
    const char *stored = json_string_value(json_object_get(entry, "dtype"));
    if (!stored || strcmp(stored, dtype) != 0)
        fail_msg("%s: dtype is %s, not %s", name, stored ? stored : "(none)", dtype);
    size_t size = !strcmp(dtype, "U8")     ? 1
                  : !strcmp(dtype, "BF16") ? 2
                  : !strcmp(dtype, "F32")  ? 4
                                           : 8;
    json_t *offsets = json_object_get(entry, "data_offsets");
    size_t first = (size_t)json_integer_value(json_array_get(offsets, 0));
    size_t end = (size_t)json_integer_value(json_array_get(offsets, 1));
    if (first % size != 0 || first >= end || end > golden.bytes || end - first != count * size)
        fail_msg("%s: %zu elements in bytes %zu to %zu, expected %zu", name, (end - first) / size,
                 first, end, count);
    json_object_set_new(entry, "read", json_true());
    return golden.payload + first;
}

/* Fails if a tensor whose name starts with prefix was never asked for, or if there is none. */
static inline void golden_expect_all_read(const char *prefix)
{
    size_t found = 0;
    const char *name;
    json_t *entry;
    json_object_foreach(golden.header, name, entry)
    {
        if (strncmp(name, prefix, strlen(prefix)) != 0)
            continue;
        found++;
        if (!json_object_get(entry, "read"))
            fail_msg("no test looks at %s", name);
    }
    if (found == 0)
        fail_msg("%s has nothing that starts with %s", golden_path, prefix);
}

#endif
