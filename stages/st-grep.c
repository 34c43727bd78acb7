/* st-grep: keep or drop tensors by name. */
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "stream/ts.h"

static const struct program program = {
    .about = "Keep the tensors whose names match a pattern, an extended regular expression "
             "as grep -E has it, and drop the others; side files stay. Exits 1, and writes "
             "no stream, if none is left.",
    .operands = {"pattern [stream]", "[stream]"},
    .examples = {"st-grep '^layers\\.3\\.ffn\\.experts\\.7\\.' DeepSeek-V4 | st-stat --values",
                 "st-read DeepSeek-V4 | st-grep -V '^mtp\\.' | st-ls"},
    .max_operands = ANY_OPERANDS,
    .in_place = true,
};

struct options {
    struct arg_list regexp;
    bool fixed_strings, invert_match, line_regexp;
};

/* ---- patterns ---- */

/* As in grep, the first operand is the pattern if there is no -e. The history does not tell them
 * apart. */
static void take_pattern(struct options *o, struct stage *stage)
{
    if (!o->regexp.count) {
        if (!stage->operands)
            die_usage("which tensors? Give a pattern");
        o->regexp.text = xalloc(1, sizeof *o->regexp.text);
        o->regexp.text[o->regexp.count++] = stage->operand[0];
        stage->operand++;
        stage->operands--;
        char *option = xprintf("--regexp=%s", o->regexp.text[0]);
        json_array_append_new(json_object_get(stage->entry, "options"), json_string(option));
        free(option);
    }
    if (stage->operands > 1)
        die_usage("unexpected operand '%s'", stage->operand[1]);
    for (size_t i = 0; i < o->regexp.count; i++) {
        json_t *utf8 = json_string(o->regexp.text[i]);
        if (!utf8)
            die_usage("pattern %zu is not UTF-8", i + 1);
        json_decref(utf8);
    }
}

/* The pattern as an extended regular expression: plain text escaped, a whole name between anchors.
 * The caller frees it. */
static char *expression(const struct options *o, const char *pattern)
{
    char *text = xgrow(NULL, strlen(pattern) + 1, 2), *p = text;
    for (; *pattern; pattern++) {
        if (o->fixed_strings && strchr("\\^$.[]|()*+?{}", *pattern))
            *p++ = '\\';
        *p++ = *pattern;
    }
    *p = 0;
    if (!o->line_regexp)
        return text;
    char *anchored = xprintf("^(%s)$", text);
    free(text);
    return anchored;
}

static regex_t *compile(const struct options *o)
{
    regex_t *regex = xalloc(o->regexp.count, sizeof *regex);
    for (size_t i = 0; i < o->regexp.count; i++) {
        char *text = expression(o, o->regexp.text[i]), reason[256];
        int error = regcomp(&regex[i], text, REG_EXTENDED | REG_NOSUB);
        if (error) {
            regerror(error, &regex[i], reason, sizeof reason);
            die_usage("pattern '%s': %s", o->regexp.text[i], reason);
        }
        free(text);
    }
    return regex;
}

static void free_patterns(regex_t *regex, size_t count)
{
    for (size_t i = 0; i < count; i++)
        regfree(&regex[i]);
    free(regex);
}

static bool wanted(const struct options *o, const regex_t *regex, const char *name)
{
    bool match = false;
    for (size_t i = 0; i < o->regexp.count && !match; i++)
        match = !regexec(&regex[i], name, 0, NULL, 0);
    return match != o->invert_match;
}

/* ---- the stream ---- */

/* Whether each line of the table is kept. The caller frees it. */
static bool *route_topk(const struct options *o, const struct toc *in)
{
    regex_t *regex = compile(o);
    bool *keep = xalloc(in->count, sizeof *keep);
    for (size_t i = 0; i < in->count; i++)
        keep[i] = wanted(o, regex, in->tensor[i].name);
    free_patterns(regex, o->regexp.count);
    return keep;
}

static struct toc *plan(const struct toc *in, const bool *keep)
{
    struct toc *out = toc_new();
    for (size_t i = 0; i < in->count; i++)
        if (keep[i])
            toc_copy(out, in, i);
    return out;
}

/* The scope marks an incomplete stream, so that st-write does not make it a whole checkpoint. */
static void set_scope(const struct options *o, json_t *header)
{
    const char *before = json_string_value(json_object_get(header, "scope"));
    char *scope = strcmp(before, "all") ? xprintf("%s, grep", before) : xstrdup("grep");
    for (size_t i = 0; i < o->regexp.count; i++) {
        char *longer =
            xprintf("%s%s %s", scope, o->invert_match && i == 0 ? " -V" : "", o->regexp.text[i]);
        free(scope);
        scope = longer;
    }
    json_object_set_new(header, "scope", json_string(scope));
    free(scope);
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg args[] = {
        {.name = "regexp",
         .letter = 'e',
         .kind = ARG_LIST,
         .to = &o->regexp,
         .value = "pattern",
         .help = "a pattern; may be given again, one of them must match",
         .in = FORM(1),
         .required = FORM(1)},
        {.name = "fixed-strings",
         .letter = 'F',
         .to = &o->fixed_strings,
         .help = "patterns are plain text"},
        {.name = "invert-match",
         .letter = 'V',
         .to = &o->invert_match,
         .help = "keep tensors that do not match (-v is --verbose here)"},
        {.name = "line-regexp",
         .letter = 'x',
         .to = &o->line_regexp,
         .help = "a pattern must match the whole name"},
        {.name = "verbose", .help = "say how many tensors were kept"},
        {0},
    };
    stage_begin(stage, &program, args, argc, argv);
}

int main(int argc, char **argv)
{
    struct options o = {0};
    struct stage stage;
    take_options(&o, &stage, argc, argv);
    take_pattern(&o, &stage);
    struct ts_in *in = ts_open(stage_input(&stage), &stage);
    bool *keep = route_topk(&o, ts_toc(in));
    struct toc *toc = plan(ts_toc(in), keep);
    if (!toc->count)
        die("%s: none of its %zu tensors is left; see their names with st-ls", ts_name(in),
            ts_toc(in)->count);
    if (toc->count < ts_toc(in)->count)
        set_scope(&o, ts_header(in));
    struct ts_out *out = ts_create(&stage, in, toc);

    for (const struct tensor *tensor; (tensor = ts_next(in));)
        if (keep[tensor - ts_toc(in)->tensor])
            ts_pass(out, in);
    if (stage.verbose)
        warn("%zu of %zu tensors kept", toc->count, ts_toc(in)->count);
    ts_finish(out, in, NULL);
    toc_free(toc);
    free(keep);
    return stage_end(&stage);
}
