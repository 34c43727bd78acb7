/* st-read: convert a checkpoint to a tensor stream. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/hub.h"
#include "base/number.h"
#include "base/text.h"
#include "stream/ts.h"
#include "tensor/weight.h"

static const struct program program = {
    .about = "Write a checkpoint as a tensor stream: its table of contents, its side "
             "files, and its tensors in the order in which the model uses them, by "
             "reference to the files that hold them.",
    .operands = {"dir | file.safetensors ... | stream", "dir"},
    .examples = {"st-read DeepSeek-V4 | st-ls", "st-read DeepSeek-V4 >v4.ts && tar tvf v4.ts",
                 "st-read --inline --layers 0-1 DeepSeek-V4 | zstd | ssh host 'zstd -d | st-stat'"},
    .max_operands = ANY_OPERANDS,
    .in_place = true,
};

struct options {
    struct arg_pair layers, part;
    const char *shards, *root;
    bool locate;
    size_t first_shard, end_shard; /* of the part */
};

static void check_options(const struct options *o, const struct stage *stage)
{
    if (!stage->operands)
        die_usage("which checkpoint? Give its folder");
    if (o->locate && (o->layers.text || o->part.text || o->shards || o->root || stage->embed ||
                      stage->allow_zeros || stage->plan || stage->output || stage->operands > 1))
        die_usage("--locate takes one folder or name, and no other option");
    if (o->layers.text && (o->part.text || o->shards))
        die_usage("--layers does not go with --part and --shards");
    if (o->root && (o->root[0] != '/' || !strstr(o->root, "=/")))
        die_usage("--root: '%s' is not OLD=NEW, both absolute folders", o->root);
}

/* Separators in a list of names: st-write --todo prints one per line. */
static const char separators[] = ",\n";

static bool in_list(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *p = list; p; p = strpbrk(p, separators), p = p ? p + 1 : NULL)
        if (strcspn(p, separators) == length && !strncmp(p, name, length))
            return true;
    return false;
}

static void check_shards_exist(const char *list, const struct toc *toc)
{
    char *copy = xstrdup(list);
    for (char *save, *name = strtok_r(copy, separators, &save); name;
         name = strtok_r(NULL, separators, &save)) {
        bool found = false;
        for (size_t i = 0; i < toc->shards; i++)
            found |= !strcmp(toc->shard[i], name);
        if (!found)
            die("--shards: the checkpoint has no shard %s", name);
    }
    free(copy);
}

/* The shards of the part: consecutive ones, with about as many bytes as the other parts have. Only
 * parts beyond the number of shards are empty. Every machine computes the same parts. */
static void find_part(struct options *o, const struct toc *toc)
{
    uint64_t *bytes = xalloc(toc->shards, sizeof *bytes), taken = 0;
    double all = (double)toc_bytes(toc, true);
    for (size_t i = 0; i < toc->count; i++)
        bytes[toc->tensor[i].shard] += toc->tensor[i].size;
    size_t end = o->end_shard = 0;
    for (uint64_t part = 1; part <= o->part.a; part++) {
        uint64_t after = o->part.b - part;
        double share = all / (double)o->part.b * (double)part;
        o->first_shard = end;
        if (end == toc->shards)
            break;
        do /* the next one, too, if that comes closer to a fair share */
            taken += bytes[end++];
        while (toc->shards - end > after &&
               (!after || (double)taken + (double)bytes[end] / 2 <= share));
        o->end_shard = end;
    }
    free(bytes);
}

static bool wanted(const struct options *o, const struct model *model, const struct toc *toc,
                   const struct tensor *tensor)
{
    if (o->layers.text) {
        struct place place = model_place(model, tensor->name);
        return place.section == SECTION_LAYERS && place.layer >= o->layers.a &&
               place.layer <= o->layers.b;
    }
    if (o->part.text && (tensor->shard < o->first_shard || tensor->shard >= o->end_shard))
        return false;
    return !o->shards || in_list(o->shards, toc->shard[tensor->shard]);
}

/* True if a weight or a scale of the module is wanted. */
static bool module_wanted(const struct options *o, const struct model *model, struct toc *toc,
                          const char *module)
{
    for (size_t i = 0; i < WEIGHT_SUFFIXES; i++) {
        char *name = xprintf("%s%s", module, weight_suffix[i]);
        int64_t line = toc_find(toc, name);
        free(name);
        if (line >= 0 && wanted(o, model, toc, &toc->tensor[line]))
            return true;
    }
    return false;
}

/* A weight needs its scales, and the members of a group need each other to be scaled. If shards
 * separate them, unselected ones are added as context. */
static bool needed_as_context(const struct options *o, const struct model *model, struct toc *toc,
                              const struct tensor *tensor)
{
    char module[TENSOR_NAME_MAX + 1];
    bool known = false;
    for (size_t i = 0; i < WEIGHT_SUFFIXES; i++)
        known |= tensor_has_suffix(tensor, weight_suffix[i]);
    if (!known)
        return false;
    if (module_wanted(o, model, toc, weight_module(tensor, module)))
        return true;
    struct place place = model_place(model, module), member;
    for (unsigned i = 0; model_group_member(model, &place, i, &member); i++)
        if (model_module(model, &member, module) && module_wanted(o, model, toc, module))
            return true;
    return false;
}

static struct toc *plan(const struct options *o, struct toc *in, const struct model *model)
{
    struct toc *out = toc_new();
    for (size_t i = 0; i < in->count; i++) {
        const struct tensor *tensor = &in->tensor[i];
        bool context = false;
        if (!wanted(o, model, in, tensor)) {
            if (!needed_as_context(o, model, in, tensor))
                continue;
            context = true;
        }
        toc_copy(out, in, i);
        out->tensor[out->count - 1].context |= context;
    }
    return out;
}

static void set_scope(const struct options *o, json_t *header)
{
    char *scope = o->layers.text ? xprintf("layers %s", o->layers.text)
                  : o->part.text && o->shards
                      ? xprintf("part %s, shards %s", o->part.text, o->shards)
                  : o->part.text ? xprintf("part %s", o->part.text)
                  : o->shards    ? xprintf("shards %s", o->shards)
                                 : NULL;
    for (char *c = scope; c && (c = strchr(c, '\n'));) /* it is printed in one-line messages */
        *c = ',';
    if (scope)
        json_object_set_new(header, "scope", json_string(scope));
    free(scope);
}

/* The length of a folder's name without trailing slashes. */
static size_t folder_length(const char *folder, size_t length)
{
    while (length && folder[length - 1] == '/')
        length--;
    return length;
}

/* The path below NEW, for one below OLD; the caller frees it. NULL for others. */
static char *moved(const struct options *o, const char *path)
{
    const char *old = o->root, *new = strstr(o->root, "=/") + 1;
    size_t old_length = folder_length(old, (size_t)(new - 1 - old));
    size_t new_length = folder_length(new, strlen(new));
    bool below = !strncmp(path, old, old_length) && (!path[old_length] || path[old_length] == '/');
    return below ? xprintf("%.*s%s", (int)new_length, new, path + old_length) : NULL;
}

/* The files and the checkpoint's folder. */
static void move_root(const struct options *o, struct ts_in *in)
{
    struct sources *sources = ts_sources(in);
    const char *source = json_string_value(json_object_get(ts_header(in), "source"));
    char *folder = source ? moved(o, source) : NULL;
    bool any = false;
    for (size_t i = 0; i < sources->count; i++) {
        char *path = moved(o, sources->file[i].path);
        if (!path)
            continue;
        free(sources->file[i].path);
        sources->file[i].path = path;
        sources->file[i].ctime_ns = 0; /* a copy has its own */
        any = true;
    }
    if (!any)
        die("--root: no reference leads below %.*s; see st-ls --header",
            (int)(strstr(o->root, "=/") - o->root), o->root);
    if (folder)
        json_object_set_new(ts_header(in), "source", json_string(folder));
    free(folder);
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg args[] = {
        {.name = "allow-zeros",
         .to = &stage->allow_zeros,
         .help = "read shards that end in zeros, too (as incomplete downloads do)",
         .in = FORM(0),
         .silent = true},
        {.name = "inline",
         .to = &stage->embed,
         .help = "put all bytes into the stream, for use on another machine",
         .in = FORM(0),
         .silent = true},
        {.name = "layers",
         .kind = ARG_RANGE,
         .to = &o->layers,
         .value = "A-B",
         .help = "only layers A to B, and nothing outside layers",
         .in = FORM(0)},
        {.name = "locate",
         .to = &o->locate,
         .help = "print the checkpoint's folder instead: for a name on the Hugging Face hub, that "
                 "of the snapshot in its cache",
         .in = FORM(1),
         .required = FORM(1)},
        /* The scope records these two; parts of a checkpoint have the same history. */
        {.name = "part",
         .kind = ARG_PART,
         .to = &o->part,
         .value = "I/N",
         .help = "only the shards of part I of N (1 to N), of about equal bytes",
         .in = FORM(0),
         .silent = true},
        {.name = "shards",
         .kind = ARG_TEXT,
         .to = &o->shards,
         .value = "list",
         .help = "only these shards (names separated by commas or newlines)",
         .in = FORM(0),
         .silent = true},
        {.name = "root",
         .kind = ARG_TEXT,
         .to = &o->root,
         .value = "OLD=NEW",
         .help = "references below folder OLD point below NEW (a saved stream moved)",
         .in = FORM(0),
         .silent = true},
        {.name = "verbose", .help = "say how much was read", .in = FORM(0)},
        {.name = "plan", .in = FORM(0)},
        {.name = "output", .in = FORM(0)},
        {.name = "progress", .in = FORM(0)},
        {.name = "quiet", .in = FORM(0)},
        {0},
    };
    stage_begin(stage, &program, args, argc, argv);
}

/* For scripts. The folder need not be there; who opens it says so. */
static int locate(struct stage *stage)
{
    char *folder = hub_folder(stage->operand[0]);
    text_write(stdout, folder, strlen(folder));
    putchar('\n');
    free(folder);
    return stage_end(stage);
}

static void tell_folders(struct ts_in *in)
{
    size_t i;
    json_t *folder, *folders = ts_folders(in);
    json_array_foreach(folders, i, folder) warn("from %s", json_string_value(folder));
    json_decref(folders);
}

int main(int argc, char **argv)
{
    struct options o = {0};
    struct stage stage;
    take_options(&o, &stage, argc, argv);
    check_options(&o, &stage);
    if (o.locate)
        return locate(&stage);
    struct ts_in *in = ts_open_all(stage.operand, (size_t)stage.operands, &stage);
    if (o.root)
        move_root(&o, in);
    if (o.shards)
        check_shards_exist(o.shards, ts_toc(in));
    if (o.part.text)
        find_part(&o, ts_toc(in));
    struct toc *toc = plan(&o, ts_toc(in), ts_model(in));
    bool may_be_empty = o.part.text || (o.shards && !*o.shards); /* side files only */
    if (!toc->count && !may_be_empty)
        die("%s: no tensor is in that part of it", ts_name(in));
    set_scope(&o, ts_header(in));
    json_object_set_new(stage.entry, "selects", json_true());
    struct ts_out *out = ts_create(&stage, in, toc);

    while (ts_next(in)) {
        const struct tensor *due = ts_due(out);
        if (due && !strcmp(due->name, ts_present(in)->name) &&
            !strcmp(toc->shard[due->shard], ts_toc(in)->shard[ts_present(in)->shard]))
            ts_pass(out, in);
    }
    if (stage.verbose)
        tell_folders(in);
    if (stage.verbose)
        warn("%zu of %zu tensors, %" PRIu64 " bytes", toc->count, ts_toc(in)->count,
             toc_bytes(toc, true));
    ts_finish(out, in, NULL);
    toc_free(toc);
    return stage_end(&stage);
}
