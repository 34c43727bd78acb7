/* die.h: how the programs of this project report errors.
 *
 * A filter has nothing to undo. The layer above the parsers ends the process with one line,
 * "program: message", that names the tensor, file and offset and says what to do next. Names
 * and texts in a message may be from outside: the line is made printable() (text.h). */
#ifndef DIE_H
#define DIE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit codes: 0 done, 1 failed, 2 usage (st-cmp: 1 differs, 2 trouble, as cmp). */
enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* Print "program: message" on standard error and exit with EXIT_FAILED. Never returns. If several
 * threads call it, only the first one prints. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* As die(), followed by ": " and strerror(errno). */
_Noreturn void die_errno(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* As die(), for a wrong command line: point to --help and exit with EXIT_USAGE. */
_Noreturn void die_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* As die(), for an input that ends too early. Silent if `input` is "<stdin>" and SEEKPIPE_PIPELINE
 * is in the environment: an earlier stage failed and said why, and the pipeline that set it says
 * which stage that was. */
_Noreturn void die_cut(const char *input, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Change the exit status of die() and die_errno(), for a program whose 1 means something else. Call
 * it before other threads start. */
void die_with(int status);

/* Print "program: message" on standard error and return. As of all these, that nobody reads it ends
 * no program: its work goes on, and the exit status tells. */
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Print on standard error, as it is, with the same promise. */
void say_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* calloc, realloc and strdup that end the process when memory runs out. The caller frees what they
 * return with free(). Sizes are count * size, checked for overflow; count may be 0. xalloc() zeroes
 * its memory. */
void *xalloc(size_t count, size_t size);

void *xgrow(void *old, size_t count, size_t size);
char *xstrdup(const char *text);

/* As xalloc(), but uninitialized, at a multiple of XALIGN bytes, which suits vectors of any width.
 */
enum { XALIGN = 64 };
void *xaligned(size_t count, size_t size);

/* printf and vprintf into a new string, which the caller frees. */
char *xprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));
char *xvprintf(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

/* *product = a * b, *sum = a + b: true if the result fits in 64 bits. Sizes, offsets and counts
 * from a file are multiplied and added only through these. */
static inline bool mul_fits(uint64_t a, uint64_t b, uint64_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

static inline bool add_fits(uint64_t a, uint64_t b, uint64_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

/* The smaller of the two: all of `count`, but no more than `most` at a time. */
static inline uint64_t at_most(uint64_t count, uint64_t most)
{
    return count < most ? count : most;
}

#endif
