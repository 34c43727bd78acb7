#include "base/args.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/number.h"
#include "base/output.h"
#include "base/parent.h"
#include "base/progress.h"
#include "base/text.h"
#include "base/usage.h"
#include "base/version.h"

enum { LONG_ONLY = 256, PAIR_MAX = 999999999 };

/* ---- values ---- */

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

static float parse_real(const char *name, const char *text)
{
    char *end;
    bool decimal = *text && *text != '-' && !text[strspn(text, "0123456789.eE+-")];
    float value = strtof(text, &end);
    if (!decimal || *end || !strcspn(text, "eE") || isinf(value) ||
        strcspn(text, "123456789") >= strcspn(text, "eE"))
        die_usage("--%s: '%s' is not a number above 0", name, text);
    if (!isnormal(value))
        die_usage("--%s: '%s' is too small: below %g, engines may take it for 0", name, text,
                  (double)FLT_MIN);
    return value;
}

/* "A-B" or "I/N". */
static struct arg_pair parse_pair(const struct arg *arg, const char *text)
{
    struct arg_pair pair = {.text = text};
    bool range = arg->kind == ARG_RANGE;
    const char *at = text;
    if (!number_parse(&at, PAIR_MAX, &pair.a) || *at++ != (range ? '-' : '/') ||
        !number_parse(&at, PAIR_MAX, &pair.b) || *at || pair.a > pair.b || (!range && !pair.a))
        die_usage("--%s: '%s' is not %s", arg->name, text,
                  range ? "A-B with A <= B" : "I/N with 1 <= I <= N");
    return pair;
}

bool is_choice(const char *choices, const char *text)
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

static void set_value(const struct arg *arg, const char *text)
{
    switch (arg->kind) {
    case ARG_FLAG:
        *(bool *)arg->to = true;
        break;
    case ARG_TEXT:
    case ARG_INPUT:
    case ARG_OUTPUT:
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
    case ARG_REAL:
        *(float *)arg->to = parse_real(arg->name, text);
        break;
    case ARG_CHOICE:
        if (!is_choice(arg->choices, text))
            die_usage("--%s: '%s' is none of %s", arg->name, text, arg->choices);
        *(const char **)arg->to = text;
        break;
    case ARG_RANGE:
    case ARG_PART:
        *(struct arg_pair *)arg->to = parse_pair(arg, text);
        break;
    }
}

/* An option's value in canonical form, which the caller frees; NULL if it has none, as a list. */
static char *value_text(const struct arg *arg)
{
    const struct arg_pair *pair = arg->to;
    switch (arg->kind) {
    case ARG_FLAG:
        return *(const bool *)arg->to ? xstrdup("") : NULL;
    case ARG_TEXT:
    case ARG_INPUT:
    case ARG_OUTPUT:
    case ARG_CHOICE:
        return *(char *const *)arg->to ? xprintf("=%s", *(char *const *)arg->to) : NULL;
    case ARG_LIST:
        return NULL;
    case ARG_NUMBER:
    case ARG_BYTES:
        return xprintf("=%" PRIu64, *(const uint64_t *)arg->to);
    case ARG_REAL:
        return xprintf("=%.9g", (double)*(const float *)arg->to);
    case ARG_RANGE:
    case ARG_PART:
        return !pair->text ? NULL
                           : xprintf("=%" PRIu64 "%c%" PRIu64, pair->a,
                                     arg->kind == ARG_RANGE ? '-' : '/', pair->b);
    }
    return NULL;
}

static void record_one(json_t *options, const char *name, const char *value)
{
    char *option = xprintf("--%s%s", name, value);
    json_array_append_new(options, json_string(option));
    free(option);
}

/* Put the options that change the result into the history, in canonical form: in the table's order,
 * and without those that have the value they have anyway, `before`. So equal runs are seen to be
 * equal. Frees `before`. */
static void record(json_t *options, const struct arg *args, char **before)
{
    for (size_t i = 0; args[i].name; i++) {
        char *now = value_text(&args[i]);
        if (args[i].kind == ARG_LIST && !args[i].silent) {
            const struct arg_list *list = args[i].to;
            for (size_t j = 0; j < list->count; j++) {
                free(now);
                now = xprintf("=%s", list->text[j]);
                record_one(options, args[i].name, now);
            }
        } else if (!args[i].silent && now && (!before[i] || strcmp(now, before[i]) != 0)) {
            record_one(options, args[i].name, now);
        }
        free(now);
        free(before[i]);
    }
    free(before);
}

/* The last stage of a pipeline shows progress by default if a person watches. */
static bool is_last_on_terminal(const struct stage *stage)
{
    struct stat status;
    bool to_file = stage->output || (!fstat(STDOUT_FILENO, &status) && S_ISREG(status.st_mode));
    return to_file && isatty(STDERR_FILENO) && !stage->quiet;
}

/* If one of descriptors 0 to 2 is closed, the next file opened would get its number, and output for
 * standard output or error would go into that file. Reading 0 and writing 1 still fail as before.
 */
static void hold_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : O_WRONLY) != fd)
            die_errno("/dev/null");
}

/* ---- tables ---- */

static size_t count_args(const struct arg *args)
{
    size_t count = 0;
    while (args && args[count].name)
        count++;
    return count;
}

/* If `args` has an option with the name of `change`, an entry without `to`, apply its help and
 * forms. */
static bool adapt(struct arg *args, const struct arg *change)
{
    for (; args->name; args++)
        if (!strcmp(args->name, change->name)) {
            args->help = change->help ? change->help : args->help;
            args->in = change->in ? change->in : args->in;
            return true;
        }
    return false;
}

struct arg *args_join(const struct arg *own, const struct arg *shared)
{
    size_t count = count_args(shared);
    struct arg *all = xalloc(count_args(own) + count + 1, sizeof *all);
    struct arg *end = all, *changed = xalloc(count + 1, sizeof *changed);
    memcpy(changed, shared, count * sizeof *changed);
    for (; own && own->name; own++)
        if (own->to || !adapt(changed, own))
            *end++ = *own;
    memcpy(end, changed, count * sizeof *changed);
    free(changed);
    return all;
}

struct arg arg_threads(uint64_t *to)
{
    return (struct arg){.name = "threads",
                        .letter = 'j',
                        .kind = ARG_NUMBER,
                        .to = to,
                        .value = "N",
                        .help = "threads (default: as many as there are processors)",
                        .silent = true};
}

/* What --help and --version set. */
struct asked {
    bool help, version;
};

/* All options: the program's own, then those that every program has. The caller frees the table. */
static struct arg *add_shared(const struct arg *own, struct stage *stage, struct asked *asked)
{
    const struct arg shared[] = {
        {.name = "plan",
         .letter = 'n',
         .to = &stage->plan,
         .help = "write the table only, no tensors",
         .silent = true},
        {.name = "dry-run", .to = &stage->plan, .silent = true}, /* as pipelines have it, too */
        {.name = "output",
         .letter = 'o',
         .kind = ARG_OUTPUT,
         .to = &stage->output,
         .value = "file",
         .help = "write to file instead of standard output",
         .silent = true},
        {.name = "progress",
         .to = &stage->progress,
         .help = "show bytes, rate and time left",
         .silent = true},
        {.name = "quiet",
         .letter = 'q',
         .to = &stage->quiet,
         .help = "no messages but errors",
         .silent = true},
        /* each program has its own help text for this */
        {.name = "verbose", .letter = 'v', .to = &stage->verbose, .silent = true},
        {.name = "help", .letter = 'h', .to = &asked->help, .help = "this text", .silent = true},
        {.name = "version",
         .to = &asked->version,
         .help = "the version",
         .in = NO_SYNOPSIS,
         .silent = true},
        {0},
    };
    struct arg *all = args_join(own, shared);
    for (const struct arg *arg = all; arg->name; arg++)
        if (!arg->to)
            die("--%s: its entry sets nothing, and no shared option has that name", arg->name);
    return all;
}

/* ---- the command line ---- */

/* In the form getopt_long(3) takes: short options, and long ones by their index in the table. */
struct getopt_tables {
    char *letters;
    struct option *options;
};

static void make_tables(struct getopt_tables *tables, const struct arg *args)
{
    size_t count = count_args(args);
    char *letter = tables->letters = xalloc(2 * count + 1, 1);
    tables->options = xalloc(count + 1, sizeof *tables->options);
    for (size_t i = 0; i < count; i++) {
        bool has_value = args[i].kind != ARG_FLAG;
        tables->options[i] = (struct option){
            args[i].name, has_value ? required_argument : no_argument, NULL, LONG_ONLY + (int)i};
        if (!args[i].letter)
            continue;
        *letter++ = args[i].letter;
        if (has_value)
            *letter++ = ':';
    }
}

/* The option that getopt_long(3) found. */
static const struct arg *found_arg(const struct arg *args, int found)
{
    if (found >= LONG_ONLY)
        return &args[found - LONG_ONLY];
    while (args->letter != found)
        args++;
    return args;
}

static void parse(struct stage *stage, const struct arg *args, int argc, char **argv)
{
    struct getopt_tables tables;
    make_tables(&tables, args);
    char **before = xalloc(count_args(args) + 1, sizeof *before);
    for (size_t i = 0; args[i].name; i++)
        before[i] = value_text(&args[i]);
    for (int c; (c = getopt_long(argc, argv, tables.letters, tables.options, NULL)) != -1;) {
        if (c == '?') {
            fprintf(stderr, "Try '%s --help'.\n", program_invocation_short_name);
            exit(EXIT_USAGE);
        }
        const struct arg *arg = found_arg(args, c);
        set_value(arg, optarg);
    }
    record(json_object_get(stage->entry, "options"), args, before);
    free(tables.letters);
    free(tables.options);
    stage->operand = argv + optind;
    stage->operands = argc - optind;
}

/* ---- outputs ---- */

/* The file that an option of that kind was given; NULL if none. */
static const char *given(const struct arg *arg, enum arg_kind kind)
{
    return arg->kind == kind ? *(const char **)arg->to : NULL;
}

/* True if `file` is what the program reads at `input`: that file, or a shard or JSON file in that
 * folder. */
static bool is_read(const char *file, const char *input)
{
    struct stat status;
    if (stat(input, &status))
        return false; /* not all operands are files */
    if (!S_ISDIR(status.st_mode))
        return output_is_same(file, input);
    const char *slash = strrchr(file, '/'), *name = slash ? slash + 1 : file;
    char *inside = xprintf("%s/%s", input, name);
    bool read = (ends_with(name, ".safetensors") || ends_with(name, ".json")) &&
                !access(inside, F_OK) && output_is_same(file, inside);
    free(inside);
    return read;
}

/* Check that `file`, which `arg` writes, is not read, and not written by a later option, too. */
static void check_others(const struct stage *stage, const struct program *program,
                         const struct arg *args, const struct arg *arg, const char *file)
{
    for (const struct arg *other = args; other->name; other++) {
        const char *input = given(other, ARG_INPUT);
        const char *output = other > arg ? given(other, ARG_OUTPUT) : NULL;
        if (input && is_read(file, input))
            die_usage("--%s: %s is also what --%s reads; name another file", arg->name, file,
                      other->name);
        if (output && output_is_same(file, output))
            die_usage("--%s and --%s: both write %s; name another file", arg->name, other->name,
                      file);
    }
    for (int i = 0; i < stage->operands; i++) {
        bool in_place =
            program->in_place && file == stage->output && output_is_same(file, stage->operand[i]);
        if (!in_place && is_read(file, stage->operand[i]))
            die_usage("--%s: %s is also read; name another file", arg->name, file);
    }
}

/* Find now what would fail when the work is done. */
static void check_outputs(const struct stage *stage, const struct program *program,
                          const struct arg *args)
{
    for (const struct arg *arg = args; arg->name; arg++) {
        const char *file = given(arg, ARG_OUTPUT);
        if (!file)
            continue;
        if (*file == '-')
            die_usage("--%s: '%s' is not a file's name; ./%s if it is one", arg->name, file, file);
        if (!*file)
            die_usage("--%s: an empty name; name a file", arg->name);
        check_others(stage, program, args, arg, file);
        output_check(file);
    }
}

void stage_begin(struct stage *stage, const struct program *program, const struct arg *args,
                 int argc, char **argv)
{
    hold_standard_descriptors();
    parent_follow();
    progress_hold_signal();
    *stage = (struct stage){.entry = json_pack("{s:s, s:s, s:[]}", "program",
                                               program_invocation_short_name, "version",
                                               SEEKPIPE_VERSION, "options")};
    if (!stage->entry)
        die("out of memory");
    struct asked asked = {0};
    struct arg *all = add_shared(args, stage, &asked);
    parse(stage, all, argc, argv);
    if (asked.help)
        usage_print(program, all);
    if (asked.version)
        printf("%s (seekpipe) %s\n", program_invocation_short_name, SEEKPIPE_VERSION);
    if (asked.help || asked.version)
        exit(stage_end(stage));
    stage->progress |= is_last_on_terminal(stage);
    if (program->max_operands >= 0 && stage->operands > program->max_operands)
        die_usage("unexpected operand '%s'", stage->operand[program->max_operands]);
    check_outputs(stage, program, all);
    free(all);
}

const char *stage_input(const struct stage *stage)
{
    if (stage->operands < 1 || !strcmp(stage->operand[0], "-"))
        return NULL;
    return stage->operand[0];
}

/* Close standard output; false, and errno, if not all that was written to it arrived. */
static bool close_stdout(struct stage *stage)
{
    json_decref(stage->entry);
    stage->entry = NULL;
    return !fflush(stdout) && !ferror(stdout) && !close(STDOUT_FILENO);
}

int stage_end(struct stage *stage)
{
    if (!close_stdout(stage))
        die_errno("standard output");
    return 0;
}

int stage_end_in_place(struct stage *stage, const char *result)
{
    if (!close_stdout(stage))
        warn("%s: is in place, but standard output did not take all that was to be said of it: %s",
             result, strerror(errno));
    return 0;
}
