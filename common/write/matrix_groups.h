/* matrix_groups.h: the matrices of a table as people describe them: by the place that they have in
 * each layer, and by format. */
#ifndef MATRIX_GROUPS_H
#define MATRIX_GROUPS_H

#include "base/names.h"
#include "tensor/toc.h"

enum { MATRIX_GROUPS_MAX = 100 };

/* Matrices of one format that have the same place in their layers. */
struct matrix_group {
    char *path;         /* "layers.*.ffn.experts.*"; "" at the top */
    const char *format; /* static */
    struct names *names;
    char *list; /* the names, "w1, w3, w2" */
    size_t matrices;
};

/* The groups of a table, in its order; returns their number. All matrices beyond
 * MATRIX_GROUPS_MAX groups are in the last one. matrix_groups_free() frees what they hold. */
size_t matrix_groups(const struct toc *toc, struct matrix_group group[MATRIX_GROUPS_MAX]);
void matrix_groups_free(struct matrix_group *group, size_t count);

#endif
