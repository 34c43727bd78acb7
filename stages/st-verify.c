/* st-verify: check a checkpoint, and say what engines make of it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/hub.h"
#include "base/text.h"
#include "engines/engines.h"
#include "stream/report.h"
#include "verify/checks.h"

static const struct program program = {
    .about = "Check an NVFP4 checkpoint (or a BF16 one): index, headers, scales and configs; and "
             "say what each engine makes of it, without and with speculation: it loads, refuses, "
             "or loads silently wrong. Exits 0 if nothing is wrong, 1 if something is, 2 on "
             "errors.",
    .operands = {"checkpoint"},
    .examples = {"st-verify DeepSeek-V4-NVFP4",
                 "st-verify --source DeepSeek-V4 --values DeepSeek-V4-NVFP4",
                 "st-verify --engine sglang --speculation DeepSeek-V4-NVFP4"},
    .max_operands = 1,
};

/* As st-cmp: 0 all well, 1 (elsewhere EXIT_FAILED) a fault, 2 error. */
enum { WELL, FAULT, TROUBLE };

struct options {
    const char *source;
    struct arg_list engine;
    bool speculation, values, json, tsv;
    enum report form;
};

/* ---- report ---- */

/* A line for people, whose words may be from outside; folded on a terminal. */
static void __attribute__((format(printf, 1, 2))) print_line(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    char *line = xvprintf(format, values);
    va_end(values);
    if (isatty(STDOUT_FILENO))
        text_wrap(stdout, 0, 2, line);
    else
        text_print(stdout, "%s\n", line);
    free(line);
}

static const char *level_name(enum level level)
{
    return level == LEVEL_FAULT ? "fault" : "warning";
}

static void print_fact(enum fact fact, const struct seen *seen, enum report form)
{
    const char *level = level_name(fact_level(fact)), *name = fact_name(fact);
    json_t *cases = json_array();
    size_t shown = seen->count < FACT_CASES ? seen->count : FACT_CASES;
    for (size_t i = 0; i < shown; i++) {
        if (form == REPORT_TEXT)
            print_line("%s %s: %s", level, name, seen->found[i]);
        json_array_append_new(cases, json_string(seen->found[i]));
    }
    if (form == REPORT_TEXT && seen->count > shown)
        printf("%s %s: and %zu more\n", level, name, seen->count - shown);
    if (form != REPORT_TEXT)
        report_record(form, json_pack("{s:s, s:s, s:I, s:O}", "what", level, "name", name, "count",
                                      (json_int_t)seen->count, "found", cases));
    json_decref(cases);
}

static void print_facts(const struct facts *facts, const struct stage *stage, enum report form)
{
    for (enum fact fact = 0; fact < FACT_COUNT; fact++) {
        const struct seen *seen = &facts->of[fact];
        if (seen->count && fact_level(fact) != LEVEL_NONE && !stage->quiet)
            print_fact(fact, seen, form);
    }
}

static void print_verdict(const struct engine *engine, const struct evidence *evidence, bool drafts,
                          enum verdict verdict, const struct rule *rule, enum report form)
{
    char *why = rule ? rule_text(rule, evidence) : NULL;
    if (form != REPORT_TEXT)
        report_record(form,
                      json_pack("{s:s, s:s, s:s, s:b, s:s, s:s?}", "what", "verdict", "engine",
                                engine->name, "version", engine->version, "speculation", drafts,
                                "verdict", verdict_name(verdict), "rule", why));
    else
        print_line("%s %s, %s speculation: %s%s%s", engine->title, engine->version,
                   drafts ? "with" : "no", verdict_name(verdict), why ? ": " : "", why ? why : "");
    free(why);
}

/* ---- engines ---- */

static bool is_asked(const struct options *o, const struct engine *engine)
{
    for (size_t i = 0; i < o->engine.count; i++)
        if (!strcmp(o->engine.text[i], engine->name))
            return true;
    return !o->engine.count;
}

/* Print what the engines make of it. True if one that was named does not load it. */
static bool judge(const struct folder *folder, const struct facts *facts, const struct options *o,
                  const struct stage *stage)
{
    const struct evidence evidence = folder_evidence(folder, facts);
    bool failed = false;
    for (const struct engine *engine = engines; engine->name; engine++)
        for (int drafts = 0; drafts < 2 && is_asked(o, engine); drafts++) {
            const struct rule *rule;
            enum verdict verdict = engine_judge(engine, &evidence, drafts, &rule);
            bool matters = o->engine.count && (!drafts || o->speculation);
            failed |= matters && verdict != VERDICT_LOADS;
            if (!stage->quiet)
                print_verdict(engine, &evidence, drafts, verdict, rule, o->form);
        }
    return failed;
}

/* ---- all checks ---- */

/* Check the folder, and print the number of what was found. True if nothing is at fault. */
static bool verify(struct folder *folder, const struct options *o, const struct stage *stage,
                   struct facts *facts)
{
    struct nvfp4s nvfp4s = {0};
    struct checkpoint source = {0};
    size_t count[LEVEL_FAULT + 1] = {0};
    char *from = o->source ? hub_folder(o->source) : NULL;
    if (from)
        checkpoint_open(&source, &from, 1);
    free(from);
    if (!facts->of[FACT_SHARD].count) {
        check_tensors(folder, &nvfp4s, facts);
        check_values(folder, &nvfp4s, o->values, facts);
        check_configs(folder, &nvfp4s, facts);
        if (o->source)
            check_source(folder, &nvfp4s, &source, o->values, facts);
    }
    check_side_files(folder, o->source ? &source : NULL, facts);
    print_facts(facts, stage, o->form);
    for (enum fact fact = 0; fact < FACT_COUNT; fact++)
        count[fact_level(fact)] += facts->of[fact].count;
    if (facts->of[FACT_SHARD].count)
        warn("%s: tensors and configs are checked when all shards can be read", folder->path);
    else if (!stage->quiet && o->form == REPORT_TEXT)
        printf("%zu tensors, %zu of them NVFP4 matrices: faults %zu, warnings %zu\n",
               folder->toc->count, nvfp4s.count, count[LEVEL_FAULT], count[LEVEL_WARNING]);
    nvfp4s_free(&nvfp4s);
    if (o->source)
        checkpoint_free(&source);
    return !count[LEVEL_FAULT];
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg args[] = {
        {.name = "source",
         .kind = ARG_TEXT,
         .to = &o->source,
         .value = "checkpoint",
         .help = "compare with the checkpoint that this one was made from: tensors that passed "
                 "through, a sample of converted weights, side files"},
        {.name = "engine",
         .kind = ARG_LIST,
         .to = &o->engine,
         .value = "name",
         .help = "vllm, sglang, trtllm or transformers: only this one's verdict, and exit 1 "
                 "unless it loads the checkpoint (may be given again)"},
        {.name = "speculation",
         .to = &o->speculation,
         .help = "with --engine: it has to load the drafts, too"},
        {.name = "values",
         .to = &o->values,
         .help = "read all block scales, with --source also all that passed through, not a sample"},
        {.name = "json", .to = &o->json, .help = "a line of JSON for each finding and verdict"},
        {.name = "tsv",
         .to = &o->tsv,
         .help = "the same as --json, tab-separated",
         .or_previous = true},
        {.name = "plan", .in = NO_FORM},
        {.name = "progress", .in = NO_FORM},
        {.name = "verbose", .in = NO_FORM},
        {.name = "quiet", .help = "write nothing; the exit status is the result"},
        {0},
    };
    stage_begin(stage, &program, args, argc, argv);
}

int main(int argc, char **argv)
{
    die_with(TROUBLE);
    struct options o = {0};
    struct stage stage;
    take_options(&o, &stage, argc, argv);
    o.form = report_form(o.tsv, o.json);
    if (stage.operands != 1)
        die_usage("which checkpoint? Give its folder");
    for (size_t i = 0; i < o.engine.count; i++)
        if (!engine_find(o.engine.text[i]))
            die_usage("--engine: '%s' is none of vllm, sglang, trtllm, transformers",
                      o.engine.text[i]);
    if (o.speculation && !o.engine.count)
        die_usage("--speculation goes with --engine");
    report_begin(&stage);

    struct folder folder;
    struct facts facts = {0};
    char *path = hub_folder(stage.operand[0]);
    folder_open(&folder, path, &facts);
    bool well = verify(&folder, &o, &stage, &facts);
    bool failed = judge(&folder, &facts, &o, &stage);
    folder_close(&folder);
    free(path);
    facts_free(&facts);
    free(o.engine.text);
    report_end(&stage);
    return well && !failed ? WELL : FAULT;
}
