#include "quantize/amax_reader.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/text.h"
#include "tensor/e4m3.h"
#include "tensor/nvfp4.h"

/* Model Optimizer 0.45 to 0.47 also measures the codes of FP8 weights without their scales, which
 * gives 448, the largest there is, for all. A weight whose amax is 448 loses nothing: nvfp4-pack
 * and fp8-pack find it again. */
static bool is_of_codes(struct amax_reader *reader, enum amax_which which, float amax)
{
    bool raw = which == AMAX_WEIGHT && amax == E4M3_MAX && !reader->trust;
    reader->raw += raw;
    return raw;
}

static bool has(const struct amax_table *table, struct ts_in *in, const char *module,
                enum amax_which which)
{
    char *name = amax_name(table->model, module, which);
    bool found = toc_find(ts_toc(in), name) >= 0;
    free(name);
    return found;
}

/* An input has amaxes with headroom and without: of those that --headroom asks for, or not,
 * there may be two again, and --w2 chooses. A single one is taken always. */
static bool is_chosen(struct amax_reader *reader, struct ts_in *in, const char *module,
                      enum amax_which which)
{
    static const enum amax_which other[] = {[AMAX_INPUT] = AMAX_ENGINE_INPUT,
                                            [AMAX_ENGINE_INPUT] = AMAX_INPUT,
                                            [AMAX_HEADROOM] = AMAX_ENGINE_HEADROOM,
                                            [AMAX_ENGINE_HEADROOM] = AMAX_HEADROOM};
    bool engine = which == AMAX_ENGINE_INPUT || which == AMAX_ENGINE_HEADROOM;
    bool headroom = which == AMAX_HEADROOM || which == AMAX_ENGINE_HEADROOM;
    if (which == AMAX_WEIGHT)
        return true;
    if (reader->headroom && !has(reader->table, in, module, AMAX_HEADROOM))
        die("%s: %s has no input amax with headroom; amax-calib --headroom records it", ts_name(in),
            module);
    if (headroom != reader->headroom)
        return false;
    bool both = has(reader->table, in, module, other[which]);
    bool chosen = !both || engine == !strcmp(reader->w2, "engine");
    struct place place = model_place(reader->table->model, module);
    if (chosen && place_is_routed(&place) && model_is_last_matrix(reader->table->model, &place) &&
        model_weighs_early(reader->table->model))
        *(both ? &reader->both : &reader->one) += 1;
    return chosen;
}

/* Of matrices that are no routed experts, each rank has an amax: the largest counts. */
static bool is_shared(struct amax_table *table, const char *module, enum amax_which which,
                      float amax)
{
    struct place place = model_place(table->model, module);
    struct amax_entry *entry =
        place_is_routed(&place) ? NULL : amax_table_find(table, module, which);
    if (entry)
        entry->amax = fmax(entry->amax, amax);
    return entry != NULL;
}

static void append_chosen(struct amax_reader *reader, struct ts_in *in, const char *module,
                          enum amax_which which, float amax)
{
    if (is_of_codes(reader, which, amax) || !is_chosen(reader, in, module, which))
        return;
    which = which == AMAX_WEIGHT ? AMAX_WEIGHT : AMAX_INPUT;
    if (!is_shared(reader->table, module, which, amax))
        amax_table_add(reader->table, module, which, amax);
}

static void read_entry(struct amax_reader *reader, struct ts_in *in)
{
    const struct tensor *tensor = ts_present(in);
    char module[TENSOR_NAME_MAX + 1];
    if (amax_is_tokens(tensor)) {
        struct amax_entry *entry = amax_table_append(reader->table, tensor->name, DTYPE_I64);
        entry->is_tokens = true;
        ts_read(in, &entry->tokens, sizeof entry->tokens);
        return;
    }
    enum amax_which which;
    float amax = (float)amax_read(reader->table->model, in);
    amax_key(reader->table->model, tensor->name, module, &which);
    append_chosen(reader, in, module, which, amax);
}

/* A tensor of a checkpoint: the input scale of a matrix in NVFP4, or nothing. */
static void read_scale(struct amax_table *table, struct ts_in *in)
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
        amax_table_add(table, module, AMAX_INPUT, nvfp4_amax(scale));
    }
    free(other);
    free(module);
}

/* The entries that a calibration will have. Their values decide nothing in a plan. */
static void read_planned(struct amax_reader *reader, struct ts_in *in)
{
    const struct toc *toc = ts_toc(in);
    char module[TENSOR_NAME_MAX + 1];
    enum amax_which which;
    for (size_t i = 0; i < toc->count; i++)
        if (amax_is_tokens(&toc->tensor[i]))
            amax_table_append(reader->table, toc->tensor[i].name, DTYPE_I64)->is_tokens = true;
        else if (amax_key(reader->table->model, toc->tensor[i].name, module, &which))
            append_chosen(reader, in, module, which, 1);
}

/* A stream that was merged before says which amaxes of w2's input it has; others, Model
 * Optimizer's, have the reference's. */
static void find_kind(struct amax_reader *reader, struct ts_in *in)
{
    size_t i;
    json_t *stage;
    json_array_foreach(ts_end_counts(in), i, stage)
    {
        const char *w2 = json_string_value(json_object_get(stage, "w2"));
        if (w2)
            reader->one_is = strcmp(w2, "engine") ? "reference" : "engine";
    }
}

void amax_reader_take(struct amax_reader *reader, struct ts_in *in, bool plan)
{
    bool checkpoint = ts_file_find(in, "config.json") >= 0;
    size_t before = reader->table->count;
    if (before && checkpoint != reader->table->exact)
        die("%s: a checkpoint and a calibration do not go together; give one of them", ts_name(in));
    if (checkpoint && reader->headroom)
        die("%s: a checkpoint has no input amaxes with headroom; a calibration by amax-calib "
            "--headroom does",
            ts_name(in));
    reader->table->exact = checkpoint;
    while (ts_next(in))
        if (checkpoint)
            read_scale(reader->table, in);
        else
            read_entry(reader, in);
    find_kind(reader, in);
    if (ts_plan_only(in) && (checkpoint || !plan))
        die("%s: is a plan only, without values", ts_name(in));
    if (ts_plan_only(in))
        read_planned(reader, in);
    if (checkpoint && reader->table->count == before)
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
static void check_collisions(const struct amax_table *table)
{
    for (size_t i = 0; i < table->count; i++)
        if (toc_find(table->toc, amax_table_name(table, &table->entry[i])) != (int64_t)i)
            die("%s: comes from two ranks; experts are divided among ranks, so these dumps do not "
                "belong together",
                amax_table_name(table, &table->entry[i]));
}

void amax_reader_check(const struct amax_reader *reader, char **shard, size_t count)
{
    check_ranks(shard, count);
    check_collisions(reader->table);
}

const char *amax_reader_w2(const struct amax_reader *reader)
{
    return reader->both ? reader->w2 : reader->one ? reader->one_is : NULL;
}
