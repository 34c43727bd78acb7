#include "write/card.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/hub.h"
#include "base/json.h"
#include "base/text.h"
#include "base/utf8.h"
#include "base/version.h"
#include "engines/engines.h"
#include "write/calibration.h"
#include "write/matrix_groups.h"
#include "write/run_record.h"
#include "write/side_files.h"
#include "write/source_card.h"

/* ---- text ---- */

/* `text` in a cell of a table, or a span of code, whose own marks it may hold, on one line. */
static void put_cell(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '|')
            fputc('\\', out);
        fputc(*text == '`' ? '\'' : iscntrl((unsigned char)*text) ? '?' : *text, out);
    }
}

static void put_code(FILE *out, const char *text)
{
    fputc('`', out);
    put_cell(out, text);
    fputc('`', out);
}

/* Text as it is: each line is indented. */
static void put_verbatim(FILE *out, const char *text)
{
    while (*text) {
        size_t length = strcspn(text, "\n");
        fprintf(out, "%s%.*s\n", length ? "    " : "", (int)length, text);
        text += length + (text[length] == '\n');
    }
}

/* ---- name and license ---- */

/* config.json's _name_or_path if it is a name on the hub; otherwise NULL. */
static const char *hub_name(const json_t *config)
{
    const char *name = json_string_value(json_object_get(config, "_name_or_path"));
    return name && hub_is_name(name) ? name : NULL;
}

/* What is known of the source; the caller frees it. */
static char *model_name(const char *hub, const char *card, const json_t *config)
{
    const char *type = json_string_value(json_object_get(config, "model_type"));
    char *name = hub ? xstrdup(strchr(hub, '/') + 1) : source_card_name(card);
    return name ? name : printable(xstrdup(type ? type : "Checkpoint"));
}

/* The same with what it became; the caller frees it. */
static char *title_of(const char *card, const struct configs *configs)
{
    const uint64_t found = configs->evidence.found;
    const json_t *config = configs->evidence.config;
    const bool nvfp4 = found & (FACT(EXPERTS_NVFP4) | FACT(DENSE_NVFP4));
    const bool plain = !nvfp4 && !(found & (FACT(FP8) | FACT(MXFP4)));
    char *name = model_name(hub_name(config), card, config);
    char *title = xprintf("%s%s", name, nvfp4 ? " in NVFP4" : plain ? " in BF16" : ", converted");
    free(name);
    return title;
}

static void put_head(FILE *out, const char *card, const struct configs *configs)
{
    const bool nvfp4 = configs->evidence.found & (FACT(EXPERTS_NVFP4) | FACT(DENSE_NVFP4));
    const char *hub = hub_name(configs->evidence.config);
    char *title = title_of(card, configs);
    fputs("---\n", out);
    source_card_license(card, out);
    if (hub)
        fprintf(out, "base_model: %s\n%s", hub, nvfp4 ? "base_model_relation: quantized\n" : "");
    if (nvfp4)
        fputs("tags:\n- nvfp4\n", out);
    fprintf(out,
            "---\n\n# %s\n\nConverted by seekpipe " SEEKPIPE_VERSION ". `" RUN_RECORD
            "` lists the stages and their options.",
            title);
    if (card)
        fputs(" `" SOURCE_CARD "` is the source's card.", out);
    fputs("\n", out);
    free(title);
}

/* ---- formats ---- */

static void put_formats(FILE *out, const struct toc *toc, const char *recipe)
{
    struct matrix_group group[MATRIX_GROUPS_MAX];
    size_t count = matrix_groups(toc, group);
    fputs("\n## Formats\n\n", out);
    if (recipe) {
        fputs("Recipe: ", out);
        put_code(out, recipe);
        fputs(".\n\n", out);
    }
    fputs("| matrices | format | number |\n|---|---|---|\n", out);
    for (size_t i = 0; i < count; i++) {
        fputs("| ", out);
        if (*group[i].path) {
            put_code(out, group[i].path);
            fputs(": ", out);
        }
        put_cell(out, group[i].list);
        fprintf(out, " | %s | %zu |\n", group[i].format, group[i].matrices);
    }
    matrix_groups_free(group, count);
}

/* ---- calibration ---- */

static void put_texts(FILE *out, const json_t *texts)
{
    size_t i;
    json_t *text;
    json_array_foreach((json_t *)texts, i, text)
    {
        const char *file = json_string_value(json_object_get(text, "file"));
        fputs(i ? ", " : ": ", out);
        put_code(out, file ? file : "");
        fprintf(out, " (%" PRId64 ")",
                (int64_t)json_integer_value(json_object_get(text, "samples")));
    }
}

static void put_calibration(FILE *out, const json_t *counts)
{
    struct calibration c;
    if (!calibration_find(&c, counts))
        return;
    fputs("\n## Calibration\n\nScales of activations (`input_scale`):\n\n", out);
    if (c.tokens) {
        fprintf(out, "- The model ran on %" PRId64 " samples, %" PRId64 " tokens", c.samples,
                c.tokens);
        put_texts(out, c.texts);
        fputs(".\n", out);
    }
    char *lines[CALIBRATION_LINES];
    size_t count = calibration_lines(&c, lines);
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "- %s\n", lines[i]);
        free(lines[i]);
    }
}

/* ---- engines ---- */

static void put_verdict(FILE *out, const struct engine *engine, const struct evidence *evidence,
                        bool drafts)
{
    const struct rule *rule;
    enum verdict verdict = engine_judge(engine, evidence, drafts, &rule);
    char *why = rule ? rule_text(rule, evidence) : NULL;
    fprintf(out, " %s%s", verdict_name(verdict), why ? ": " : "");
    put_cell(out, why ? why : "");
    fputs(" |", out);
    free(why);
}

static void put_engines(FILE *out, const struct evidence *evidence)
{
    fputs("\n## Engines\n\nBy the rules of `st-verify`:\n\n"
          "| engine | without speculation | with speculation |\n|---|---|---|\n",
          out);
    for (const struct engine *engine = engines; engine->name; engine++) {
        fprintf(out, "| %s %s |", engine->title, engine->version);
        put_verdict(out, engine, evidence, false);
        put_verdict(out, engine, evidence, true);
        fputc('\n', out);
    }
}

/* Commands of the engines that load it. */
static void put_commands(FILE *out, const struct evidence *evidence)
{
    bool any = false;
    for (const struct engine *engine = engines; engine->name; engine++)
        for (int drafts = 0; drafts < 2; drafts++) {
            char *command = engine_command(engine, evidence, drafts);
            if (!command)
                continue;
            fprintf(out, "%s    %s\n", any ? "" : "\n## Serve\n\nIn this folder:\n\n", command);
            any = true;
            free(command);
        }
}

/* ---- the card ---- */

/* The source's card, or that of its source, if that has one of these; NULL if there is none. */
static char *source_card(struct ts_in *in)
{
    int64_t i = ts_file_find(in, SOURCE_CARD);
    if (i < 0)
        i = ts_file_find(in, "README.md");
    return i < 0 ? NULL : ts_file_read(in, (size_t)i);
}

char *card_title(struct ts_in *in, const struct configs *configs)
{
    char *source = source_card(in), *title = title_of(source, configs);
    free(source);
    return title;
}

char *card_text(const struct card *card, struct ts_in *in, const struct toc *toc,
                const struct configs *configs)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        die("out of memory");
    char *source = source_card(in);
    put_head(out, source, configs);
    put_formats(
        out, toc,
        json_string_value(json_object_get(json_object_get(ts_header(in), "quant"), "recipe")));
    put_calibration(out, card->counts);
    if (card->measured) {
        fputs("\n## Measured\n\n", out);
        put_verbatim(out, card->measured);
    }
    if (engines_know(&configs->evidence)) {
        put_engines(out, &configs->evidence);
        put_commands(out, &configs->evidence);
    }
    free(source);
    if (fclose(out))
        die("out of memory");
    return text;
}

char *card_measured(const char *path)
{
    enum { MOST = 1 << 16 };
    size_t size;
    char *text = text_of_file(path, MOST, &size);
    if (size > MOST || strlen(text) != size || utf8_valid(text, size) != size)
        die("%s: wanted up to 64 KiB of text in UTF-8, as st-eval prints", path);
    return text;
}
