#include "write/card.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/json.h"
#include "base/names.h"
#include "base/text.h"
#include "base/utf8.h"
#include "engines/engines.h"
#include "tensor/weight.h"
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

/* config.json's _name_or_path if it is a name in a hub, "owner/name"; otherwise NULL. */
static const char *hub_name(const json_t *config)
{
    const char *name = json_string_value(json_object_get(config, "_name_or_path"));
    const char *slash = name ? strchr(name, '/') : NULL;
    if (!slash || slash == name || !slash[1] || !isalnum((unsigned char)*name))
        return NULL;
    for (const char *c = name; *c; c++)
        if (c != slash && !isalnum((unsigned char)*c) && !strchr("._-", *c))
            return NULL;
    return name;
}

/* What is known of the source; the caller frees it. */
static char *model_name(const char *hub, const char *card, const json_t *config)
{
    const char *type = json_string_value(json_object_get(config, "model_type"));
    char *name = hub ? xstrdup(strchr(hub, '/') + 1) : source_card_name(card);
    return name ? name : printable(xstrdup(type ? type : "Checkpoint"));
}

static void put_head(FILE *out, const char *card, const struct configs *configs)
{
    const uint64_t found = configs->evidence.found;
    const bool nvfp4 = found & (FACT(EXPERTS_NVFP4) | FACT(DENSE_NVFP4));
    const bool plain = !nvfp4 && !(found & (FACT(FP8) | FACT(MXFP4)));
    const char *hub = hub_name(configs->evidence.config);
    char *name = model_name(hub, card, configs->evidence.config);
    fputs("---\n", out);
    source_card_license(card, out);
    if (hub)
        fprintf(out, "base_model: %s\n%s", hub, nvfp4 ? "base_model_relation: quantized\n" : "");
    if (nvfp4)
        fputs("tags:\n- nvfp4\n", out);
    fprintf(out, "---\n\n# %s%s\n\n", name,
            nvfp4   ? " in NVFP4"
            : plain ? " in BF16"
                    : ", converted");
    fputs("Converted by seekpipe " SEEKPIPE_VERSION ". `" RUN_RECORD
          "` lists the stages and their options.",
          out);
    if (card)
        fputs(" `" SOURCE_CARD "` is the source's card.", out);
    fputs("\n", out);
    free(name);
}

/* ---- formats ---- */

/* Matrices of one format that have the same place in their layers. */
struct group {
    char *path;         /* "layers.*.ffn.experts.*"; "" at the top */
    const char *format; /* static */
    struct names *names;
    char *list; /* the names, "w1, w3, w2" */
    size_t matrices;
};

/* A module's path and last component; every number in the path becomes '*'. */
static const char *split(const char *module, char *path)
{
    const char *last = strrchr(module, '.');
    size_t size = 0, length = last ? (size_t)(last - module) : 0;
    for (size_t i = 0; i < length; i++) {
        size_t digits = strspn(module + i, "0123456789");
        bool begins = i == 0 || module[i - 1] == '.', ends = module[i + digits] == '.';
        if (digits && begins && ends) {
            path[size++] = '*';
            i += digits - 1;
        } else {
            path[size++] = module[i];
        }
    }
    path[size] = 0;
    return last ? last + 1 : module;
}

enum { GROUPS_MAX = 100, NAMES_MAX = 40 };

static void add_matrix(struct group *group, const char *name)
{
    group->matrices++;
    if (names_find(group->names, name, strlen(name)) >= 0)
        return;
    size_t number = names_add(group->names, name);
    if (number > NAMES_MAX)
        return;
    char *list = number == NAMES_MAX ? xprintf("%s, …", group->list)
                                     : xprintf("%s%s%s", group->list, number ? ", " : "", name);
    free(group->list);
    group->list = list;
}

/* At most GROUPS_MAX groups; returns their number. All further matrices are in the last one. */
static size_t group_matrices(const struct toc *toc, struct group *group)
{
    struct names *keys = names_new();
    size_t count = 0;
    for (size_t i = 0; i < toc->count; i++) {
        const struct tensor *tensor = &toc->tensor[i];
        char module[TENSOR_NAME_MAX + 1], path[TENSOR_NAME_MAX + 1];
        enum format format = format_of(tensor);
        if (tensor->context || format == FORMAT_COUNT)
            continue;
        const char *last = split(weight_module(tensor, module), path);
        const char *name = format == FORMAT_PLAIN ? dtype_name(tensor->dtype) : format_name(format);
        char *key = xprintf("%s %s", name, path);
        int64_t found = names_find(keys, key, strlen(key));
        if (found < 0 && count < GROUPS_MAX) {
            found = (int64_t)names_add(keys, key);
            group[count++] = (struct group){
                .path = xstrdup(path), .format = name, .names = names_new(), .list = xstrdup("")};
        } else if (found < 0) {
            found = GROUPS_MAX - 1;
        }
        free(key);
        add_matrix(&group[found], last);
    }
    names_free(keys);
    return count;
}

static void put_formats(FILE *out, const struct toc *toc, const char *recipe)
{
    struct group group[GROUPS_MAX];
    size_t count = group_matrices(toc, group);
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
        free(group[i].path);
        free(group[i].list);
        names_free(group[i].names);
    }
}

/* ---- calibration ---- */

/* The counts of the stages that made the amaxes, or NULL. */
static const json_t *amax_counts(const json_t *counts)
{
    size_t i;
    const json_t *stage;
    json_array_foreach(counts, i, stage)
    {
        const json_t *amax = json_object_get(stage, "amax");
        if (amax)
            return amax;
    }
    return NULL;
}

static void put_texts(FILE *out, const json_t *texts)
{
    size_t i;
    json_t *text;
    json_array_foreach(texts, i, text)
    {
        const char *file = json_string_value(json_object_get(text, "file"));
        fputs(i ? ", " : ": ", out);
        put_code(out, file ? file : "");
        fprintf(out, " (%" PRId64 ")",
                (int64_t)json_integer_value(json_object_get(text, "samples")));
    }
}

static void put_merge(FILE *out, const json_t *merge)
{
    json_int_t filled = json_integer_value(json_object_get(merge, "input_fallback"));
    json_int_t drafts = json_integer_value(json_object_get(merge, "drafts_fallback"));
    const char *rule = json_string_value(json_object_get(merge, "fallback"));
    const char *w2 = json_string_value(json_object_get(merge, "w2"));
    const json_t *scale = json_object_get(merge, "input_scale");
    const char *from = json_string_value(json_object_get(merge, "from"));
    if (from && !strcmp(from, "checkpoint"))
        fputs("- They are those of another NVFP4 checkpoint of this model.\n", out);
    if (scale)
        fprintf(out, "- All are %.9g, without a calibration.\n", json_number_value(scale));
    if (filled)
        fprintf(out, "- Scales of experts that no token reached: %" PRId64 " filled in (%s).\n",
                (int64_t)filled, rule ? rule : "");
    if (drafts)
        fprintf(out,
                "- Scales of drafts that were not calibrated: %" PRId64
                " filled in from the last layer (%s).\n",
                (int64_t)drafts, rule ? rule : "");
    if (w2)
        fprintf(out, "- The inputs of experts' last matrix were measured %s.\n",
                strcmp(w2, "engine") ? "with the router's weight, as the reference does"
                                     : "without the router's weight, as engines quantize them");
}

static void put_calibration(FILE *out, const json_t *counts)
{
    const json_t *amax = amax_counts(counts), *stage;
    size_t i;
    if (!amax)
        return;
    fputs("\n## Calibration\n\nScales of activations (`input_scale`):\n\n", out);
    json_array_foreach(amax, i, stage)
    {
        json_int_t samples, tokens;
        if (!json_unpack((json_t *)stage, "{s:I, s:I}", "samples", &samples, "tokens", &tokens)) {
            fprintf(out, "- The model ran on %" PRId64 " samples, %" PRId64 " tokens",
                    (int64_t)samples, (int64_t)tokens);
            put_texts(out, json_object_get(stage, "texts"));
            fputs(".\n", out);
        }
        put_merge(out, stage);
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
    const struct rule *rule;
    bool any = false;
    for (const struct engine *engine = engines; engine->name; engine++) {
        if (!engine->serve || engine_judge(engine, evidence, false, &rule) != VERDICT_LOADS)
            continue;
        fputs(any ? "" : "\n## Serve\n\nIn this folder:\n\n", out);
        any = true;
        fprintf(out, "    %s\n", engine->serve);
        if (engine->speculate && !(evidence->found & FACT(DRAFTS_MANY)) &&
            engine_judge(engine, evidence, true, &rule) == VERDICT_LOADS)
            fprintf(out, "    %s %s\n", engine->serve, engine->speculate);
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
    char *text = xalloc(MOST + 1, 1);
    FILE *in = fopen(path, "r");
    if (!in)
        die_errno("%s", path);
    size_t size = fread(text, 1, MOST + 1, in);
    if (ferror(in))
        die_errno("%s", path);
    fclose(in);
    if (size > MOST || strlen(text) != size || utf8_valid(text, size) != size)
        die("%s: wanted up to 64 KiB of text in UTF-8, as st-eval prints", path);
    return text;
}
