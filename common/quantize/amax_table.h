/* amax_table.h: the amaxes of a calibration, and how many tokens reached each expert, as a table
 * that is merged, filled in and written. */
#ifndef AMAX_TABLE_H
#define AMAX_TABLE_H

#include "base/names.h"
#include "quantize/amax.h"
#include "quantize/recipe.h"

/* An amax, or the number of tokens that reached an expert. Its name is in the table of contents. */
struct amax_entry {
    bool is_tokens;
    bool filled;              /* by the fallback rule */
    uint8_t which;            /* enum amax_which: AMAX_INPUT or AMAX_WEIGHT */
    struct place place;       /* of the matrix */
    struct amax_peers *peers; /* of a routed expert; NULL for other matrices */
    union {
        double amax;
        int64_t tokens;
    };
};

/* One matrix of all the experts of one layer. */
struct amax_peers {
    struct amax_peers *next;
    struct place place; /* of one of them */
    double input_amax;  /* the largest of those that tokens reached; 0 if none */
    uint32_t reached;   /* how many have an input amax without being filled in ... */
    uint32_t wanted;    /* ... and how many need one */
    size_t line[2];     /* of the digest, of weights' amaxes and of inputs': 1 + its number */
};

/* What the fallback rules take from all layers for a matrix. */
struct amax_trunk {
    const struct amax_peers *last; /* in the last calibrated layer; NULL if there is none */
    double largest;                /* input amax of any layer but MTP's */
};

struct amax_table {
    struct model *model;   /* owned; to be set before the first entry */
    struct recipe *recipe; /* owned: which of the model's matrices count; NULL: not known */
    bool exact; /* amaxes are F64, so that they give the input scales that they come from */
    struct amax_entry *entry;
    size_t count, capacity;
    struct toc *toc;                    /* parallel to entry[]: their names */
    struct amax_peers *peers;           /* most recently found first */
    struct names *places;               /* theirs ... */
    struct amax_peers **by_place;       /* ... by number */
    size_t kinds;                       /* how many there are */
    struct amax_trunk trunk[GROUP_MAX]; /* by matrix; after amax_find_largest() */
    char **disabled; /* quantizers that the reference has, too, in the model's order */
    size_t disabled_count;
};

/* An empty table. amax_table_free() frees its content. */
void amax_table_init(struct amax_table *table);
void amax_table_free(struct amax_table *table);

/* Append an entry, all zeros, under its whole name; or an amax of a module. Entries move when
 * others are appended. */
struct amax_entry *amax_table_append(struct amax_table *table, const char *name, enum dtype dtype);
struct amax_entry *amax_table_add(struct amax_table *table, const char *module,
                                  enum amax_which which, double amax);

/* The amax of a module; NULL if there is none. */
struct amax_entry *amax_table_find(struct amax_table *table, const char *module,
                                   enum amax_which which);

/* The name of an entry of the table. */
const char *amax_table_name(const struct amax_table *table, const struct amax_entry *entry);

/* The peers of a matrix of a routed expert, which are added if they are new; NULL for others. */
struct amax_peers *amax_table_peers(struct amax_table *table, const struct place *place);

/* Sort the entries, and their names with them, into the model's order. */
void amax_table_sort(struct amax_table *table);

#endif
