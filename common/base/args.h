/* args.h: command lines, the same in every program.
 *
 * A program describes itself in a `struct program` and its options in a table of `struct arg`.
 * Parsing, --help and its usage lines, which equal the man page's SYNOPSIS, come from these two.
 *
 * To add an option: add one entry to the program's table, with its help text, and an .It to the
 * SYNOPSIS and DESCRIPTION of its page (man.bats compares them). The member that `to` points to has
 * the option's name, with _ for - (where C allows it: --inline is `embed`, --long is `details`). To
 * change a shared option's help in one program, add an entry with its name and without `to`:
 *
 *     {.name = "verbose", .help = "say how much was read"},
 *     {.name = "plan", .in = NO_FORM},
 *
 * To add an option to every program: add an entry to add_shared(). An option that some programs
 * share comes from a function that returns its entry, such as arg_threads(), or several entries,
 * such as forward_options_args(). */
#ifndef ARGS_H
#define ARGS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum arg_kind {
    ARG_FLAG,   /* bool: set to true */
    ARG_TEXT,   /* const char * */
    ARG_INPUT,  /* const char *: a file that is read */
    ARG_OUTPUT, /* const char *: a file that is written, checked by stage_begin() */
    ARG_LIST,   /* struct arg_list: an option that may be given again */
    ARG_NUMBER, /* uint64_t: decimal */
    ARG_BYTES,  /* uint64_t: decimal with an optional K, M or G (powers of 1024) */
    ARG_REAL,   /* float: a normal number above 0 */
    ARG_CHOICE, /* const char *: one of `choices` */
    ARG_RANGE,  /* struct arg_pair: "A-B" with A <= B */
    ARG_PART,   /* struct arg_pair: "I/N" with 1 <= I <= N */
};

struct arg_list {
    const char **text;
    size_t count;
};

struct arg_pair {
    const char *text; /* as given; NULL if it was not given */
    uint64_t a, b;    /* at most 999999999 */
};

/* A command line may have several forms, each a line of the SYNOPSIS. Sets of forms: */
#define FORM(n) (1U << (n))
enum { EVERY_FORM = FORM(29) - 1, NO_SYNOPSIS = FORM(29), NO_FORM = FORM(30) };

/* One option. A table of options ends with an entry without a name. */
struct arg {
    const char *name; /* "amax" for --amax */
    char letter;      /* 'a' for -a; 0 for none */
    enum arg_kind kind;
    void *to;            /* what it sets, and where its default is until then; NULL: see above */
    const char *value;   /* the value's name in the help: "file"; NULL for a flag */
    const char *choices; /* "none|layer-max" */
    const char *help;    /* any length: it is wrapped. NULL: the option works but is not shown */
    unsigned in;         /* forms that have it; 0: all; NO_SYNOPSIS: help only; NO_FORM: nowhere */
    unsigned required;   /* forms in which it must be given (checked by the program) */
    bool or_previous;    /* excludes the option before it (checked by the program) */
    bool silent; /* cannot change the result (-j, -v): not recorded in the history, where the
                  * others are unless they have the value that they have anyway */
};

enum { PROGRAM_FORMS = 4, PROGRAM_EXAMPLES = 6 };

/* What --help prints besides the options. Texts are wrapped, examples are not. */
struct program {
    const char *about;
    const char *operands[PROGRAM_FORMS]; /* of each form: "[stream]"; one per form */
    const char *examples[PROGRAM_EXAMPLES];
    int max_operands; /* more are refused; ANY_OPERANDS: any number */
    bool in_place; /* -o may name the stream that is read: it stays until the new one is complete */
};
enum { ANY_OPERANDS = -1 };

/* The state that every program has. */
struct stage {
    const char *output; /* -o FILE; NULL for standard output */
    bool verbose, quiet, progress;
    bool plan;  /* -n: write the table, no tensors */
    bool embed; /* write bytes into the output stream instead of references (st-read --inline) */
    bool allow_zeros;      /* open checkpoints whose shards end in zeros, too (ts_open()) */
    struct output *report; /* where a report goes, between report_begin() and report_end() */
    json_t *entry;         /* this run's entry in the history: {"program", "version", "options"} */
    char **operand;
    int operands;
};

/* Parse a command line: the program's own options (may be NULL) and the shared ones: -h --help,
 * --version, -v, -q, -n, -o FILE, --progress. --help and --version print on standard output and
 * exit 0. A wrong command line exits 2, among them one that writes two outputs, or an input and an
 * output, to one file; an output that could not be written exits 1. stage->operand points to the
 * operands in argv. `args` may point into *stage; it is not used after the call. */
void stage_begin(struct stage *stage, const struct program *program, const struct arg *args,
                 int argc, char **argv);

/* A program's own options (may be NULL) and shared ones in one table, which the caller frees. An
 * entry of `own` without `to` adds no option: its `help` and `in`, if set, replace those of the
 * shared option with its name. */
struct arg *args_join(const struct arg *own, const struct arg *shared);

/* -j, --threads N, into *to: 0 if not given, which ordered_pool_threads() accepts. */
struct arg arg_threads(uint64_t *to);

/* True if `text` is one of the choices "a|b|c". */
bool is_choice(const char *choices, const char *text);

/* The first operand, or NULL (standard input) if there is none or it is "-". */
const char *stage_input(const struct stage *stage);

/* End main: check that everything written to standard output arrived (delayed errors too), and
 * return 0. */
int stage_end(struct stage *stage);

/* The same for a program whose result, of this name, is in place already, so that standard output
 * has only its report: if that did not arrive, a line on standard error says so. */
int stage_end_in_place(struct stage *stage, const char *result);

#endif
