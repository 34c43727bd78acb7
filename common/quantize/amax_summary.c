#include "quantize/amax_summary.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"

static int by_amax(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A line of the digest: a layer, a projection and a kind. */
struct line {
    const struct amax_entry *first;
    size_t count, filled;
    double *amax;
};

/* The entries' lines in the order of their first ones; the caller frees them, and each one's
 * amaxes.
 */
static struct line *gather_lines(const struct amax_table *table, size_t *count)
{
    struct line *lines = xalloc(2 * table->kinds, sizeof *lines);
    *count = 0;
    for (size_t i = 0; i < table->count; i++) {
        const struct amax_entry *entry = &table->entry[i];
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

static void write_digest(FILE *out, enum report form, const struct amax_table *table)
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

static bool is_fp8(const struct amax_table *table, const struct amax_entry *entry)
{
    char module[TENSOR_NAME_MAX + 1];
    return table->recipe && model_module(table->model, &entry->place, module) &&
           recipe_choice(table->recipe, module).per_tensor;
}

static void write_quantizer(FILE *out, enum report form, const struct amax_table *table,
                            const struct amax_entry *entry)
{
    const bool fp8 = is_fp8(table, entry);
    char *name = xstrdup(amax_table_name(table, entry));
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

void amax_summary_write(struct output *file, const char *path, enum report form,
                        const struct amax_table *table)
{
    output_open(file, path);
    FILE *out = fdopen(dup(file->fd), "w");
    if (!out)
        die_errno("%s", path);
    for (size_t i = 0; i < table->count; i++)
        if (!table->entry[i].is_tokens)
            write_quantizer(out, form, table, &table->entry[i]);
    for (size_t i = 0; i < table->disabled_count; i++)
        write_disabled(out, form, table->disabled[i]);
    write_digest(out, form, table);
    if (ferror(out) || fclose(out))
        die_errno("%s", path);
}
