#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <locale.h>
#include <sanitizer/allocator_interface.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "base/die.h"

enum { EVENTS_MAX = 1 << 20 };

/* What was allocated and freed while a reader was at work, in order; not by libFuzzer's own thread,
 * which watches over memory. */
static struct event {
    const volatile void *memory;
    bool freed;
} event[EVENTS_MAX];
static uint32_t events;
static _Thread_local bool at_work;
static jmp_buf died;

static char folder[] = "/dev/shm/fuzz-XXXXXX"; /* of fuzz_file() */

/* The address sanitizer asks for its options here: its own memory must not count against our limit,
 * and allocations, which readers make and free all the time, shall cost little. Where the memory of
 * a fault was allocated, ASAN_OPTIONS=malloc_context_size=30 shows. */
/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) names of others */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
{
    return "quarantine_size_mb=1:thread_local_quarantine_size_kb=64:malloc_context_size=0:"
           "clear_shadow_mmap_threshold=16777216";
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
    event[events++] = (struct event){memory, freed};
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

static void remove_files(void)
{
    DIR *files = opendir(folder);
    for (struct dirent *file; files && (file = readdir(files));)
        unlinkat(dirfd(files), file->d_name, 0);
    if (files)
        closedir(files);
    rmdir(folder);
}

const char *fuzz_folder(void)
{
    static bool made;
    if (!made)
        fuzz_must(mkdtemp(folder) && !atexit(remove_files), "no folder in memory");
    made = true;
    return folder;
}

void fuzz_file(int fd, const void *data, size_t size)
{
    static bool made[FUZZ_FD_END];
    if (!made[fd]) {
        char path[sizeof folder + 32];
        snprintf(path, sizeof path, "%s/%d.safetensors", fuzz_folder(), fd);
        int memory = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
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

/* Of the reader that died; its descriptors begin at `first`. */
static void give_back(int first)
{
    static uint32_t last[2 * EVENTS_MAX]; /* a hash table: 1 + the last event of each address */
    uint32_t mask = 1;
    while (mask + 1 < 2 * events)
        mask = 2 * mask + 1;
    memset(last, 0, (mask + 1) * sizeof *last);
    for (uint32_t i = 0; i < events; i++) {
        uint32_t at = (uint32_t)((uintptr_t)event[i].memory >> 4) * 0x9e3779b1U & mask;
        while (last[at] && event[last[at] - 1].memory != event[i].memory)
            at = (at + 1) & mask;
        last[at] = i + 1;
    }
    for (uint32_t at = 0; at <= mask; at++)
        if (last[at] && !event[last[at] - 1].freed)
            free((void *)event[last[at] - 1].memory);
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
