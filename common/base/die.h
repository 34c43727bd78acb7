/* die.h: how a program of this project speaks of trouble.
 *
 * A filter has nothing to undo: the layer above the parsers ends the process with one line,
 * "program: message", that names tensor, file and offset and says what to do next. Control
 * characters in a message (names and texts come from outside) are shown as '?'. */
#ifndef DIE_H
#define DIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit codes: 0 done, 1 failed, 2 usage (st-cmp: 1 differs, 2 trouble, as cmp). */
enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* Print "program: message" on standard error and exit with EXIT_FAILED. Never returns. Of several
 * threads that call it, the first one speaks. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* As die(), with ": " and strerror(errno) behind the message. */
_Noreturn void die_errno(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* As die(), for a command line that is wrong: exit EXIT_USAGE and point to --help. */
_Noreturn void die_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* From now on, die() and die_errno() exit with another status: for a program whose 1 means
 * something else. Before there are other threads. */
void die_with(int status);

/* Print "program: message" on standard error and go on. */
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* malloc, calloc, realloc and strdup that end the process when memory is out. The caller owns
 * what they return and frees it with free(). Sizes are count * size, overflow checked. */
void *xalloc(size_t count, size_t size);
void *xgrow(void *old, size_t count, size_t size);
char *xstrdup(const char *text);

/* printf into a new string that the caller frees. */
char *xprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* *product = a * b, *sum = a + b: true if the result fits 64 bits. The one place where sizes,
 * offsets and counts from a file are multiplied or added. */
static inline bool mul_fits(uint64_t a, uint64_t b, uint64_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

static inline bool add_fits(uint64_t a, uint64_t b, uint64_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

/* The smaller of two: as much as there is, but not more than `most` at a time. */
static inline uint64_t at_most(uint64_t count, uint64_t most)
{
    return count < most ? count : most;
}

#endif
