#include "text/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/die.h"
#include "text/unicode_new.h"

enum {
    PATTERN_MAX = 1 << 14,      /* bytes */
    MATCH_LIMIT = 50000000,     /* steps of one match; runs of white space can be long */
    FREE_LIMIT = 512,           /* those that are not counted */
    BUDGET_LEAST = 1 << 22,     /* of the others of all texts … */
    BUDGET_BYTE = 1024,         /* … and for each of their bytes */
    NANOSECONDS_BYTE = 5000,    /* of a processor for each of their bytes; see LEFT_MOST */
    TEXT_BYTES = 64,            /* that a text counts for besides its own, however short */
    MATCHES = 16,               /* after which the time is looked at, … */
    READ = 1 << 24,             /* … if each that reads on to the end once has read so much */
    STARTS = 1024,              /* bytes at which one search may begin to match */
    DEPTH_LIMIT = 100000,       /* of backtracking without a JIT … */
    HEAP_LIMIT = 64 << 10,      /* … in KiB */
    JIT_STACK_FIRST = 32 << 10, /* bytes */
    JIT_STACK_MAX = 8 << 20,
};

/* Nanoseconds of a processor for all texts, besides those for their bytes. */
static const int64_t LEFT_MOST = INT64_C(5000000000);

struct pattern {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

/* ---- Oniguruma's syntax to PCRE2's ---- */

struct translation {
    const char *at, *end;
    FILE *out;
    const char *wrong; /* unsupported syntax, or NULL */
};

static bool fail(struct translation *t, const char *wrong)
{
    t->wrong = wrong;
    return false;
}

static bool next_is(const struct translation *t, char c)
{
    return t->at < t->end && *t->at == c;
}

/* Write the new members of a major category, for use in a class. */
static void put_new(struct translation *t, char category)
{
    for (size_t i = 0; i < sizeof unicode_new / sizeof *unicode_new; i++)
        if (unicode_new[i].category == category)
            fprintf(t->out, "\\x{%x}-\\x{%x}", unicode_new[i].first, unicode_new[i].last);
}

/* Write all members of a category. */
static void put_category(struct translation *t, char category)
{
    fprintf(t->out, "\\p{%c}", category);
    put_new(t, category);
}

/* Write White_Space. PCRE2's \s also has U+180E. */
static void put_space(struct translation *t)
{
    fputs("\\t-\\r\\x{85}\\p{Z}", t->out);
}

/* After "\p": "{L}". */
static bool take_category(struct translation *t, char *category)
{
    if (t->end - t->at < 3 || t->at[0] != '{' || !strchr("LMNPSZ", t->at[1]) || t->at[2] != '}')
        return fail(t, "a property other than \\p{L}, M, N, P, S or Z");
    *category = t->at[1];
    t->at += 3;
    return true;
}

/* After a backslash. */
static bool translate_escape(struct translation *t, bool in_class)
{
    char c = 0, category = 0;
    if (t->at < t->end)
        c = *t->at++;
    bool set = c == 'p' || c == 's', complement = c == 'P' || c == 'S';
    if (complement && in_class)
        return fail(t, "\\P or \\S in a class");
    if ((c == 'p' || c == 'P') && !take_category(t, &category))
        return false;
    if (set || complement) {
        fputs(in_class ? "" : complement ? "[^" : "[", t->out);
        if (category)
            put_category(t, category);
        else
            put_space(t);
        fputs(in_class ? "" : "]", t->out);
        return true;
    }
    bool punctuation =
        c > ' ' && c < 0x7f && !((c | 32) >= 'a' && (c | 32) <= 'z') && !(c >= '0' && c <= '9');
    if (!punctuation && c != 'r' && c != 'n' && c != 't')
        return fail(t, "an escape other than \\p{} \\s \\r \\n \\t and those of punctuation");
    fprintf(t->out, "\\%c", c);
    return true;
}

/* After '['. */
static bool translate_class(struct translation *t)
{
    fputc('[', t->out);
    if (next_is(t, '^'))
        fputc(*t->at++, t->out);
    if (next_is(t, ']'))
        return fail(t, "a class that begins with ]");
    while (t->at < t->end) {
        char c = *t->at++;
        if (c == '[' || (c == '&' && next_is(t, '&')))
            return fail(t, "a class in a class");
        if (c == '\\') {
            if (!translate_escape(t, true))
                return false;
            continue;
        }
        fputc(c, t->out);
        if (c == ']')
            return true;
    }
    return fail(t, "a class without ]");
}

/* After '('. */
static bool translate_group(struct translation *t)
{
    static const char *const known[] = {"?:", "?=", "?!", "?<=", "?<!", "?>"};
    fputc('(', t->out);
    if (next_is(t, '*'))
        return fail(t, "(*");
    if (!next_is(t, '?'))
        return true;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t length = strlen(known[i]);
        if ((size_t)(t->end - t->at) >= length && !memcmp(t->at, known[i], length)) {
            fputs(known[i], t->out);
            t->at += length;
            return true;
        }
    }
    return fail(t, "a group other than (?: (?= (?! (?<= (?<! (?>");
}

static bool take_digits(struct translation *t)
{
    const char *from = t->at;
    while (t->at < t->end && *t->at >= '0' && *t->at <= '9')
        fputc(*t->at++, t->out);
    return t->at > from;
}

/* After '{': "n}", "n,}" or "n,m}". Oniguruma treats a following + or ? differently. */
static bool translate_counts(struct translation *t)
{
    fputc('{', t->out);
    bool good = take_digits(t);
    if (good && next_is(t, ',')) {
        fputc(*t->at++, t->out);
        take_digits(t);
    }
    if (!good || !next_is(t, '}'))
        return fail(t, "a { that begins no count");
    fputc(*t->at++, t->out);
    return next_is(t, '+') || next_is(t, '?') ? fail(t, "+ or ? after {n,m}") : true;
}

static bool translate(struct translation *t)
{
    while (t->at < t->end) {
        char c = *t->at++;
        bool good = true;
        if (c == '\\')
            good = translate_escape(t, false);
        else if (c == '[')
            good = translate_class(t);
        else if (c == '(')
            good = translate_group(t);
        else if (c == '{')
            good = translate_counts(t);
        else if (c == '^' || c == '$')
            good = fail(t, "an anchor");
        else
            fputc(c, t->out);
        if (!good)
            return false;
    }
    return true;
}

/* ---- PCRE2 ---- */

static char *compile(struct pattern *pattern, const char *text, size_t length)
{
    int code;
    PCRE2_SIZE offset;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        die("out of memory");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF); /* what '.' excludes, however PCRE2 was built */
    pattern->code = pcre2_compile((PCRE2_SPTR)text, length, PCRE2_UTF | PCRE2_USE_OFFSET_LIMIT,
                                  &code, &offset, context);
    pcre2_compile_context_free(context);
    if (!pattern->code) {
        PCRE2_UCHAR reason[256];
        pcre2_get_error_message(code, reason, sizeof reason);
        return xprintf("pattern: %s", (const char *)reason);
    }
    pattern->match = pcre2_match_data_create(1, NULL);
    pattern->context = pcre2_match_context_create(NULL);
    if (!pattern->match || !pattern->context)
        die("out of memory");
    pcre2_set_depth_limit(pattern->context, DEPTH_LIMIT);
    pcre2_set_heap_limit(pattern->context, HEAP_LIMIT);
    /* without a JIT for this processor, matching is only slower */
    if (!pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE)) {
        pattern->stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_MAX, NULL);
        if (!pattern->stack)
            die("out of memory");
        pcre2_jit_stack_assign(pattern->context, NULL, pattern->stack);
    }
    return NULL;
}

/* Begin and end writing a pattern for PCRE2. The text is valid after text_end(), until free(). */
static FILE *text_begin(char **text, size_t *size)
{
    FILE *out = open_memstream(text, size);
    if (!out)
        die("out of memory");
    return out;
}

static void text_end(FILE *out)
{
    if (fclose(out))
        die("out of memory");
}

char *pattern_new_word(struct pattern **pattern)
{
    *pattern = xalloc(1, sizeof **pattern);
    char *text;
    size_t size;
    struct translation t = {.out = text_begin(&text, &size)};
    fputs("[\\p{Alphabetic}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}", t.out);
    put_category(&t, 'M');
    put_new(&t, 'L');
    put_new(&t, 'N');
    fputc(']', t.out);
    text_end(t.out);
    char *error = compile(*pattern, text, size);
    free(text);
    return error;
}

char *pattern_new(struct pattern **pattern, const char *text, size_t length)
{
    *pattern = xalloc(1, sizeof **pattern);
    if (length > PATTERN_MAX)
        return xprintf("a pattern of %zu bytes, more than the %d allowed", length, PATTERN_MAX);
    char *translated;
    size_t size;
    struct translation t = {
        .at = text, .end = text + length, .out = text_begin(&translated, &size)};
    bool good = translate(&t);
    text_end(t.out);
    char *error = good ? compile(*pattern, translated, size)
                       : xprintf("pattern, byte %td: %s is not supported", t.at - text, t.wrong);
    free(translated);
    return error;
}

void pattern_free(struct pattern *pattern)
{
    if (!pattern)
        return;
    pcre2_jit_stack_free(pattern->stack);
    pcre2_match_context_free(pattern->context);
    pcre2_match_data_free(pattern->match);
    pcre2_code_free(pattern->code);
    free(pattern);
}

static int64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

struct pattern_budget pattern_budget(void)
{
    return (struct pattern_budget){.steps = BUDGET_LEAST, .left_ns = LEFT_MOST};
}

void pattern_budget_begin(struct pattern_budget *budget, size_t length)
{
    length += TEXT_BYTES;
    budget->steps += BUDGET_BYTE * (uint64_t)length;
    budget->end_ns = cpu_ns() + budget->left_ns + NANOSECONDS_BYTE * (int64_t)length;
}

void pattern_budget_end(struct pattern_budget *budget)
{
    int64_t left = budget->end_ns - cpu_ns();
    budget->left_ns = left < LEFT_MOST ? left : LEFT_MOST;
    if (budget->steps > BUDGET_LEAST)
        budget->steps = BUDGET_LEAST;
}

/* Deduct steps from the budget. False if fewer are left, or less time than a try of 8 times as many
 * steps as the last one may take. *since is when the last try began, 0 if there was none; it
 * becomes the time now. */
static bool spend(struct pattern_budget *budget, uint32_t steps, int64_t *since)
{
    int64_t now = cpu_ns(), took = *since ? now - *since : 0;
    if (budget->steps < steps || now + 8 * took > budget->end_ns)
        return false;
    budget->steps -= steps;
    *since = now;
    return true;
}

/* A match begins `left` bytes before the text's end. True if there is no time for it, as far as
 * this is known: to look takes longer than most matches. */
static bool is_late(struct pattern_budget *budget, size_t left)
{
    budget->read += left;
    if (++budget->matches < MATCHES || budget->read < READ)
        return false;
    budget->matches = 0;
    budget->read = 0;
    return cpu_ns() > budget->end_ns;
}

/* The first match that begins within STARTS bytes of `from`. PCRE2 limits the steps of a match, but
 * does not tell how many it took: so the limit grows until it suffices. */
static int match(struct pattern *pattern, const char *text, size_t length, size_t from,
                 struct pattern_budget *budget)
{
    if (is_late(budget, length - from))
        return PCRE2_ERROR_MATCHLIMIT;
    int64_t since = 0;
    pcre2_set_offset_limit(pattern->context, from + STARTS);
    for (uint32_t limit = FREE_LIMIT;;) {
        pcre2_set_match_limit(pattern->context, limit);
        int found = pcre2_match(pattern->code, (PCRE2_SPTR)text, length, from, PCRE2_NO_UTF_CHECK,
                                pattern->match, pattern->context);
        if (found != PCRE2_ERROR_MATCHLIMIT || limit >= MATCH_LIMIT ||
            !spend(budget, limit, &since))
            return found;
        limit = 8 * limit < MATCH_LIMIT ? 8 * limit : MATCH_LIMIT;
    }
}

enum pattern_result pattern_find(struct pattern *pattern, const char *text, size_t length,
                                 size_t from, struct pattern_budget *budget, size_t *start,
                                 size_t *end)
{
    int found = match(pattern, text, length, from, budget);
    while (found == PCRE2_ERROR_NOMATCH && length - from > STARTS) {
        from += STARTS + 1;
        while (from < length && ((unsigned char)text[from] & 0xc0) == 0x80)
            from++;
        found = match(pattern, text, length, from, budget);
    }
    if (found == PCRE2_ERROR_NOMATCH)
        return PATTERN_NONE;
    if (found < 0)
        return PATTERN_GAVE_UP;
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(pattern->match);
    *start = range[0];
    *end = range[1];
    return PATTERN_FOUND; /* in order and not before `from`, since \K is refused */
}
