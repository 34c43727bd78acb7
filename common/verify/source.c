#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buffer.h"
#include "base/die.h"
#include "base/text.h"
#include "model/weights.h"
#include "stream/difference.h"
#include "verify/checks.h"

enum {
    PART = 4096,     /* bytes of a tensor in a sample, at its begin, middle and end */
    WHOLE = 1 << 16, /* tensors up to this size are compared whole … */
    PIECE = 4 << 20, /* … larger ones, with --values, in pieces */
    ROWS = 3,        /* of a matrix in a sample */
};

/* The least ratio of signal to error of a packed matrix, in dB. NVFP4 leaves about 20; what has
 * another matrix's codes or scales, about 0. */
static const double sqnr_least = 10;

struct against {
    struct folder *folder;
    struct checkpoint *source;
    struct weights weights; /* of the source */
    struct facts *facts;
    struct buffer a, b; /* the source's bytes, and the folder's */
};

static void read_source(struct against *against, size_t line, uint64_t at, void *data, size_t size)
{
    struct checkpoint *source = against->source;
    const struct tensor *tensor = &source->toc->tensor[line];
    sources_read(&source->sources, source->shard_source[tensor->shard], source->offset[line] + at,
                 data, size, tensor->name);
}

/* ---- tensors that passed through ---- */

static bool same_part(struct against *against, size_t line, size_t own, uint64_t at, size_t size)
{
    void *a = buffer_room(&against->a, size), *b = buffer_room(&against->b, size);
    read_source(against, line, at, a, size);
    folder_read(against->folder, own, at, b, size);
    return !memcmp(a, b, size);
}

static bool same_bytes(struct against *against, size_t line, size_t own, bool all)
{
    uint64_t size = against->source->toc->tensor[line].size;
    if (!all && size > WHOLE)
        return same_part(against, line, own, 0, PART) &&
               same_part(against, line, own, size / 2, PART) &&
               same_part(against, line, own, size - PART, PART);
    for (uint64_t at = 0; at < size; at += PIECE)
        if (!same_part(against, line, own, at, (size_t)at_most(size - at, PIECE)))
            return false;
    return true;
}

/* The line of the folder's tensor X.weight, for a tensor of module X; -1 if there is none. */
static int64_t weight_line(const struct toc *names, struct toc *toc, size_t line)
{
    char module[TENSOR_NAME_MAX + 1];
    weight_module(&names->tensor[line], module);
    char *name = xprintf("%s.weight", module);
    int64_t found = toc_find(toc, name);
    free(name);
    return found;
}

/* True if the line's matrix has another form in the other table: it was converted. */
static bool is_converted(const struct toc *from, struct toc *to, size_t line)
{
    int64_t other = weight_line(from, to, line);
    if (other < 0)
        return false;
    int64_t own = toc_find((struct toc *)from, to->tensor[other].name);
    return own >= 0 && !tensor_same_form(&from->tensor[own], &to->tensor[other]);
}

static void compare_tensors(struct against *against, bool all)
{
    struct toc *from = against->source->toc, *to = against->folder->toc;
    for (size_t i = 0; i < from->count; i++) {
        const struct tensor *tensor = &from->tensor[i];
        int64_t own = toc_find(to, tensor->name);
        bool same_form = own >= 0 && tensor_same_form(tensor, &to->tensor[own]);
        if (is_converted(from, to, i))
            continue;
        if (!same_form)
            facts_add(against->facts, FACT_PASSED, "%s: %s", tensor->name,
                      own < 0 ? "the source has it, this has not"
                              : "has another form than in the source");
        else if (!same_bytes(against, i, (size_t)own, all))
            facts_add(against->facts, FACT_PASSED, "%s: its bytes are not the source's",
                      tensor->name);
    }
    for (size_t i = 0; i < to->count; i++)
        if (toc_find(from, to->tensor[i].name) < 0 && !is_converted(to, from, i))
            facts_add(against->facts, FACT_PASSED, "%s: the source has no such tensor",
                      to->tensor[i].name);
}

/* ---- values of converted matrices ---- */

/* The scales of a matrix of the source; scales_free() frees them. */
static void take_source_scales(struct against *against, const struct weight *w,
                               struct scales *scales)
{
    *scales = (struct scales){0};
    if (w->scale == WEIGHT_NONE)
        return;
    const struct tensor *tensor = &against->source->toc->tensor[w->scale];
    void *raw = xalloc((size_t)tensor->size, 1);
    read_source(against, w->scale, 0, raw, (size_t)tensor->size);
    scales_set(scales, w, tensor, raw);
}

static void take_own_scales(struct against *against, const struct nvfp4 *matrix,
                            struct scales *scales)
{
    const struct tensor *tensor = &against->folder->toc->tensor[matrix->weight.scale];
    *scales = (struct scales){
        .raw = xalloc((size_t)tensor->size, 1), .scale_2 = matrix->scale_2, .cols = tensor->dim[1]};
    folder_read(against->folder, matrix->weight.scale, 0, scales->raw, (size_t)tensor->size);
}

/* The first, middle and last row of both, as BF16. */
static struct difference compare_rows(struct against *against, const struct nvfp4 *matrix,
                                      const struct weight *w)
{
    const struct weight *own = &matrix->weight;
    const struct tensor *x = &against->source->toc->tensor[w->line];
    const struct tensor *y = &against->folder->toc->tensor[own->line];
    size_t x_bytes = (size_t)weight_row_bytes(w, x), y_bytes = (size_t)weight_row_bytes(own, y);
    uint16_t *a = xalloc((size_t)w->cols, sizeof *a), *b = xalloc((size_t)w->cols, sizeof *b);
    void *raw_a = buffer_room(&against->a, x_bytes), *raw_b = buffer_room(&against->b, y_bytes);
    struct scales scales_a, scales_b;
    struct difference difference = {0};
    take_source_scales(against, w, &scales_a);
    take_own_scales(against, matrix, &scales_b);
    for (uint64_t i = 0; i < ROWS; i++) {
        uint64_t row = (w->rows - 1) * i / (ROWS - 1);
        read_source(against, w->line, row * x_bytes, raw_a, x_bytes);
        folder_read(against->folder, own->line, row * y_bytes, raw_b, y_bytes);
        weight_rows(w, x, &scales_a, row, 1, raw_a, a);
        weight_rows(own, y, &scales_b, row, 1, raw_b, b);
        difference_add(&difference, DTYPE_BF16, a, DTYPE_BF16, b, (size_t)w->cols, false);
    }
    scales_free(&scales_a);
    scales_free(&scales_b);
    free(a);
    free(b);
    return difference;
}

static void compare_matrix(struct against *against, const struct nvfp4 *matrix)
{
    const char *name = against->folder->toc->tensor[matrix->weight.line].name;
    int64_t line = toc_find(against->source->toc, name);
    const struct weight *w = line < 0 ? NULL : weight_of(&against->weights, (size_t)line);
    if (!w || w->format == FORMAT_NVFP4 || !w->rows)
        return; /* compared as a tensor */
    if (w->rows != matrix->weight.rows || w->cols != matrix->weight.cols) {
        facts_add(against->facts, FACT_VALUES, "%s: has other dimensions than in the source", name);
        return;
    }
    struct difference difference = compare_rows(against, matrix, w);
    if (difference.differing && !(difference.noise <= 0) &&
        !(difference_sqnr(&difference) >= sqnr_least))
        facts_add(against->facts, FACT_VALUES,
                  "%s: its values are not the source's: signal to error %.1f dB", name,
                  difference_sqnr(&difference));
    difference_clear(&difference);
}

void check_source(struct folder *folder, const struct nvfp4s *all, struct checkpoint *source,
                  bool every, struct facts *facts)
{
    struct against against = {.folder = folder, .source = source, .facts = facts};
    weights_find(&against.weights, source->model, source->toc, source->folder);
    compare_tensors(&against, every);
    for (size_t i = 0; i < all->count; i++)
        if (every || all->of[i].sampled)
            compare_matrix(&against, &all->of[i]);
    weights_free(&against.weights);
    free(against.a.data);
    free(against.b.data);
}

/* ---- side files ---- */

/* True if a file of that name belongs to the model, in whatever format its weights are. */
static bool is_needed(const char *name)
{
    return starts_with(name, "tokenizer") || starts_with(name, "chat_template") ||
           starts_with(name, "LICENSE") || !strcmp(name, "generation_config.json") ||
           !strcmp(name, "special_tokens_map.json");
}

/* True if the folder's file has those bytes. */
static bool has_bytes(const struct folder *folder, const struct side_file *file)
{
    char *path = xprintf("%s/%s", folder->path, file->name), *own = NULL;
    size_t size = 0;
    struct stat status;
    FILE *in =
        file->data && !stat(path, &status) && S_ISREG(status.st_mode) ? fopen(path, "r") : NULL;
    if (in) {
        own = xalloc((size_t)file->size + 1, 1);
        size = fread(own, 1, (size_t)file->size + 1, in);
        fclose(in);
    }
    bool same = in && size == file->size && !memcmp(own, file->data, size);
    free(own);
    free(path);
    return same;
}

void check_side_files(const struct folder *folder, struct checkpoint *source, struct facts *facts)
{
    static const char *const always[] = {"tokenizer.json", "generation_config.json"};
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        if (!folder_has(folder, always[i]))
            facts_add(facts, FACT_SIDE_FILE, "there is no %s", always[i]);
    if (folder_has(folder, "inference"))
        facts_add(facts, FACT_DESCRIBES_SOURCE,
                  "inference/ is the source's code, which does not read this format");
    for (size_t i = 0; source && i < source->files; i++) {
        const struct side_file *file = &source->file[i];
        if (is_needed(file->name) && strcmp(file->name, always[0]) != 0 &&
            strcmp(file->name, always[1]) != 0 && !folder_has(folder, file->name))
            facts_add(facts, FACT_SIDE_FILE, "the source has %s, this has not", file->name);
        if (!strcmp(file->name, "README.md") && has_bytes(folder, file))
            facts_add(facts, FACT_DESCRIBES_SOURCE, "README.md is the source's");
    }
}
