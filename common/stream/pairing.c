#include "stream/pairing.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/text.h"

/* The lines of a table that are compared, in order, and for each the index of its mate on the other
 * side, or PAIRING_NONE. */
struct side {
    struct ts_in *in;
    uint32_t *line, *mate;
    uint32_t count;
};

static const char *name_of(const struct side *side, uint32_t i)
{
    return ts_toc(side->in)->tensor[side->line[i]].name;
}

static struct side select_lines(const struct pairing_side *side, struct ts_in *other, bool common,
                                bool numbers)
{
    struct toc *toc = ts_toc(side->in);
    struct side selected = {.in = side->in,
                            .line = xalloc(toc->count, sizeof *selected.line),
                            .mate = xalloc(toc->count, sizeof *selected.mate)};
    for (size_t i = 0; i < toc->count; i++) {
        struct tensor form;
        const char *name = toc->tensor[i].name;
        bool optional = common || (numbers && ends_with(name, ".input_scale"));
        if (!elements_form_of(side->elements, i, &form) ||
            (optional && toc_find(ts_toc(other), name) < 0))
            continue;
        selected.mate[selected.count] = PAIRING_NONE;
        selected.line[selected.count++] = (uint32_t)i;
    }
    return selected;
}

struct named {
    const char *name;
    uint32_t index;
};

static int by_name(const void *left, const void *right)
{
    const struct named *a = left, *b = right;
    int difference = strcmp(a->name, b->name);
    return difference ? difference : a->index < b->index ? -1 : 1;
}

static struct named *sorted_names(const struct side *side)
{
    struct named *names = xalloc(side->count, sizeof *names);
    for (uint32_t i = 0; i < side->count; i++)
        names[i] = (struct named){name_of(side, i), i};
    qsort(names, side->count, sizeof *names, by_name);
    return names;
}

static void find_mates(struct side *a, struct side *b)
{
    struct named *x = sorted_names(a), *y = sorted_names(b);
    for (uint32_t i = 0, j = 0; i < a->count && j < b->count;) {
        int order = strcmp(x[i].name, y[j].name);
        if (order == 0) {
            a->mate[x[i].index] = y[j].index;
            b->mate[y[j].index] = x[i].index;
        }
        i += order <= 0;
        j += order >= 0;
    }
    free(x);
    free(y);
}

/* The order is the model's (model.h), and the model is config.json's. */
static void refuse_models(const struct side *a, const struct side *b)
{
    const char *of_a = model_type(ts_model(a->in)), *of_b = model_type(ts_model(b->in));
    if (strcmp(of_a, of_b) != 0)
        die("%s is of model type %s, and %s of %s, so their tensors come in different orders; put "
            "the right config.json into %s",
            ts_name(a->in), *of_a ? of_a : "no known one (its config.json is missing or wrong)",
            ts_name(b->in), *of_b ? of_b : "no known one (its config.json is missing or wrong)",
            ts_name(*of_a ? b->in : a->in));
}

/* A stream brings its tensors once, in order, so those of both sides must be in the same order. */
static void check_order(const struct side *a, const struct side *b)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->mate[i] == PAIRING_NONE)
            continue;
        if (a->mate[i] < next) {
            refuse_models(a, b);
            die("%s and %s hold their tensors in different orders: in %s, %s comes before %s; make "
                "one of them again with st-read and st-write",
                ts_name(a->in), ts_name(b->in), ts_name(b->in), name_of(a, i),
                name_of(b, next - 1));
        }
        next = a->mate[i] + 1;
    }
}

struct pair *pairs_of(const struct pairing_side *of_a, const struct pairing_side *of_b, bool common,
                      bool numbers, size_t *count)
{
    struct side a = select_lines(of_a, of_b->in, common, numbers);
    struct side b = select_lines(of_b, of_a->in, common, numbers);
    find_mates(&a, &b);
    check_order(&a, &b);
    struct pair *pair = xalloc((size_t)a.count + b.count, sizeof *pair);
    *count = 0;
    for (uint32_t i = 0, j = 0; i < a.count || j < b.count;) {
        bool only_a = i < a.count && a.mate[i] == PAIRING_NONE;
        bool only_b = !only_a && j < b.count && b.mate[j] == PAIRING_NONE;
        pair[(*count)++] = (struct pair){.a = only_b ? PAIRING_NONE : a.line[i],
                                         .b = only_a ? PAIRING_NONE : b.line[j]};
        i += !only_b;
        j += !only_a;
    }
    free(a.line);
    free(a.mate);
    free(b.line);
    free(b.mate);
    return pair;
}
