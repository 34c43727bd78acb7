/* fuzz.h: what the fuzzers share. A fuzzer is a program that hands one parser the bytes that
 * libFuzzer makes up, and looks at what comes back.
 *
 * Parsers return an error text. Readers above them end the process by die(); fuzzers are linked
 * with -Wl,--wrap=die and its like, so that it comes back to fuzz_survives() instead. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* End the fuzzer, with a report of this input: what must never be, is. */
_Noreturn void fuzz_fail(const char *what);

static inline void fuzz_must(bool holds, const char *otherwise)
{
    if (!holds)
        fuzz_fail(otherwise);
}

/* Free an error text as parsers return it; true if there was one (it was not NULL). */
bool fuzz_refused(char *error);

/* Make a file of these bytes behind descriptor `fd`, from FUZZ_FD to below FUZZ_FD_END; its path is
 * /proc/self/fd/FD, its position at the start. It is the same file at each call. It has a name,
 * FD.safetensors in fuzz_folder(): a reference may lead to it (stream/reach.h). */
enum { FUZZ_FD = 10, FUZZ_FD_END = 20 };
void fuzz_file(int fd, const void *data, size_t size);

/* The folder of these files, in memory; removed with what is in it at the end, unless a fault was
 * found. */
const char *fuzz_folder(void);

/* Call reader(context): true if it returned, false if it died. What a reader that died had
 * allocated or opened is given back, as at the end of a process. */
bool fuzz_survives(void (*reader)(void *context), void *context);

/* Cut bytes at the first NUL: the length of what is before it. What is behind begins at *rest. */
size_t fuzz_cut(const uint8_t *data, size_t size, const uint8_t **rest);

#endif
