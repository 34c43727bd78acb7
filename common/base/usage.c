#include "base/usage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"

enum { WIDTH = 80, GAP = 2, WIDEST_LABEL = 30 };

/* ---- lines of bounded width ---- */

/* Where the next word goes; continuation lines begin at column `indent`. */
struct line {
    size_t column, indent;
};

/* Print a word, or any text not to be broken, after a space or on the next line. */
static void print_word(struct line *line, const char *word, size_t length)
{
    if (line->column > line->indent && line->column + 1 + length > WIDTH) {
        printf("\n%*s", (int)line->indent, "");
        line->column = line->indent;
    } else if (line->column > line->indent) {
        putchar(' ');
        line->column++;
    }
    fwrite(word, 1, length, stdout);
    line->column += length;
}

static void print_text(struct line *line, const char *text)
{
    for (; *text; text += strspn(text, " ")) {
        size_t length = strcspn(text, " ");
        print_word(line, text, length);
        text += length;
    }
    putchar('\n');
}

/* ---- SYNOPSIS ---- */

static bool is_shown(const struct arg *arg)
{
    return arg->help && arg->in != NO_FORM;
}

static bool is_in(const struct arg *arg, unsigned form)
{
    return is_shown(arg) && (!arg->in || arg->in & form);
}

/* Mutually exclusive options are adjacent in the table. */
static bool is_alternative(const struct arg *arg)
{
    return arg->or_previous || arg[1].or_previous;
}

/* A flag that goes into the leading "[-hnqv]". */
static bool is_clustered(const struct arg *arg, unsigned form)
{
    return arg->kind == ARG_FLAG && arg->letter && !(arg->required & form) && !is_alternative(arg);
}

static int by_letter(const void *a, const void *b)
{
    return *(const char *)a - *(const char *)b;
}

static void print_cluster(struct line *line, const struct arg *args, unsigned form)
{
    char letters[UINT8_MAX + 1];
    size_t count = 0;
    for (const struct arg *arg = args; arg->name; arg++)
        if (is_in(arg, form) && is_clustered(arg, form))
            letters[count++] = arg->letter;
    qsort(letters, count, 1, by_letter);
    char *word = xprintf("[-%.*s]", (int)count, letters);
    if (count)
        print_word(line, word, strlen(word));
    free(word);
}

/* "-j N", "--json", "--zero keep | positive", "-e pattern ...": without brackets. The caller frees
 * it. */
static char *option_text(const struct arg *arg)
{
    char *name = arg->letter ? xprintf("-%c", arg->letter) : xprintf("--%s", arg->name);
    if (arg->kind == ARG_FLAG)
        return name;
    char *text = xprintf("%s %s%s", name, arg->choices ? "" : arg->value,
                         arg->kind == ARG_LIST ? " ..." : "");
    for (const char *choice = arg->choices; choice && *choice;) {
        size_t length = strcspn(choice, "|");
        char *longer = xprintf("%s%.*s%s", text, (int)length, choice, choice[length] ? " | " : "");
        free(text);
        text = longer;
        choice += length + (choice[length] == '|');
    }
    free(name);
    return text;
}

static void print_option(struct line *line, const struct arg *arg, bool required)
{
    char *text = option_text(arg);
    for (arg++; arg->name && arg->or_previous; arg++) {
        char *other = option_text(arg), *both = xprintf("%s | %s", text, other);
        free(text);
        free(other);
        text = both;
    }
    char *word = required ? xprintf("%s", text) : xprintf("[%s]", text);
    print_word(line, word, strlen(word));
    free(word);
    free(text);
}

/* By letter, or by name if there is none, as in man pages. */
static int by_name(const void *left, const void *right)
{
    const struct arg *a = *(const struct arg *const *)left, *b = *(const struct arg *const *)right;
    const char first[] = {a->letter, 0}, second[] = {b->letter, 0};
    return strcmp(a->letter ? first : a->name, b->letter ? second : b->name);
}

static void print_form(const struct program *program, const struct arg *args, int number)
{
    unsigned form = FORM(number);
    const struct arg **sorted = NULL;
    size_t count = 0;
    struct line line = {0};
    line.indent =
        (size_t)printf("%s%s", number ? "       " : "usage: ", program_invocation_short_name);
    line.column = ++line.indent;
    putchar(' ');
    print_cluster(&line, args, form);
    for (const struct arg *arg = args; arg->name; arg++) {
        if (!is_in(arg, form) || is_clustered(arg, form) || arg->or_previous)
            continue;
        if (arg->required & form) {
            print_option(&line, arg, true);
            continue;
        }
        sorted = xgrow(sorted, count + 1, sizeof *sorted);
        sorted[count++] = arg;
    }
    if (count)
        qsort(sorted, count, sizeof *sorted, by_name);
    for (size_t i = 0; i < count; i++)
        print_option(&line, sorted[i], false);
    const char *operands = program->operands[number];
    if (operands && *operands)
        print_word(&line, operands, strlen(operands));
    putchar('\n');
    free(sorted);
}

/* ---- options ---- */

/* "  -j, --threads N": the caller frees it. */
static char *label_of(const struct arg *arg)
{
    const char letter[] = {'-', arg->letter, ',', 0};
    return xprintf("  %3s --%s%s%s", arg->letter ? letter : "", arg->name, arg->value ? " " : "",
                   arg->value ? arg->value : "");
}

static void print_options(const struct arg *args)
{
    size_t widest = 0;
    for (const struct arg *arg = args; arg->name; arg++) {
        char *label = label_of(arg);
        size_t length = strlen(label);
        if (is_shown(arg) && length > widest && length <= WIDEST_LABEL)
            widest = length;
        free(label);
    }
    for (const struct arg *arg = args; arg->name; arg++) {
        if (!is_shown(arg))
            continue;
        char *label = label_of(arg);
        struct line line = {widest + GAP, widest + GAP};
        if (strlen(label) > widest)
            printf("%s\n%*s", label, (int)line.indent, "");
        else
            printf("%-*s", (int)line.indent, label);
        print_text(&line, arg->help);
        free(label);
    }
}

void usage_print(const struct program *program, const struct arg *args)
{
    print_form(program, args, 0);
    for (int i = 1; i < PROGRAM_FORMS && program->operands[i]; i++)
        print_form(program, args, i);
    putchar('\n');
    print_text(&(struct line){0}, program->about);
    putchar('\n');
    print_options(args);
    for (int i = 0; i < PROGRAM_EXAMPLES && program->examples[i]; i++)
        printf("%s  %s\n", i ? "" : "\nExamples:\n", program->examples[i]);
}
