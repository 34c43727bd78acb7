#include "fuzz.h"

#include <locale.h>
#include <sanitizer/allocator_interface.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <wchar.h>

#include "base/die.h"

enum { EVENTS_MAX = 1 << 20 };

/* What was allocated and freed while a reader was at work, in order; not by libFuzzer's own thread,
 * which watches over memory. */
static struct event {
    const volatile void *memory;
    bool freed;
    uint32_t number;
} event[EVENTS_MAX];
static uint32_t events;
static _Thread_local bool at_work;
static jmp_buf died;

/* The address sanitizer asks for its options here: its own memory must not count against our limit,
 * and large buffers, which readers make and free all the time, shall cost little. */
/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) names of others */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
{
    return "quarantine_size_mb=8:malloc_context_size=4:clear_shadow_mmap_threshold=16777216";
}

_Noreturn void fuzz_fail(const char *what)
{
    fprintf(stderr, "fuzz: %s\n", what);
    abort();
}

static void note(const volatile void *memory, bool freed)
{
    if (!at_work || !memory)
        return;
    if (events == EVENTS_MAX)
        abort();
    event[events] = (struct event){memory, freed, events};
    events++;
}

static void allocated(const volatile void *memory, size_t size)
{
    (void)size;
    note(memory, false);
}

static void freed(const volatile void *memory)
{
    note(memory, true);
}

/* libFuzzer calls this first. New descriptors shall be FIRST_FREE_FD and above, so that those of
 * readers can be told; what libraries allocate once and keep has to be there before a reader dies.
 */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    wchar_t wide[4];
    char narrow[4];
    (void)argc;
    (void)argv;
    fuzz_must(setlocale(LC_CTYPE, "C.UTF-8") && mbstowcs(wide, "a", 4) == 1 &&
                  wcstombs(narrow, L"a", 4) == 1,
              "no locale C.UTF-8");
    while (dup(STDERR_FILENO) < FUZZ_FD_END)
        continue;
    fuzz_must(__sanitizer_install_malloc_and_free_hooks(allocated, freed), "no hooks");
    return 0;
}

bool fuzz_refused(char *error)
{
    if (!error)
        return false;
    fuzz_must(*error, "an error without a text");
    free(error);
    return true;
}

void fuzz_file(int fd, const void *data, size_t size)
{
    static bool made[FUZZ_FD_END];
    if (!made[fd]) {
        int memory = memfd_create("fuzz", 0);
        fuzz_must(memory >= 0 && dup2(memory, fd) == fd && close(memory) == 0, "no file in memory");
        made[fd] = true;
    }
    fuzz_must(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size &&
                  lseek(fd, 0, SEEK_SET) == 0,
              "no file in memory");
}

size_t fuzz_cut(const uint8_t *data, size_t size, const uint8_t **rest)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    *rest = nul ? nul + 1 : data + size;
    return nul ? (size_t)(nul - data) : size;
}

/* ---- readers that die ---- */

static int by_memory(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    if (x->memory != y->memory)
        return x->memory < y->memory ? -1 : 1;
    return x->number < y->number ? -1 : 1;
}

/* Of the reader that died; its descriptors begin at `first`. */
static void give_back(int first)
{
    qsort(event, events, sizeof *event, by_memory);
    for (uint32_t i = 0; i < events; i++)
        if (!event[i].freed && (i + 1 == events || event[i + 1].memory != event[i].memory))
            free((void *)event[i].memory);
    close_range((unsigned)first, ~0U, 0);
}

bool fuzz_survives(void (*reader)(void *context), void *context)
{
    volatile bool survived = false;
    const int first = dup(STDERR_FILENO);
    close(first);
    events = 0;
    if (!setjmp(died)) {
        at_work = true;
        reader(context);
        survived = true;
    }
    at_work = false;
    if (!survived)
        give_back(first);
    return survived;
}

_Noreturn static void come_back(const char *format, va_list args)
{
    char *message;
    if (!at_work || vasprintf(&message, format, args) < 0)
        abort();
    free(message);
    longjmp(died, 1);
}

/* What the linker puts in the place of die.h's functions. */
/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) names of the linker */
_Noreturn void __wrap_die(const char *format, ...);
_Noreturn void __wrap_die_cut(const char *input, const char *format, ...);
_Noreturn void __wrap_die_errno(const char *format, ...);
_Noreturn void __wrap_die_usage(const char *format, ...);
void __wrap_warn(const char *format, ...);

_Noreturn void __wrap_die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    come_back(format, args);
}

_Noreturn void __wrap_die_cut(const char *input, const char *format, ...)
{
    va_list args;
    (void)input;
    va_start(args, format);
    come_back(format, args);
}

_Noreturn void __wrap_die_errno(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    come_back(format, args);
}

_Noreturn void __wrap_die_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    come_back(format, args);
}

void __wrap_warn(const char *format, ...)
{
    char *message;
    va_list args;
    va_start(args, format);
    if (vasprintf(&message, format, args) < 0)
        abort();
    va_end(args);
    free(message);
}
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
