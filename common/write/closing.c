#include "write/closing.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/progress.h"
#include "base/text.h"
#include "engines/engines.h"
#include "write/summary.h"

/* Columns of the tables; the first one is as wide as an engine's name and version. */
enum { FIRST = 29, SECOND = 23 };

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static double number_of(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* ---- steps ---- */

/* The bytes of all files, in the time of the whole run. */
static void print_steps(FILE *out, const json_t *run)
{
    size_t i;
    json_t *step;
    char time[TIME_TEXT], bytes[BYTES_TEXT], rate[BYTES_TEXT];
    const json_t *steps = json_object_get(run, "steps"), *written = json_object_get(run, "written");
    double all = number_of(run, "seconds"), size = number_of(written, "file_bytes");
    if (!json_array_size(steps))
        return;
    fputc('\n', out);
    text_print(out, "%-*s%10s\n", FIRST, "step", "time");
    json_array_foreach(steps, i, step)
    {
        text_print(out, "%-*s%10s\n", FIRST, text_of(step, "step"),
                   time_text(number_of(step, "seconds"), time));
    }
    text_print(out, "%-*s%10s", FIRST, "all", time_text(all, time));
    if (all > 0 && size > 0)
        text_print(out, "   %s, %s/s", bytes_text(size, bytes), bytes_text(size / all, rate));
    fputc('\n', out);
}

/* ---- quality ---- */

static void print_loss(FILE *out, const char *what, const json_t *loss)
{
    text_print(out, "%-*s%10.4f%14.6f\n", FIRST, what, number_of(loss, "perplexity"),
               number_of(loss, "mean_nll"));
}

static void print_quality(FILE *out, const json_t *quality)
{
    const json_t *runs = json_object_get(quality, "runs");
    if (!json_is_object(quality))
        return;
    fputc('\n', out);
    text_print(out, "%-*s%10s%14s\n", FIRST, "quality", "perplexity", "mean nll");
    print_loss(out, "source", json_array_get(runs, 0));
    print_loss(out, "result", json_array_get(runs, 1));
    text_print(out, "KL divergence %.6f, top-1 agreement %.4f%%, of %.0f tokens\n",
               number_of(quality, "kl_divergence"), 100 * number_of(quality, "top1_agreement"),
               number_of(quality, "tokens"));
}

/* ---- engines ---- */

/* Rules that are shown below the table, each once, by their numbers from 1. */
static size_t note_of(json_t *notes, const char *rule)
{
    size_t i;
    json_t *note;
    json_array_foreach(notes, i, note) if (!strcmp(json_string_value(note), rule)) return i + 1;
    json_array_append_new(notes, json_string(rule));
    return json_array_size(notes);
}

/* "refuses (2)"; the caller frees it. */
static char *verdict_text(json_t *notes, const json_t *verdict)
{
    const char *rule = text_of(verdict, "rule"), *text = text_of(verdict, "verdict");
    return *rule ? xprintf("%s (%zu)", text, note_of(notes, rule)) : xstrdup(text);
}

/* A row of an engine's two verdicts, which follow each other. */
static void print_engine(FILE *out, json_t *notes, const json_t *alone, const json_t *drafts)
{
    const struct engine *engine = engine_find(text_of(alone, "engine"));
    char *name = xprintf("%s %s", engine ? engine->title : text_of(alone, "engine"),
                         text_of(alone, "version"));
    char *first = verdict_text(notes, alone), *second = verdict_text(notes, drafts);
    text_print(out, "%-*s%-*s%s\n", FIRST, name, SECOND, first, second);
    free(second);
    free(first);
    free(name);
}

static bool is_verdict(const json_t *check)
{
    return !strcmp(text_of(check, "what"), "verdict");
}

/* True if a server loads it without speculation. */
static bool serves(const json_t *verdict)
{
    const struct engine *engine = engine_find(text_of(verdict, "engine"));
    return is_verdict(verdict) && !json_is_true(json_object_get(verdict, "speculation")) &&
           engine && engine->serve &&
           !strcmp(text_of(verdict, "verdict"), verdict_name(VERDICT_LOADS));
}

static void print_engines(FILE *out, const json_t *checks)
{
    size_t i;
    json_t *check, *notes = json_array(), *note;
    bool any = false, served = false;
    if (json_array_size(checks))
        fputc('\n', out);
    json_array_foreach(checks, i, check)
    {
        if (!is_verdict(check) || json_is_true(json_object_get(check, "speculation")))
            continue;
        if (!any)
            text_print(out, "%-*s%-*s%s\n", FIRST, "engine", SECOND, "no speculation",
                       "with speculation");
        print_engine(out, notes, check, json_array_get(checks, i + 1));
        any = true;
        served |= serves(check);
    }
    json_array_foreach(notes, i, note)
    {
        char *line = xprintf("(%zu) %s", i + 1, json_string_value(note));
        text_wrap(out, 0, 4, line);
        free(line);
    }
    if (any && !served)
        text_print(out, "no engine is known to serve this checkpoint\n");
    json_decref(notes);
}

/* What st-verify found, a fault or warning of one kind; a few cases of it. */
static void print_finding(FILE *out, const json_t *check)
{
    size_t i;
    json_t *found;
    json_array_foreach(json_object_get(check, "found"), i, found)
    {
        char *line = xprintf("%s %s: %s", text_of(check, "what"), text_of(check, "name"),
                             json_string_value(found) ? json_string_value(found) : "");
        text_wrap(out, 0, 2, line);
        free(line);
    }
}

static void print_checks(FILE *out, const json_t *checks)
{
    size_t i;
    json_t *check;
    double warnings = 0, faults = 0;
    if (!json_array_size(checks))
        return;
    json_array_foreach(checks, i, check)
    {
        print_finding(out, check);
        warnings += !strcmp(text_of(check, "what"), "warning") ? number_of(check, "count") : 0;
        faults += !strcmp(text_of(check, "what"), "fault") ? number_of(check, "count") : 0;
    }
    text_print(out, "checked: faults %.0f, warnings %.0f\n", faults, warnings);
}

/* ---- what next ---- */

/* A word as a shell reads it; the caller frees it. In $'' where it has what a terminal obeys. */
static char *shell_word(const char *word)
{
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                               "_./=,:@%+-";
    if (*word && !word[strspn(word, safe)])
        return xstrdup(word);
    bool line = text_is_line(word);
    char *text = xalloc(4 * strlen(word) + 4, 1), *to = stpcpy(text, line ? "'" : "$'");
    for (; *word; word++) {
        unsigned char c = (unsigned char)*word;
        if (line && c == '\'')
            to = stpcpy(to, "'\\''");
        else if (!line && (c < ' ' || c >= 0x7f || c == '\'' || c == '\\'))
            to += sprintf(to, "\\%03o", c);
        else
            *to++ = *word;
    }
    stpcpy(to, "'");
    return text;
}

void closing_add_next(json_t *run, const char *source, const char *destination)
{
    size_t i;
    json_t *check, *next = json_array();
    char *from = shell_word(source), *to = shell_word(destination);
    bool checked = json_array_size(json_object_get(run, "checks"));
    json_array_append_new(
        next, json_sprintf("%s %s %s", checked ? "st-verify --values --source" : "st-cmp --values",
                           from, to));
    json_array_foreach(json_object_get(run, "checks"), i, check) if (serves(check))
    {
        const struct engine *engine = engine_find(text_of(check, "engine"));
        json_array_append_new(next, json_sprintf("cd %s && %s", to, engine->serve));
        break;
    }
    json_object_set_new(run, "next", next);
    free(to);
    free(from);
}

/* ---- all of it ---- */

void closing_print(FILE *out, const json_t *run, bool verbose)
{
    size_t i;
    json_t *line;
    const json_t *written = json_object_get(run, "written");
    const json_t *checks = json_object_get(run, "checks");
    const json_t *engines = json_object_get(written, "engines");
    const char *what = json_is_true(json_object_get(written, "complete"))
                           ? "was complete already, made from"
                       : written ? "was made from"
                                 : "is what these options make of";
    char *head = xprintf("%s: %s %s %s", text_of(run, "program"), text_of(run, "destination"), what,
                         text_of(run, "source"));
    text_wrap(out, 0, 2, head);
    free(head);
    if (json_is_object(json_object_get(written, "output"))) {
        summary_print_formats(out, written);
        summary_print_counts(out, written, verbose);
    }
    print_checks(out, checks);
    print_steps(out, run);
    print_quality(out, json_object_get(run, "quality"));
    print_engines(out, checks);
    if (!checks && json_array_size(engines)) {
        fputc('\n', out);
        summary_print_lines(out, engines);
    }
    fputc('\n', out);
    text_print(out, "next\n");
    json_array_foreach(json_object_get(run, "next"), i, line)
        text_print(out, "  %s\n", json_string_value(line));
}
