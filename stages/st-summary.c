/* st-summary: what a whole pipeline says at its end, from what its programs have said. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/die.h"
#include "base/json.h"
#include "base/text.h"
#include "stream/report.h"
#include "write/closing.h"

static const struct program program = {
    .about = "Print the summary of a conversion: what was made of what, how long each step took, "
             "what was filled in, how good the result is, what engines make of it, and what to do "
             "next. v4-experts and the like print theirs with it.",
    .operands = {"source destination"},
    .examples = {"st-read DeepSeek-V4 | nvfp4-cast --amax amax.ts | st-write --json out >made.json",
                 "st-verify --json out >checks.json",
                 "st-summary --written made.json --checks checks.json DeepSeek-V4 out"},
    .max_operands = 2,
};

struct options {
    const char *checks, *name, *quality, *steps, *written;
    bool json;
};

/* The file's JSON, which the caller owns; NULL if `path` is NULL. */
static json_t *read_document(const char *path)
{
    json_error_t error;
    json_t *document = path ? json_file_within(path, 0, &error) : NULL;
    if (path && !document)
        die("%s: %s", path, error.text);
    return document;
}

/* Those of its lines, as an array. */
static json_t *read_lines(const char *path)
{
    if (!path)
        return NULL;
    FILE *file = fopen(path, "re");
    json_t *lines = json_array();
    char *line = NULL;
    size_t room = 0;
    ssize_t length = -1;
    while (file && (length = getline(&line, &room, file)) >= 0) {
        json_error_t error;
        json_t *value = json_load_within(line, (size_t)length, 0, JSON_MEMORY, &error);
        if (!value)
            die("%s: %s", path, error.text);
        json_array_append_new(lines, value);
    }
    if (!file || ferror(file))
        die_errno("%s", path);
    fclose(file);
    free(line);
    return lines;
}

/* The time of the run is that of its steps. */
static void add_time(json_t *run)
{
    size_t i;
    json_t *step;
    double seconds = 0;
    json_array_foreach(json_object_get(run, "steps"), i, step)
    {
        seconds += json_number_value(json_object_get(step, "seconds"));
    }
    json_object_set_new(run, "seconds", json_real(seconds));
}

/* A name as JSON can have it: what is not UTF-8 becomes '?'. */
static json_t *name_of(const char *name)
{
    json_t *value = json_string(name);
    if (value)
        return value;
    char *text = printable(xstrdup(name));
    value = json_string(text);
    free(text);
    return value;
}

static json_t *read_run(const struct options *o, const struct stage *stage)
{
    json_t *run =
        json_pack("{s:o, s:o, s:o, s:o*, s:o*, s:o*, s:o*}", "program", name_of(o->name), "source",
                  name_of(stage->operand[0]), "destination", name_of(stage->operand[1]), "written",
                  read_document(o->written), "steps", read_lines(o->steps), "quality",
                  read_document(o->quality), "checks", read_lines(o->checks));
    if (!run)
        die("out of memory");
    add_time(run);
    closing_add_next(run, stage->operand[0], stage->operand[1]);
    return run;
}

static struct arg file_arg(const char *name, const char **to, const char *help)
{
    return (struct arg){.name = name, .kind = ARG_INPUT, .to = to, .value = "file", .help = help};
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg own[] = {
        file_arg("checks", &o->checks, "what st-verify --json printed of the result"),
        {.name = "json", .to = &o->json, .help = "print it as JSON"},
        {.name = "name",
         .kind = ARG_TEXT,
         .to = &o->name,
         .value = "text",
         .help = "what made it (default: st-write)"},
        file_arg("quality", &o->quality, "what st-eval --compare --json -v printed"),
        file_arg("steps", &o->steps, "lines of JSON with step and seconds"),
        file_arg("written", &o->written, "what st-write --json printed"),
        {.name = "plan", .in = NO_FORM},
        {.name = "progress", .in = NO_FORM},
        {.name = "quiet", .in = NO_FORM},
        {.name = "verbose", .help = "all layers' input scales"},
        {0},
    };
    stage_begin(stage, &program, own, argc, argv);
}

int main(int argc, char **argv)
{
    struct options o = {.name = "st-write"};
    struct stage stage;
    take_options(&o, &stage, argc, argv);
    if (stage.operands != 2)
        die_usage("of which source and destination?");
    report_begin(&stage);
    json_t *run = read_run(&o, &stage);
    if (o.json) {
        json_print(stdout, run, true);
        putchar('\n');
    } else
        closing_print(stdout, run, stage.verbose);
    json_decref(run);
    return report_end(&stage);
}
