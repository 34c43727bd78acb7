/* amax-merge: merge calibration dumps into the amaxes that the quantizing stages read. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/names.h"
#include "base/output.h"
#include "base/text.h"
#include "model/weights.h"
#include "quantize/amax.h"
#include "quantize/convertible.h"
#include "quantize/effective.h"
#include "quantize/fit.h"
#include "quantize/recipe.h"
#include "stream/report.h"
#include "stream/whole.h"
#include "tensor/e4m3.h"
#include "tensor/nvfp4.h"
#include "tensor/weight.h"

static const struct program program = {
    .about = "Merge the amaxes of several ranks (pt-read, amax-calib), choose those of w2's input "
             "that engines need, let w1 and w3 of an expert share the larger, and fill in amaxes "
             "of experts that no calibration token reached. "
             "Of a checkpoint in NVFP4, take the amaxes that its input scales stand for.",
    .operands = {"[stream ...]", ""},
    .examples = {"pt-read dumps/ | amax-merge --model DeepSeek-V4 --fallback layer-max >amax.ts",
                 "amax-merge --summary summary.txt rank0.ts rank1.ts >amax.ts",
                 "amax-merge --model DeepSeek-V4 DeepSeek-V4-NVFP4 >amax.ts",
                 "amax-merge --model DeepSeek-V4 --input-scale 1 >amax.ts"},
    .max_operands = ANY_OPERANDS,
};

struct options {
    const char *drafts, *fallback, *model, *recipe, *summary, *w2;
    float input_scale; /* of all experts; 0: not given */
    json_t *entry;     /* of this run in the history */
    uint64_t coverage; /* percent */
    bool headroom, json, peer_max, trust, tsv, verbose;
    enum report form; /* of the summary */
};

/* An amax, or the number of tokens that reached an expert. Its name is in the table of contents. */
struct entry {
    bool is_tokens;
    bool filled;         /* by the fallback rule */
    uint8_t which;       /* enum amax_which */
    struct place place;  /* of the matrix */
    struct peers *peers; /* of a routed expert; NULL for other matrices */
    union {
        double amax;
        int64_t tokens;
    };
};

/* One matrix of all the experts of one layer. */
struct peers {
    struct peers *next;
    struct place place; /* of one of them */
    double input_amax;  /* the largest of those that tokens reached; 0 if none */
    uint32_t reached;   /* how many have an input amax without being filled in ... */
    uint32_t wanted;    /* ... and how many need one */
    size_t line[2];     /* of the digest, of weights' amaxes and of inputs': 1 + its number */
};

/* What the fallback rules take from all layers for a matrix. */
struct trunk {
    const struct peers *last; /* in the last calibrated layer; NULL if there is none */
    double largest;           /* input amax of any layer but MTP's */
};

struct table {
    struct model *model; /* of --model, or of the names in the first stream */
    bool exact; /* amaxes are F64, so that they give the input scales that they come from */
    struct entry *entry;
    size_t count, capacity;
    struct toc *toc;               /* parallel to entry[]: their names */
    struct peers *peers;           /* most recently found first */
    struct names *places;          /* theirs ... */
    struct peers **by_place;       /* ... by number */
    size_t kinds;                  /* how many there are */
    struct trunk trunk[GROUP_MAX]; /* by matrix; after find_peer_maxima() */
    uint64_t drafts;               /* filled in for drafts that were not calibrated */
    uint64_t raw;                  /* weight amaxes left out, as they are of codes without scales */
    struct recipe *recipe;         /* of --recipe for --model, or NULL */
    char **disabled; /* quantizers that the reference has, too, in the model's order */
    size_t disabled_count;
    /* Of how many experts' w2 the input has both amaxes (see amax.h), and of how many one; and
     * which one, "engine" or "reference". */
    uint64_t both, one;
    const char *one_is;
};

static const char *name_of(const struct table *table, const struct entry *entry)
{
    return table->toc->tensor[entry - table->entry].name;
}

/* ---- reading ---- */

/* The peers of a matrix of a routed expert; NULL for others. */
static struct peers *peers_of(struct table *table, const struct place *place)
{
    if (!place_is_routed(place))
        return NULL;
    char key[64];
    snprintf(key, sizeof key, "%u %" PRIu32 " %" PRIu32 " %" PRIu32, place->section, place->layer,
             place->part, place->matrix);
    size_t number = names_add(table->places, key);
    if (number == table->kinds) {
        struct peers *peers = xalloc(1, sizeof *peers);
        *peers = (struct peers){.next = table->peers, .place = *place};
        table->peers = peers;
        if (!(number & (number - 1))) /* it is full */
            table->by_place = xgrow(table->by_place, 2 * number + 1, sizeof *table->by_place);
        table->by_place[table->kinds++] = peers;
    }
    return table->by_place[number];
}

static struct entry *append(struct table *table, const char *name, enum dtype dtype)
{
    toc_append(table->toc, "amax.safetensors", name, dtype, 0, NULL);
    if (table->count == table->capacity) {
        table->capacity = table->capacity ? 2 * table->capacity : 256;
        table->entry = xgrow(table->entry, table->capacity, sizeof *table->entry);
    }
    struct entry *entry = &table->entry[table->count++];
    *entry = (struct entry){0};
    return entry;
}

static struct entry *append_amax(struct table *table, const char *module, enum amax_which which,
                                 double amax)
{
    char *name = amax_name(table->model, module, which);
    struct entry *entry = append(table, name, table->exact ? DTYPE_F64 : DTYPE_F32);
    free(name);
    entry->which = (uint8_t)which;
    entry->amax = amax;
    entry->place = model_place(table->model, module);
    entry->peers = peers_of(table, &entry->place);
    return entry;
}

static struct entry *find(struct table *table, const char *module, enum amax_which which)
{
    char *name = amax_name(table->model, module, which);
    int64_t line = toc_find(table->toc, name);
    free(name);
    return line < 0 ? NULL : &table->entry[line];
}

/* Model Optimizer 0.45 to 0.47 also measures the codes of FP8 weights without their scales, which
 * gives 448, the largest there is, for all. A weight whose amax is 448 loses nothing: nvfp4-pack
 * and fp8-pack find it again. */
static bool is_of_codes(struct table *table, const struct options *o, enum amax_which which,
                        float amax)
{
    bool raw = which == AMAX_WEIGHT && amax == E4M3_MAX && !o->trust;
    table->raw += raw;
    return raw;
}

static bool has(const struct table *table, struct ts_in *in, const char *module,
                enum amax_which which)
{
    char *name = amax_name(table->model, module, which);
    bool found = toc_find(ts_toc(in), name) >= 0;
    free(name);
    return found;
}

/* An input has amaxes with headroom and without: of those that --headroom asks for, or not,
 * there may be two again, and --w2 chooses. A single one is taken always. */
static bool is_chosen(struct table *table, const struct options *o, struct ts_in *in,
                      const char *module, enum amax_which which)
{
    static const enum amax_which other[] = {[AMAX_INPUT] = AMAX_ENGINE_INPUT,
                                            [AMAX_ENGINE_INPUT] = AMAX_INPUT,
                                            [AMAX_HEADROOM] = AMAX_ENGINE_HEADROOM,
                                            [AMAX_ENGINE_HEADROOM] = AMAX_HEADROOM};
    bool engine = which == AMAX_ENGINE_INPUT || which == AMAX_ENGINE_HEADROOM;
    bool headroom = which == AMAX_HEADROOM || which == AMAX_ENGINE_HEADROOM;
    if (which == AMAX_WEIGHT)
        return true;
    if (o->headroom && !has(table, in, module, AMAX_HEADROOM))
        die("%s: %s has no input amax with headroom; amax-calib --headroom records it", ts_name(in),
            module);
    if (headroom != o->headroom)
        return false;
    bool both = has(table, in, module, other[which]);
    bool chosen = !both || engine == !strcmp(o->w2, "engine");
    struct place place = model_place(table->model, module);
    if (chosen && place_is_routed(&place) && model_is_last_matrix(table->model, &place) &&
        model_weighs_early(table->model))
        *(both ? &table->both : &table->one) += 1;
    return chosen;
}

/* Of matrices that are no routed experts, each rank has an amax: the largest counts. */
static bool is_shared(struct table *table, const char *module, enum amax_which which, float amax)
{
    struct place place = model_place(table->model, module);
    struct entry *entry = place_is_routed(&place) ? NULL : find(table, module, which);
    if (entry)
        entry->amax = fmax(entry->amax, amax);
    return entry != NULL;
}

static void append_chosen(struct table *table, const struct options *o, struct ts_in *in,
                          const char *module, enum amax_which which, float amax)
{
    if (is_of_codes(table, o, which, amax) || !is_chosen(table, o, in, module, which))
        return;
    which = which == AMAX_WEIGHT ? AMAX_WEIGHT : AMAX_INPUT;
    if (!is_shared(table, module, which, amax))
        append_amax(table, module, which, amax);
}

static void read_entry(struct table *table, const struct options *o, struct ts_in *in)
{
    const struct tensor *tensor = ts_present(in);
    char module[TENSOR_NAME_MAX + 1];
    if (amax_is_tokens(tensor)) {
        struct entry *entry = append(table, tensor->name, DTYPE_I64);
        entry->is_tokens = true;
        ts_read(in, &entry->tokens, sizeof entry->tokens);
        return;
    }
    enum amax_which which;
    float amax = (float)amax_read(table->model, in);
    amax_key(table->model, tensor->name, module, &which);
    append_chosen(table, o, in, module, which, amax);
}

/* A tensor of a checkpoint: the input scale of a matrix in NVFP4, or nothing. */
static void read_scale(struct table *table, struct ts_in *in)
{
    static const char ending[] = ".input_scale";
    const struct tensor *tensor = ts_present(in);
    float scale;
    if (!ends_with(tensor->name, ending))
        return;
    char *module = xstrdup(tensor->name);
    module[strlen(module) - strlen(ending)] = 0;
    char *other = xprintf("%s.weight_scale_2", module);
    if (toc_find(ts_toc(in), other) >= 0) { /* FP8's input scales have another meaning */
        if (tensor->dtype != DTYPE_F32 || tensor->size != sizeof scale)
            die("%s: %s: wanted one F32 number", ts_name(in), tensor->name);
        ts_read(in, &scale, sizeof scale);
        if (!isfinite(scale) || scale <= 0)
            die("%s: %s: an input scale must be finite and above 0, got %g", ts_name(in),
                tensor->name, (double)scale);
        append_amax(table, module, AMAX_INPUT, nvfp4_amax(scale));
    }
    free(other);
    free(module);
}

/* The entries that a calibration will have. Their values decide nothing in a plan. */
static void read_planned(struct table *table, const struct options *o, struct ts_in *in)
{
    const struct toc *toc = ts_toc(in);
    char module[TENSOR_NAME_MAX + 1];
    enum amax_which which;
    for (size_t i = 0; i < toc->count; i++)
        if (amax_is_tokens(&toc->tensor[i]))
            append(table, toc->tensor[i].name, DTYPE_I64)->is_tokens = true;
        else if (amax_key(table->model, toc->tensor[i].name, module, &which))
            append_chosen(table, o, in, module, which, 1);
}

/* A stream that was merged before says which amaxes of w2's input it has; others, Model
 * Optimizer's, have the reference's. */
static void find_kind(struct table *table, struct ts_in *in)
{
    size_t i;
    json_t *stage;
    json_array_foreach(ts_end_counts(in), i, stage)
    {
        const char *w2 = json_string_value(json_object_get(stage, "w2"));
        if (w2)
            table->one_is = strcmp(w2, "engine") ? "reference" : "engine";
    }
}

static void read_stream(struct table *table, const struct options *o, struct ts_in *in, bool plan)
{
    bool checkpoint = ts_file_find(in, "config.json") >= 0;
    size_t before = table->count;
    if (before && checkpoint != table->exact)
        die("%s: a checkpoint and a calibration do not go together; give one of them", ts_name(in));
    if (checkpoint && o->headroom)
        die("%s: a checkpoint has no input amaxes with headroom; a calibration by amax-calib "
            "--headroom does",
            ts_name(in));
    table->exact = checkpoint;
    while (ts_next(in))
        if (checkpoint)
            read_scale(table, in);
        else
            read_entry(table, o, in);
    find_kind(table, in);
    if (ts_plan_only(in) && (checkpoint || !plan))
        die("%s: is a plan only, without values", ts_name(in));
    if (ts_plan_only(in))
        read_planned(table, o, in);
    if (checkpoint && table->count == before)
        die("%s: has no input scales of matrices in NVFP4; amaxes come from a calibration, or a "
            "checkpoint in NVFP4",
            ts_name(in));
}

/* Model Optimizer's dumps are named amax_dict_rankR-mpN: all N must be present. */
static void check_ranks(char **name, size_t count)
{
    unsigned long ranks = 0;
    bool *seen = NULL;
    for (size_t i = 0; i < count; i++) {
        unsigned long rank, of;
        int end = 0;
        if (sscanf(name[i], "amax_dict_rank%5lu-mp%5lu.pt%n", &rank, &of, &end) != 2 || !end ||
            name[i][end])
            continue;
        if (!seen) {
            ranks = of;
            seen = xalloc(ranks, sizeof *seen);
        }
        if (of != ranks || rank >= ranks)
            die("%s: does not belong to the other dumps, of %lu ranks", name[i], ranks);
        seen[rank] = true;
    }
    for (unsigned long rank = 0; rank < ranks; rank++)
        if (!seen[rank])
            die("amax_dict_rank%lu-mp%lu.pt is missing: one rank's experts would go unnoticed",
                rank, ranks);
    free(seen);
}

/* Sort the lines by name to find duplicates. */
static void check_collisions(const struct table *table)
{
    for (size_t i = 0; i < table->count; i++)
        if (toc_find(table->toc, name_of(table, &table->entry[i])) != (int64_t)i)
            die("%s: comes from two ranks; experts are divided among ranks, so these dumps do not "
                "belong together",
                name_of(table, &table->entry[i]));
}

/* The output's history continues the first stream's; this program's entry keeps the others'. */
static void keep_history(const struct stage *stage, struct ts_in *in)
{
    json_t *streams = json_object_get(stage->entry, "with");
    if (!streams)
        json_object_set_new(stage->entry, "with", streams = json_array());
    json_array_append_new(streams, json_pack("{s:O, s:O*}", "history",
                                             json_object_get(ts_header(in), "history"), "counts",
                                             ts_end_counts(in)));
}

/* Returns the first one, still open. */
static struct ts_in *read_all(struct table *table, const struct options *o, struct stage *stage)
{
    size_t streams = stage->operands ? (size_t)stage->operands : 1, shards = 0;
    char **shard = NULL;
    struct ts_in *first = NULL;
    for (size_t i = 0; i < streams; i++) {
        const char *path = stage->operands ? stage->operand[i] : NULL;
        /* For a plan, too, values are read if they are there: they decide what is filled in. */
        struct ts_in *in = ts_open(path && strcmp(path, "-") != 0 ? path : NULL, NULL);
        if (!table->model)
            table->model = model_open(model_guess(ts_toc(in)), NULL);
        read_stream(table, o, in, stage->plan);
        struct toc *toc = ts_toc(in);
        shard = xgrow(shard, shards + toc->shards, sizeof *shard);
        for (size_t j = 0; j < toc->shards; j++)
            shard[shards++] = xstrdup(toc->shard[j]);
        if (i == 0) {
            first = in;
            continue;
        }
        keep_history(stage, in);
        ts_close(in);
    }
    check_ranks(shard, shards);
    check_collisions(table);
    for (size_t i = 0; i < shards; i++)
        free(shard[i]);
    free(shard);
    return first;
}

/* ---- policies ---- */

/* Which amaxes of w2's input the output has; NULL if none. */
static const char *kind_of_w2(const struct table *table, const struct options *o)
{
    return table->both ? o->w2 : table->one ? table->one_is : NULL;
}

static void warn_of_w2(const struct table *table, const struct options *o)
{
    if (table->one && strcmp(table->one_is, o->w2) != 0)
        warn("--w2 %s: of w2's inputs, %" PRIu64 " have amaxes %s the router's weight only, which "
             "are used as they are; amax-calib records both",
             o->w2, table->one, strcmp(o->w2, "engine") ? "without" : "with");
}

/* The largest amax in the group of an entry. */
static double group_amax(struct table *table, const struct entry *entry)
{
    char module[TENSOR_NAME_MAX + 1];
    struct place member;
    double largest = entry->amax;
    bool shares = !table->recipe || !model_module(table->model, &entry->place, module) ||
                  recipe_shares_scales(table->recipe, module);
    for (unsigned i = 0; shares && model_group_member(table->model, &entry->place, i, &member);
         i++) {
        const struct entry *other =
            model_module(table->model, &member, module) ? find(table, module, entry->which) : NULL;
        if (other)
            largest = fmax(largest, other->amax);
    }
    return largest;
}

/* The members of a group (gate and up, for example) feed one product in the engines: they share the
 * largest. */
static uint64_t fuse(struct table *table)
{
    uint64_t fused = 0;
    for (size_t i = 0; i < table->count; i++) {
        struct entry *entry = &table->entry[i];
        double largest = entry->is_tokens ? 0 : group_amax(table, entry);
        if (!entry->is_tokens && entry->amax < largest) {
            entry->amax = largest;
            fused++;
        }
    }
    return fused;
}

/* The layers with the same matrix as `peers`, whose maximum is known. */
static void add_to_trunk(struct table *table, const struct peers *peers)
{
    struct trunk *trunk = &table->trunk[peers->place.matrix];
    if (peers->place.section != SECTION_MTP)
        trunk->largest = fmax(trunk->largest, peers->input_amax);
    if (peers->place.section == SECTION_LAYERS && peers->reached &&
        (!trunk->last || peers->place.layer > trunk->last->place.layer))
        trunk->last = peers;
}

/* After groups are fused: the largest of each layer's matrices. */
static void find_peer_maxima(struct table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct entry *entry = &table->entry[i];
        if (entry->peers && entry->which == AMAX_INPUT) {
            entry->peers->input_amax = fmax(entry->peers->input_amax, entry->amax);
            entry->peers->reached++;
        }
    }
    for (const struct peers *peers = table->peers; peers; peers = peers->next)
        add_to_trunk(table, peers);
}

/* True for peers in a draft that the calibration did not run. */
static bool is_uncalibrated_draft(const struct peers *peers)
{
    return peers->place.section == SECTION_MTP && !peers->reached;
}

/* The fallback rule's amax for an expert with these peers; 0 if there is none. A draft that was not
 * calibrated takes the trunk's last layer for its own. */
static double fallback_amax(const struct table *table, const struct options *o,
                            const struct peers *of)
{
    const struct trunk *trunk = &table->trunk[of->place.matrix];
    if (!strcmp(o->fallback, "projection-max"))
        return trunk->largest;
    if (is_uncalibrated_draft(of))
        of = trunk->last;
    return of ? of->input_amax : 0;
}

static void fill_one(struct table *table, const struct options *o, const char *module)
{
    struct place place = model_place(table->model, module);
    const struct peers *peers = peers_of(table, &place);
    if (!peers)
        die("%s has no input amax, and it is no routed expert, of which some may see no token; "
            "calibrate with amax-calib --recipe %s",
            module, o->recipe);
    if (!strcmp(o->fallback, "none"))
        die("%s has no input amax: no calibration token reached it; choose a rule with --fallback, "
            "or calibrate with more text",
            module);
    double amax = fallback_amax(table, o, peers);
    if (amax == 0)
        die("%s has no input amax, and no other expert has one that --fallback %s could take",
            module, o->fallback);
    if (o->verbose)
        warn("%s: filled in with %g", module, amax);
    append_amax(table, module, AMAX_INPUT, amax)->filled = true;
    table->drafts += is_uncalibrated_draft(peers);
}

/* What there is to fill in, in the order of modules. */
struct gaps {
    char **module;
    size_t count;
};

/* A module that must have an input amax. */
static void want(struct table *table, struct gaps *gaps, const char *module)
{
    struct place place = model_place(table->model, module);
    struct peers *peers = peers_of(table, &place);
    if (peers)
        peers->wanted++;
    if (find(table, module, AMAX_INPUT))
        return;
    gaps->module = xgrow(gaps->module, gaps->count + 1, sizeof *gaps->module);
    gaps->module[gaps->count++] = xstrdup(module);
}

static void add_disabled(struct table *table, char *name)
{
    table->disabled = xgrow(table->disabled, table->disabled_count + 1, sizeof *table->disabled);
    table->disabled[table->disabled_count++] = name;
}

/* A matrix without amaxes: its quantizers are disabled. So are those for products without weights
 * beside any matrix. */
static void find_disabled(struct table *table, const struct weight *w, bool wanted)
{
    char name[TENSOR_NAME_MAX + 1];
    bool layer = w->place.section == SECTION_LAYERS;
    bool listed = (layer && !w->place.stays) || w->place.section == SECTION_HEAD;
    for (int which = 0; which <= AMAX_WEIGHT && listed && !wanted; which++) {
        char *quantizer = amax_name(table->model, w->module, (enum amax_which)which);
        *strrchr(quantizer, '.') = 0; /* "._amax" */
        add_disabled(table, quantizer);
    }
    for (unsigned i = 0; layer && model_unused_quantizer(table->model, w->module, i, name); i++)
        add_disabled(table, xstrdup(name));
}

/* Those of the recipe in the checkpoint, which must be complete: what it lacks would be blamed on
 * the calibration. */
static void want_for_model(struct table *table, struct ts_in *model, struct gaps *gaps)
{
    struct weights weights;
    bool named = false;
    whole_check(model);
    weights_find(&weights, table->model, ts_toc(model), ts_name(model));
    recipe_check(table->recipe, table->model, ts_toc(model), ts_is_whole(model), ts_name(model));
    for (size_t i = 0; i < weights.count; i++) {
        const struct weight *w = &weights.weight[i];
        bool wanted = !w->place.stays && recipe_needs_amax(table->recipe, w->module);
        if (wanted)
            want(table, gaps, w->module);
        if (model_lists_disabled(table->model))
            find_disabled(table, w, wanted);
        named |= wanted;
    }
    if (!named && ts_is_whole(model))
        convertible_refuse_names(model, &weights, table->recipe);
    weights_free(&weights);
}

/* The number of experts: one more than that of any in the stream. A number may claim anything, so
 * that what would be filled in is bounded: V4-Pro has 70,000 matrices of experts. */
static uint32_t count_experts(const struct table *table)
{
    enum { FILLED_MOST = 1 << 20 };
    const struct entry *last = NULL;
    for (size_t i = 0; i < table->count; i++)
        if (table->entry[i].peers && (!last || table->entry[i].place.expert > last->place.expert))
            last = &table->entry[i];
    uint64_t experts = last ? (uint64_t)last->place.expert + 1 : 0;
    if (experts * table->kinds > FILLED_MOST + table->count)
        die("%s: with as many experts as that, %" PRIu64 " amaxes would be missing; is the "
            "calibration damaged? If not, --model says how many experts there are",
            name_of(table, last), experts * table->kinds - table->count);
    return (uint32_t)experts;
}

/* Without the checkpoint: in each layer that occurs, from expert 0 to the last one of any layer. */
static void want_for_dump(struct table *table, struct gaps *gaps)
{
    uint32_t experts = count_experts(table);
    for (const struct peers *peers = table->peers; peers; peers = peers->next)
        for (uint32_t expert = 0; expert < experts; expert++) {
            struct place place = peers->place;
            char module[TENSOR_NAME_MAX + 1];
            place.expert = expert;
            if (model_module(table->model, &place, module))
                want(table, gaps, module);
        }
}

static void check_coverage(const struct table *table, const struct options *o)
{
    for (const struct peers *peers = table->peers; peers; peers = peers->next) {
        char path[TENSOR_NAME_MAX + 1];
        if (!is_uncalibrated_draft(peers) &&
            peers->reached * 100.0 < (double)(peers->wanted * o->coverage))
            die("%s: the calibration has %" PRIu32 " of %" PRIu32 " experts, under %" PRIu64
                " %%; is it of this model? If so, calibrate with more text, or name a rule with "
                "--fallback",
                model_experts_path(table->model, &peers->place, path), peers->reached,
                peers->wanted, o->coverage);
    }
}

static void check_fit(const struct table *table, struct ts_in *model, const char *name)
{
    struct fit *fit = fit_begin(model);
    for (size_t i = 0; i < table->count; i++) {
        char module[TENSOR_NAME_MAX + 1];
        const struct entry *entry = &table->entry[i];
        if (entry->peers && model_module(table->model, &entry->place, module))
            fit_add(fit, module);
    }
    fit_end(fit, name);
}

/* How many were filled in. `model`: the checkpoint, or NULL; `name`: the amaxes', for messages. */
static uint64_t fill(struct table *table, const struct options *o, struct ts_in *model,
                     const char *name)
{
    struct gaps gaps = {0};
    if (model) {
        want_for_model(table, model, &gaps);
        check_fit(table, model, name);
    } else {
        want_for_dump(table, &gaps);
    }
    check_coverage(table, o);
    for (size_t i = 0; i < gaps.count; i++) {
        if (o->input_scale > 0)
            append_amax(table, gaps.module[i], AMAX_INPUT, nvfp4_amax(o->input_scale));
        else
            fill_one(table, o, gaps.module[i]);
        free(gaps.module[i]);
    }
    free(gaps.module);
    return o->input_scale > 0 ? 0 : gaps.count;
}

static void share_peer_max(struct table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        struct entry *entry = &table->entry[i];
        if (entry->peers && entry->peers->reached && entry->which == AMAX_INPUT)
            entry->amax = entry->peers->input_amax;
    }
}

/* ---- output ---- */

/* Sort the table, and the entries with it, into the model's order. */
static void sort(struct table *table)
{
    model_sort(table->model, table->toc, table->entry, sizeof *table->entry);
}

/* What engines make of a calibration's input amaxes; NULL where values are not known. */
static json_t *effective_of(const struct table *table, const struct options *o, bool plan)
{
    if (plan || o->input_scale > 0)
        return NULL;
    struct effective *effective = effective_new(table->model);
    for (size_t i = 0; i < table->count; i++) {
        const struct entry *entry = &table->entry[i];
        if (!entry->is_tokens && entry->which == AMAX_INPUT)
            effective_add(effective, &entry->place, entry->amax);
    }
    json_t *scales = effective_scales(effective);
    effective_free(effective);
    return scales;
}

static int by_amax(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A line of the digest: a layer, a projection and a kind. */
struct line {
    const struct entry *first;
    size_t count, filled;
    double *amax;
};

/* The entries' lines in the order of their first ones; the caller frees them, and each one's
 * amaxes.
 */
static struct line *gather_lines(const struct table *table, size_t *count)
{
    struct line *lines = xalloc(2 * table->kinds, sizeof *lines);
    *count = 0;
    for (size_t i = 0; i < table->count; i++) {
        const struct entry *entry = &table->entry[i];
        if (!entry->peers)
            continue;
        size_t *number = &entry->peers->line[entry->which == AMAX_INPUT];
        if (!*number) {
            lines[*count].first = entry;
            *number = ++*count;
        }
        struct line *line = &lines[*number - 1];
        if (!(line->count & (line->count - 1))) /* it is full */
            line->amax = xgrow(line->amax, 2 * line->count + 1, sizeof *line->amax);
        line->amax[line->count++] = entry->amax;
        line->filled += entry->filled;
    }
    return lines;
}

/* How many, how many filled in, min, median, max. */
static void write_line(FILE *out, enum report form, const struct model *model,
                       const struct line *line)
{
    const struct place *place = &line->first->peers->place;
    const bool input = line->first->which == AMAX_INPUT;
    const double *amax = line->amax, median = amax[line->count / 2], most = amax[line->count - 1];
    char path[TENSOR_NAME_MAX + 1];
    const char *matrix = model_matrix_name(model, place);
    model_experts_path(model, place, path);
    if (form != REPORT_TEXT) {
        report_record_to(out, form,
                         json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:f, s:f, s:f}", "what",
                                   "digest", "name", path, "matrix", matrix, "kind",
                                   input ? "input amax" : "weight amax", "experts",
                                   (json_int_t)line->count, "filled", (json_int_t)line->filled,
                                   "min", amax[0], "median", median, "max", most));
        return;
    }
    char *label = xprintf("%s %s %s", path, matrix, input ? "input" : "weight");
    fprintf(out, "%-40s %8zu %8zu %12.4g %12.4g %12.4g\n", label, line->count, line->filled,
            amax[0], median, most);
    free(label);
}

static void write_digest(FILE *out, enum report form, const struct table *table)
{
    size_t count;
    struct line *lines = gather_lines(table, &count);
    if (form == REPORT_TEXT)
        fprintf(out, "\n%-40s %8s %8s %12s %12s %12s\n", "digest", "experts", "filled", "min",
                "median", "max");
    for (size_t i = 0; i < count; i++) {
        qsort(lines[i].amax, lines[i].count, sizeof *lines[i].amax, by_amax);
        write_line(out, form, table->model, &lines[i]);
        free(lines[i].amax);
    }
    free(lines);
}

static bool is_fp8(const struct table *table, const struct entry *entry)
{
    char module[TENSOR_NAME_MAX + 1];
    return table->recipe && model_module(table->model, &entry->place, module) &&
           recipe_choice(table->recipe, module).per_tensor;
}

static void write_quantizer(FILE *out, enum report form, const struct table *table,
                            const struct entry *entry)
{
    const bool fp8 = is_fp8(table, entry);
    char *name = xstrdup(name_of(table, entry));
    *strrchr(name, '.') = 0; /* "._amax" */
    if (form == REPORT_TEXT)
        fprintf(out, "%-80s TensorQuantizer(%s, amax=%.2e%s)\n", name,
                fp8 ? "FP8, per tensor" : "NVFP4, block 16", entry->amax,
                entry->filled ? ", filled in: never reached" : "");
    else
        report_record_to(out, form,
                         json_pack("{s:s, s:s, s:s, s:f, s:b}", "what", "quantizer", "name", name,
                                   "format", fp8 ? "FP8" : "NVFP4", "amax", entry->amax, "filled",
                                   (int)entry->filled));
    free(name);
}

static void write_disabled(FILE *out, enum report form, const char *name)
{
    if (form == REPORT_TEXT)
        fprintf(out, "%-80s TensorQuantizer(disabled)\n", name);
    else
        report_record_to(out, form,
                         json_pack("{s:s, s:s, s:n, s:n, s:n}", "what", "quantizer", "name", name,
                                   "format", "amax", "filled"));
}

/* The summary, which output_finish() puts in place once the amaxes are. */
static void write_summary(struct output *file, const struct options *o, const struct table *table)
{
    const char *path = o->summary;
    output_open(file, path);
    FILE *out = fdopen(dup(file->fd), "w");
    if (!out)
        die_errno("%s", path);
    for (size_t i = 0; i < table->count; i++)
        if (!table->entry[i].is_tokens)
            write_quantizer(out, o->form, table, &table->entry[i]);
    for (size_t i = 0; i < table->disabled_count; i++)
        write_disabled(out, o->form, table->disabled[i]);
    write_digest(out, o->form, table);
    if (ferror(out) || fclose(out))
        die_errno("%s", path);
}

static void write_entries(struct ts_out *out, const struct table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct entry *entry = &table->entry[i];
        float amax = (float)entry->amax;
        if (entry->is_tokens)
            ts_put(out, name_of(table, entry), &entry->tokens, sizeof entry->tokens);
        else if (table->exact)
            ts_put(out, name_of(table, entry), &entry->amax, sizeof entry->amax);
        else
            ts_put(out, name_of(table, entry), &amax, sizeof amax);
    }
}

static void free_table(struct table *table)
{
    for (struct peers *peers = table->peers, *next; peers; peers = next) {
        next = peers->next;
        free(peers);
    }
    free(table->by_place);
    names_free(table->places);
    free(table->entry);
    for (size_t i = 0; i < table->disabled_count; i++)
        free(table->disabled[i]);
    free(table->disabled);
    toc_free(table->toc);
    recipe_free(table->recipe);
    model_close(table->model);
}

/* A checkpoint's model, which outlives its stream. */
static struct model *reopened(struct ts_in *in)
{
    json_t *config = ts_file_json(in, "config.json");
    struct model *model = model_open(model_own_type(ts_model(in)), config);
    json_decref(config);
    return model;
}

static void tell_filled(const struct table *table, const struct options *o, uint64_t filled)
{
    if (filled > table->drafts)
        warn("%" PRIu64 " input amaxes of experts never reached were filled in by %s",
             filled - table->drafts, o->fallback);
    if (table->drafts)
        warn("%" PRIu64 " input amaxes of drafts, which were not calibrated, were filled in from "
             "the last layer's by %s",
             table->drafts, o->fallback);
}

static void tell_raw(const struct table *table)
{
    if (table->raw)
        warn("%" PRIu64 " weight amaxes are 448, those of FP8 codes without their scales, as Model "
             "Optimizer 0.45 to 0.47 has them; the weights' own count instead (--trust-weight-amax "
             "keeps them)",
             table->raw);
}

static void check_options(struct options *o, const struct stage *stage)
{
    if (o->coverage > 100)
        die_usage("--coverage: at most 100 percent");
    o->form = report_form(o->tsv, o->json);
    if (o->form != REPORT_TEXT && !o->summary)
        die_usage("--json and --tsv are forms of the --summary; name its file");
    if (o->input_scale == 0)
        return;
    if (!o->model || stage->operands)
        die_usage("--input-scale needs --model, and takes no stream");
    if (o->coverage || o->headroom || o->peer_max || strcmp(o->fallback, "none") != 0)
        die_usage("--coverage, --fallback, --headroom and --peer-max are for calibrations; not "
                  "with --input-scale");
}

static struct arg w2_arg(const char **to)
{
    return (struct arg){
        .name = "w2",
        .kind = ARG_CHOICE,
        .to = to,
        .value = "which",
        .choices = "engine|reference",
        .help = "of the two amaxes of w2's input that amax-calib records: engine (default), "
                "without the router's weight, which engines multiply in after w2; reference, with "
                "it, as Model Optimizer has them",
        .in = FORM(0)};
}

static struct arg trust_arg(bool *to)
{
    return (struct arg){
        .name = "trust-weight-amax",
        .to = to,
        .help = "keep weight amaxes of 448, which are those of FP8 codes without their scales",
        .in = FORM(0)};
}

static struct arg headroom_arg(bool *to)
{
    return (struct arg){
        .name = "headroom",
        .to = to,
        .help = "take the input amaxes with room above the calibration's largest inputs, which "
                "amax-calib --headroom recorded",
        .in = FORM(0)};
}

static struct arg peer_max_arg(bool *to)
{
    return (struct arg){.name = "peer-max",
                        .to = to,
                        .help =
                            "all experts of a layer share the layer's input amax of a projection",
                        .in = FORM(0)};
}

static struct arg json_arg(bool *to)
{
    return (struct arg){.name = "json",
                        .to = to,
                        .help = "write the summary as lines of JSON: of quantizers name, format, "
                                "amax, filled, and of the digest",
                        .silent = true};
}

static struct arg tsv_arg(bool *to)
{
    return (struct arg){.name = "tsv",
                        .to = to,
                        .help = "the same as --json, tab-separated",
                        .or_previous = true,
                        .silent = true};
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg args[] = {
        {.name = "coverage",
         .kind = ARG_NUMBER,
         .to = &o->coverage,
         .value = "percent",
         .help = "the share of each layer's experts that must have input amaxes of their own; "
                 "fewer are an error (default: 0)",
         .in = FORM(0),
         .silent = true},
        recipe_drafts_arg(&o->drafts),
        {.name = "fallback",
         .kind = ARG_CHOICE,
         .to = &o->fallback,
         .value = "rule",
         .choices = "none|layer-max|projection-max",
         .help = "the input amax of an expert never reached: none, that is an error (default); "
                 "layer-max, the largest of its projection in its layer; projection-max, the "
                 "largest of its projection in all layers but MTP (Model Optimizer's rule for V4)",
         .in = FORM(0)},
        headroom_arg(&o->headroom),
        {.name = "input-scale",
         .kind = ARG_REAL,
         .to = &o->input_scale,
         .value = "N",
         .help = "no calibration: N is the input scale of all that the recipe names in the "
                 "checkpoint; with 1, engines quantize activations by their blocks alone",
         .in = FORM(1),
         .required = FORM(1)},
        json_arg(&o->json),
        tsv_arg(&o->tsv),
        {.name = "model",
         .kind = ARG_INPUT,
         .to = &o->model,
         .value = "dir",
         .help = "the checkpoint: every matrix that the recipe names needs an amax. Without it, "
                 "every layer that occurs needs experts 0 to the last one seen",
         .required = FORM(1),
         .silent = true},
        peer_max_arg(&o->peer_max),
        {.name = "recipe",
         .kind = ARG_TEXT,
         .to = &o->recipe,
         .value = "name",
         .help = "which matrices of the checkpoint count (default: experts)"},
        {.name = "summary",
         .kind = ARG_OUTPUT,
         .to = &o->summary,
         .value = "file",
         .help = "a line per quantizer, and a digest per layer",
         .silent = true},
        trust_arg(&o->trust),
        w2_arg(&o->w2),
        {.name = "plan", .help = "write the table only, no values"},
        {.name = "verbose", .help = "name each expert whose amax was filled in"},
        {0},
    };
    stage_begin(stage, &program, args, argc, argv);
}

int main(int argc, char **argv)
{
    struct options o = {.fallback = "none", .recipe = "experts", .w2 = "engine"};
    struct stage stage;
    take_options(&o, &stage, argc, argv);
    o.verbose = stage.verbose;
    o.entry = stage.entry;
    check_options(&o, &stage);
    struct ts_in *model = o.model ? ts_open(o.model, NULL) : NULL;
    struct table table = {.toc = toc_new(), .places = names_new(), .one_is = "reference"};
    if (model) {
        table.model = reopened(model);
        table.recipe = recipe_load(o.recipe, o.drafts, table.model);
        recipe_record(table.recipe, o.entry);
    }
    table.exact = o.input_scale > 0;
    struct ts_in *in = o.input_scale > 0 ? NULL : read_all(&table, &o, &stage);
    uint64_t fused = fuse(&table);
    find_peer_maxima(&table);
    uint64_t filled = fill(&table, &o, model, in ? ts_name(in) : "--input-scale");
    if (model)
        ts_close(model);     /* frees memory before sorting */
    if (in && table.exact) { /* the output is no checkpoint */
        ts_close(in);
        in = NULL;
    }
    if (o.peer_max)
        share_peer_max(&table);
    sort(&table);
    struct output summary;
    bool summarize = o.summary && !stage.plan;
    if (summarize)
        write_summary(&summary, &o, &table);
    if (!stage.quiet)
        warn_of_w2(&table, &o);
    if (!stage.quiet)
        tell_raw(&table);
    if (filled && !stage.quiet)
        tell_filled(&table, &o, filled);

    struct ts_out *out = ts_create(&stage, in, table.toc);
    if (!stage.plan)
        write_entries(out, &table);
    json_t *scale = o.input_scale > 0 ? json_real(o.input_scale) : NULL;
    ts_finish(out, in,
              json_pack("{s:I, s:I, s:I, s:I, s:s, s:s*, s:o*, s:s*, s:o*, s:o*}", "amaxes",
                        (json_int_t)table.count, "fused", (json_int_t)fused, "input_fallback",
                        (json_int_t)(filled - table.drafts), "drafts_fallback",
                        (json_int_t)table.drafts, "fallback", o.fallback, "w2",
                        kind_of_w2(&table, &o), "input_scale", scale, "from",
                        table.exact && !scale ? "checkpoint" : NULL, "headroom",
                        o.headroom ? json_true() : NULL, "input_scales",
                        effective_of(&table, &o, stage.plan)));
    if (summarize)
        output_finish(&summary);
    free_table(&table);
    return stage_end(&stage);
}
