/* The reader of streams on one that is cut or changed at every byte. Readers end the process, so
 * each try is a process of its own. */
#include "stream/ts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
    unsigned char *bytes;
    size_t size;
    size_t end; /* offset of the padding behind .end */
    int fd;     /* what a try reads */
    int errors; /* its standard error */
} stream;

/* Read a stream as a stage does: every byte of every tensor, then the end. */
static void read_stream(const char *path)
{
    struct ts_in *in = ts_open(path, NULL);
    while (ts_next(in))
        free(ts_read_all(in));
    ts_close(in);
}

/* Ask for more of b than there is: a mistake of the program, whose end it must be. */
static void read_beyond(const char *path)
{
    char data[16];
    struct ts_in *in = ts_open(path, NULL);
    ts_next(in);
    ts_next(in);
    ts_read(in, data, 11);
    ts_read(in, data, 2);
}

static void hold_and_read(const char *path, uint64_t offset, size_t size)
{
    char data[16];
    struct ts_in *in = ts_open(path, NULL);
    ts_next(in);
    ts_next(in);
    ts_held_read(ts_hold(in), offset, data, size);
}

static void read_held_beyond(const char *path)
{
    hold_and_read(path, 2, 11);
}

static void read_held_behind(const char *path)
{
    hold_and_read(path, 13, 0);
}

/* What became of reading `size` bytes: the exit code, or -1 for a crash; one line of errors, or
 * none. */
static int try_reader(void (*reader)(const char *path), const void *bytes, size_t size, char *line,
                      size_t room)
{
    assert_int_equal(ftruncate(stream.fd, 0), 0);
    assert_int_equal(pwrite(stream.fd, bytes, size, 0), size);
    assert_int_equal(lseek(stream.fd, 0, SEEK_SET), 0);
    assert_int_equal(ftruncate(stream.errors, 0), 0);
    assert_int_equal(lseek(stream.errors, 0, SEEK_SET), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        alarm(20); /* a hang is a crash */
        dup2(stream.fd, STDIN_FILENO);
        dup2(stream.errors, STDERR_FILENO);
        setvbuf(stderr, NULL, _IOLBF, 0);
        reader(NULL);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    ssize_t got = pread(stream.errors, line, room - 1, 0);
    line[got > 0 ? got : 0] = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int try_stream(const void *bytes, size_t size, char *line, size_t room)
{
    return try_reader(read_stream, bytes, size, line, room);
}

/* One line that says what to do next. */
static bool is_advice(const char *line)
{
    const char *newline = strchr(line, '\n');
    return newline && !newline[1] && (strchr(line, ';') || strchr(line, '('));
}

static void whole_stream(void **state)
{
    (void)state;
    char line[1024];
    if (try_stream(stream.bytes, stream.size, line, sizeof line))
        fail_msg("refused: %s", line);
}

static void cut_at_every_byte(void **state)
{
    (void)state;
    char line[1024];
    for (size_t size = 0; size < stream.end; size++)
        if (try_stream(stream.bytes, size, line, sizeof line) != 1 || !is_advice(line))
            fail_msg("cut to %zu of %zu bytes: %s", size, stream.size, line);
}

static void something_behind_it(void **state)
{
    (void)state;
    char line[1024];
    unsigned char *bytes = calloc(stream.size + 3000, 1);
    assert_non_null(bytes);
    memcpy(bytes, stream.bytes, stream.size);
    for (size_t i = stream.end; i < stream.size + 3000;
         i += i % 512 < 2 || i % 512 > 510 ? 1 : 127) {
        bytes[i] = 1;
        if (try_stream(bytes, stream.size + 3000, line, sizeof line) != 1 || !is_advice(line))
            fail_msg("garbage at %zu of %zu bytes: %s", i, stream.size, line);
        bytes[i] = 0;
    }
    free(bytes);
}

/* Not every change is an error (of a tensor's bytes, say), but none may crash or hang a reader, or
 * make it say more than a line. */
static void every_byte_changed(void **state)
{
    (void)state;
    char line[1024];
    static const unsigned char change[] = {1, 0x20, 0xff};
    for (size_t i = 0; i < stream.end; i++) {
        unsigned char old = stream.bytes[i], new = old ^ change[i % sizeof change];
        stream.bytes[i] = new;
        int code = try_stream(stream.bytes, stream.size, line, sizeof line);
        stream.bytes[i] = old;
        if (code != 0 && (code != 1 || !is_advice(line)))
            fail_msg("byte %zu as %u: exit %d: %s", i, new, code, line);
    }
}

static void no_more_than_there_is(void **state)
{
    (void)state;
    static void (*const reader[])(const char *) = {read_beyond, read_held_beyond, read_held_behind};
    char line[1024];
    for (size_t i = 0; i < sizeof reader / sizeof *reader; i++) {
        assert_int_equal(try_reader(reader[i], stream.bytes, stream.size, line, sizeof line), 1);
        assert_non_null(strstr(line, ": b: read beyond its end\n"));
    }
}

/* ---- the stream ---- */

static char folder[] = "/tmp/stream.XXXXXX";

static char *file_path(const char *name)
{
    static char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void put_file(const char *name, const char *text, size_t size)
{
    FILE *file = fopen(file_path(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* A stage that puts the tensor "b" into the stream and lets the others pass, to standard output. */
static void write_stream(void)
{
    struct stage stage;
    char name[] = "stream", *argv[] = {name, NULL};
    stage_begin(&stage, &(struct program){0}, NULL, 1, argv);
    struct ts_in *in = ts_open(folder, &stage);
    struct ts_out *out = ts_create(&stage, in, ts_toc(in));
    for (const struct tensor *tensor; (tensor = ts_next(in));)
        if (!strcmp(tensor->name, "b")) {
            void *data = ts_read_all(in);
            ts_put(out, "b", data, (size_t)tensor->size);
            ts_count(out, NULL, "put", 1);
            free(data);
        } else {
            ts_pass(out, in);
        }
    ts_finish(out, in, json_pack("{s:i}", "seen", 3));
    exit(stage_end(&stage));
}

/* A small stream with all that one may hold: a side file, a tensor inline, tensors by reference. */
static int make_stream(void **state)
{
    (void)state;
    static const char header[] =
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[3,15]},"
        "\"c\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[15,15]}}";
    char shard[8 + sizeof header - 1 + 15] = {(char)(sizeof header - 1)};
    memcpy(shard + 8, header, sizeof header - 1);
    memset(shard + sizeof shard - 15, 'x', 15);
    assert_non_null(mkdtemp(folder));
    put_file("m.safetensors", shard, sizeof shard);
    put_file("config.json", "{}\n", 3);
    stream.fd = memfd_create("stream", 0);
    stream.errors = memfd_create("errors", 0);
    assert_true(stream.fd >= 0 && stream.errors >= 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        dup2(stream.fd, STDOUT_FILENO);
        write_stream();
    }
    int status;
    struct stat made = {0};
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && !WEXITSTATUS(status) && !fstat(stream.fd, &made));
    stream.size = (size_t)made.st_size;
    stream.bytes = malloc(stream.size + 1);
    assert_non_null(stream.bytes);
    assert_int_equal(pread(stream.fd, stream.bytes, stream.size, 0), stream.size);
    for (stream.end = stream.size; !stream.bytes[stream.end - 1];)
        stream.end--;
    return 0;
}

static int remove_stream(void **state)
{
    (void)state;
    free(stream.bytes);
    remove(file_path("m.safetensors"));
    remove(file_path("config.json"));
    return remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_stream),          cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(something_behind_it),   cmocka_unit_test(every_byte_changed),
        cmocka_unit_test(no_more_than_there_is),
    };
    return cmocka_run_group_tests_name("stream", tests, make_stream, remove_stream);
}
