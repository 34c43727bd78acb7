/* Command lines: tables of any length, what a program says of shared options, what --help prints.
 */
#include "base/args.h"

#include <getopt.h>

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "child.h"

enum { MANY = 300, ROOM = 4096 };

static const struct program program = {.about = "Do it.", .operands = {"[stream]"}};

/* A command line: stage_begin()'s arguments. */
struct line {
    const struct arg *args;
    char *argv[8];
};

static char recorded[ROOM]; /* the options in the history of what begin() began last */

static void begin(void *context)
{
    struct line *line = context;
    struct stage stage;
    int argc = 0;
    while (line->argv[argc])
        argc++;
    optind = 0;
    stage_begin(&stage, &program, line->args, argc, line->argv);
    char *text = json_dumps(json_object_get(stage.entry, "options"), JSON_COMPACT);
    snprintf(recorded, sizeof recorded, "%s", text);
    free(text);
    json_decref(stage.entry);
}

static void any_number_of_options(void **state)
{
    (void)state;
    static char name[MANY][sizeof "o-2147483648-"];
    static bool given[MANY];
    struct arg args[MANY + 1] = {{0}};
    for (int i = 0; i < MANY; i++) {
        snprintf(name[i], sizeof name[i], "o%d-", i);
        args[i] = (struct arg){.name = name[i], .to = &given[i], .help = "one of many"};
    }
    begin(&(struct line){args, {"many", "--o0-", "--o299-", "-q"}});
    for (int i = 0; i < MANY; i++)
        assert_int_equal(given[i], i == 0 || i == MANY - 1);
}

static void pairs(void **state)
{
    (void)state;
    struct arg_pair layers = {0}, part = {0};
    const struct arg args[] = {
        {.name = "layers", .kind = ARG_RANGE, .to = &layers, .value = "A-B"},
        {.name = "part", .kind = ARG_PART, .to = &part, .value = "I/N"},
        {0},
    };
    begin(&(struct line){args, {"pairs"}});
    assert_null(layers.text);
    begin(&(struct line){args, {"pairs", "--layers=0-12", "--part", "3/3"}});
    assert_string_equal(layers.text, "0-12");
    assert_int_equal(layers.a, 0);
    assert_int_equal(layers.b, 12);
    assert_int_equal(part.a, 3);
    assert_int_equal(part.b, 3);
    static char *wrong[] = {"--layers=1-0", "--layers=1",   "--layers=1-2x",        "--layers=-1-2",
                            "--layers=",    "--layers=1/2", "--part=0/2",           "--part=3/2",
                            "--part=1-2",   "--part=1/",    "--layers=0-1000000000"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char said[ROOM];
        assert_int_equal(end_of(begin, &(struct line){args, {"pairs", wrong[i]}}, said, ROOM),
                         EXIT_USAGE);
        assert_non_null(strstr(said, wrong[i][2] == 'l' ? "is not A-B with A <= B"
                                                        : "is not I/N with 1 <= I <= N"));
    }
}

/* Equal runs have equal histories, however they were asked for. */
static void history_is_canonical(void **state)
{
    (void)state;
    const char *zero = "a", *file = NULL;
    float scale = 1;
    uint64_t bytes = 1024, threads = 0;
    struct arg_list list = {0};
    struct arg_pair layers = {0};
    bool flag = false;
    const struct arg args[] = {
        {.name = "zero", .kind = ARG_CHOICE, .to = &zero, .value = "which", .choices = "a|b"},
        {.name = "amax", .kind = ARG_TEXT, .to = &file, .value = "file"},
        {.name = "scale", .kind = ARG_REAL, .to = &scale, .value = "N"},
        {.name = "mem", .kind = ARG_BYTES, .to = &bytes, .value = "size"},
        {.name = "layers", .kind = ARG_RANGE, .to = &layers, .value = "A-B"},
        {.name = "again", .kind = ARG_LIST, .to = &list, .value = "text"},
        {.name = "flag", .to = &flag},
        arg_threads(&threads),
        {0},
    };
    begin(&(struct line){args, {"args", "--zero=a", "--scale=1.0", "--mem=1K", "-j3"}});
    assert_string_equal(recorded, "[]");
    begin(&(struct line){args,
                         {"args", "--flag", "--again=y", "--zero", "b", "--again=x", "--flag"}});
    assert_string_equal(recorded, "[\"--zero=b\",\"--again=y\",\"--again=x\",\"--flag\"]");
    free(list.text);
    list = (struct arg_list){0};
    zero = "a", flag = false;
    begin(&(struct line){args,
                         {"args", "--layers=01-2", "--mem=1M", "--scale=25e-2", "--zero=b",
                          "--zero=a", "--amax=x"}});
    assert_string_equal(recorded,
                        "[\"--amax=x\",\"--scale=0.25\",\"--mem=1048576\",\"--layers=1-2\"]");
}

static void numbers_above_0(void **state)
{
    (void)state;
    float scale = 1;
    const struct arg args[] = {{.name = "scale", .kind = ARG_REAL, .to = &scale, .value = "N"},
                               {0}};
    static char *right[] = {"--scale=2", "--scale=.5", "--scale=5.", "--scale=1.2e-38",
                            "--scale=+3"};
    static char *wrong[] = {"--scale=",    "--scale=0",     "--scale=0e1",  "--scale=-1",
                            "--scale=.",   "--scale=e1",    "--scale=1e",   "--scale=nan",
                            "--scale=inf", "--scale=0x1",   "--scale= 1",   "--scale=1e39",
                            "--scale=1x",  "--scale=1e-39", "--scale=1e-99"};
    for (size_t i = 0; i < sizeof right / sizeof *right; i++)
        begin(&(struct line){args, {"args", right[i]}});
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char said[ROOM];
        assert_int_equal(end_of(begin, &(struct line){args, {"args", wrong[i]}}, said, ROOM),
                         EXIT_USAGE);
        assert_non_null(strstr(said, i < 13 ? "is not a number above 0" : "is too small"));
    }
}

/* What begin() of --help prints. */
static void help(const struct arg *args, char *text, size_t room)
{
    FILE *file = tmpfile();
    char said[ROOM];
    assert_non_null(file);
    int out = dup(STDOUT_FILENO);
    fflush(stdout);
    dup2(fileno(file), STDOUT_FILENO);
    int code = end_of(begin, &(struct line){args, {"args", "--help"}}, said, ROOM);
    dup2(out, STDOUT_FILENO);
    close(out);
    assert_int_equal(code, 0);
    rewind(file);
    text[fread(text, 1, room - 1, file)] = 0;
    fclose(file);
}

static void help_is_the_table(void **state)
{
    (void)state;
    const char *file = NULL, *zero = "a";
    struct arg_list again = {0};
    bool flag = false, other = false;
    uint64_t threads = 0;
    const struct arg args[] = {
        {.name = "zero",
         .kind = ARG_CHOICE,
         .to = &zero,
         .value = "which",
         .choices = "a|b",
         .help = "a (default), or b, of which this is a text that is longer than a line has room"},
        {.name = "amax",
         .kind = ARG_TEXT,
         .to = &file,
         .value = "file",
         .help = "needed",
         .required = EVERY_FORM},
        {.name = "again",
         .letter = 'e',
         .kind = ARG_LIST,
         .to = &again,
         .value = "text",
         .help = "again"},
        {.name = "json", .to = &flag, .help = "one"},
        {.name = "tsv", .to = &other, .help = "or the other", .or_previous = true},
        {.name = "secret", .to = &other},
        arg_threads(&threads),
        {.name = "plan", .in = NO_FORM},
        {.name = "verbose", .help = "say more"},
        {0},
    };
    char text[ROOM];
    help(args, text, sizeof text);
    assert_string_equal(
        text, "usage: args [-hqv] --amax file [-e text ...] [-j N] [--json | --tsv] [-o file]\n"
              "            [--progress] [--zero a | b] [stream]\n"
              "\n"
              "Do it.\n"
              "\n"
              "      --zero which   a (default), or b, of which this is a text that is longer\n"
              "                     than a line has room\n"
              "      --amax file    needed\n"
              "  -e, --again text   again\n"
              "      --json         one\n"
              "      --tsv          or the other\n"
              "  -j, --threads N    threads (default: as many as there are processors)\n"
              "  -o, --output file  write to file instead of standard output\n"
              "      --progress     show bytes, rate and time left\n"
              "  -q, --quiet        no messages but errors\n"
              "  -v, --verbose      say more\n"
              "  -h, --help         this text\n"
              "      --version      the version\n");
}

static void an_entry_that_changes_nothing(void **state)
{
    (void)state;
    char said[ROOM];
    const struct arg args[] = {{.name = "verbos", .help = "say more"}, {0}};
    assert_int_equal(end_of(begin, &(struct line){args, {"args"}}, said, ROOM), EXIT_FAILED);
    assert_non_null(strstr(said, "--verbos: its entry sets nothing"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_options), cmocka_unit_test(pairs),
        cmocka_unit_test(history_is_canonical),  cmocka_unit_test(numbers_above_0),
        cmocka_unit_test(help_is_the_table),     cmocka_unit_test(an_entry_that_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
