/* args.h: command lines, the same in every program. */
#ifndef ARGS_H
#define ARGS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEEKPIPE_VERSION "0.1.0"

enum arg_kind {
    ARG_FLAG,   /* bool: set to true */
    ARG_TEXT,   /* const char * */
    ARG_LIST,   /* struct arg_list: an option that may be given again */
    ARG_NUMBER, /* uint64_t: decimal */
    ARG_BYTES,  /* uint64_t: decimal with an optional K, M or G (powers of 1024) */
    ARG_CHOICE, /* const char *: one of `choices` */
};

struct arg_list {
    const char **text;
    size_t count;
};

/* One option. An option that cannot change the result (-j, -v) is `silent`: it leaves no trace in
 * the stream's history. */
struct arg {
    const char *name; /* "amax" for --amax; NULL ends an array */
    enum arg_kind kind;
    void *to;
    char letter;         /* 'a' for -a; 0 for none */
    const char *choices; /* "none|layer-max" */
    bool silent;
};

/* What every program has. */
struct stage {
    const char *output; /* -o FILE; NULL for standard output */
    bool verbose, quiet, progress;
    bool plan;  /* -n: write the table, no tensors */
    bool embed; /* put bytes into the output stream instead of references (st-read --inline) */
    struct output *report; /* where a report goes, from report_begin() to report_end() */
    json_t *entry;         /* this run's line of the history: {"program", "version", "options"} */
    char **operand;
    int operands;
};

/* Parse a command line: the program's own options (an array ended by a NULL name; may be NULL), and
 * the common ones: -h --help, --version, -v, -q, -n, -o FILE, --progress. `usage` is what --help
 * prints; its first line begins "usage: " and equals the man page's SYNOPSIS. --help and --version
 * print on standard output and exit 0; a wrong command line exits 2. Operands are left in
 * stage->operand, which points into argv; more than max_operands (if >= 0) are refused. */
void stage_begin(struct stage *stage, const char *usage, const struct arg *args, int argc,
                 char **argv, int max_operands);

/* The operand, or NULL ("standard input") if there is none or it is "-". */
const char *stage_input(const struct stage *stage);

/* End main: check that everything written to standard output really went out (delayed errors
 * too), and return 0. */
int stage_end(struct stage *stage);

#endif
