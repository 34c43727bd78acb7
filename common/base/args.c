#include "base/args.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/number.h"

enum { MAX_OPTIONS = 40, LONG_ONLY = 256 };

static uint64_t parse_number(const char *name, const char *text, bool bytes)
{
    const char *end = text;
    uint64_t number = 0, unit = 1, value;
    bool right = number_parse(&end, UINT64_MAX, &number);
    if (bytes && *end && !end[1])
        unit = *end == 'K' ? 1U << 10 : *end == 'M' ? 1U << 20 : *end == 'G' ? 1U << 30 : 0;
    else if (*end)
        unit = 0;
    if (!right || !unit || !mul_fits(number, unit, &value))
        die_usage("--%s: '%s' is not a number%s", name, text, bytes ? " of bytes (K, M, G)" : "");
    return value;
}

static bool is_choice(const char *choices, const char *text)
{
    for (const char *p = choices;; p++) {
        size_t length = strcspn(p, "|");
        if (length == strlen(text) && !strncmp(p, text, length))
            return true;
        p += length;
        if (!*p)
            return false;
    }
}

static void take(const struct arg *arg, const char *text)
{
    switch (arg->kind) {
    case ARG_FLAG:
        *(bool *)arg->to = true;
        break;
    case ARG_TEXT:
        *(const char **)arg->to = text;
        break;
    case ARG_LIST: {
        struct arg_list *list = arg->to;
        list->text = xgrow(list->text, list->count + 1, sizeof *list->text);
        list->text[list->count++] = text;
        break;
    }
    case ARG_NUMBER:
    case ARG_BYTES:
        *(uint64_t *)arg->to = parse_number(arg->name, text, arg->kind == ARG_BYTES);
        break;
    case ARG_CHOICE:
        if (!is_choice(arg->choices, text))
            die_usage("--%s: '%s' is none of %s", arg->name, text, arg->choices);
        *(const char **)arg->to = text;
        break;
    }
}

/* The options that changed the result, in canonical form. */
static void record(json_t *options, const struct arg *arg, const char *text)
{
    if (arg->silent)
        return;
    char *option = text ? xprintf("--%s=%s", arg->name, text) : xprintf("--%s", arg->name);
    json_array_append_new(options, json_string(option));
    free(option);
}

/* The last stage of a pipeline, run by a person who looks on, shows progress unasked. */
static bool is_last_on_terminal(const struct stage *stage)
{
    struct stat status;
    bool to_file = stage->output || (!fstat(STDOUT_FILENO, &status) && S_ISREG(status.st_mode));
    return to_file && isatty(STDERR_FILENO) && !stage->quiet;
}

/* One of the descriptors 0 to 2 that is closed would be the next file's that is opened, and what is
 * meant for standard output or error would go there. Reading 0 and writing 1 fail as before. */
static void hold_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : O_WRONLY) != fd)
            die_errno("/dev/null");
}

void stage_begin(struct stage *stage, const char *usage, const struct arg *args, int argc,
                 char **argv, int max_operands)
{
    hold_standard_descriptors();
    bool help = false, version = false;
    const struct arg common[] = {
        {"help", ARG_FLAG, &help, 'h', NULL, true},
        {"version", ARG_FLAG, &version, 0, NULL, true},
        {"verbose", ARG_FLAG, &stage->verbose, 'v', NULL, true},
        {"quiet", ARG_FLAG, &stage->quiet, 'q', NULL, true},
        {"plan", ARG_FLAG, &stage->plan, 'n', NULL, true},
        {"output", ARG_TEXT, &stage->output, 'o', NULL, true},
        {"progress", ARG_FLAG, &stage->progress, 0, NULL, true},
    };
    struct option options[MAX_OPTIONS + 1];
    const struct arg *known[MAX_OPTIONS];
    char letters[2 * MAX_OPTIONS + 1] = "", *letter = letters;
    int count = 0;
    for (const struct arg *arg = args; arg && arg->name; arg++)
        known[count++] = arg;
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        known[count++] = &common[i];
    for (int i = 0; i < count; i++) {
        bool takes = known[i]->kind != ARG_FLAG;
        options[i] = (struct option){known[i]->name, takes ? required_argument : no_argument, NULL,
                                     LONG_ONLY + i};
        if (known[i]->letter) {
            *letter++ = known[i]->letter;
            if (takes)
                *letter++ = ':';
        }
    }
    *letter = 0;
    options[count] = (struct option){NULL, 0, NULL, 0};

    *stage = (struct stage){.entry = json_pack("{s:s, s:s, s:[]}", "program",
                                               program_invocation_short_name, "version",
                                               SEEKPIPE_VERSION, "options")};
    if (!stage->entry)
        die("out of memory");
    json_t *record_in = json_object_get(stage->entry, "options");
    for (int c; (c = getopt_long(argc, argv, letters, options, NULL)) != -1;) {
        if (c == '?') {
            fprintf(stderr, "Try '%s --help'.\n", program_invocation_short_name);
            exit(EXIT_USAGE);
        }
        const struct arg *arg = NULL;
        if (c >= LONG_ONLY)
            arg = known[c - LONG_ONLY];
        for (int i = 0; i < count && !arg; i++)
            if (known[i]->letter == c)
                arg = known[i];
        take(arg, optarg);
        record(record_in, arg, arg->kind == ARG_FLAG ? NULL : optarg);
    }
    if (help)
        fputs(usage, stdout);
    if (version)
        printf("%s (seekpipe) %s\n", program_invocation_short_name, SEEKPIPE_VERSION);
    if (help || version)
        exit(stage_end(stage));
    stage->progress |= is_last_on_terminal(stage);
    stage->operand = argv + optind;
    stage->operands = argc - optind;
    if (max_operands >= 0 && stage->operands > max_operands)
        die_usage("unexpected operand '%s'", stage->operand[max_operands]);
}

const char *stage_input(const struct stage *stage)
{
    if (stage->operands < 1 || !strcmp(stage->operand[0], "-"))
        return NULL;
    return stage->operand[0];
}

int stage_end(struct stage *stage)
{
    json_decref(stage->entry);
    stage->entry = NULL;
    if (fflush(stdout) || ferror(stdout) || close(STDOUT_FILENO))
        die_errno("standard output");
    return 0;
}
