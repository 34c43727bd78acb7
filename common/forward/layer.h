/* layer.h: what a layer consists of: its family's table of pieces, checked against a stream's
 * table, and loaded one by one. */
#ifndef LAYER_H
#define LAYER_H

#include "forward/linear.h"
#include "forward/network.h"

enum piece_kind {
    PIECE_ABSENT,
    PIECE_LINEAR, /* a product whose activations may be quantized */
    PIECE_EXPERT, /* the same, of an expert that every token goes through */
    PIECE_MATRIX, /* a product of activations as they are, with a result in F32 or BF16 */
    PIECE_VECTOR, /* numbers, kept in F32 */
    PIECE_TABLE,  /* numbers of experts, by token id */
};

/* What a tensor must be, and what it became on the device. */
struct piece {
    enum piece_kind kind;
    const char *name;    /* after the layer's prefix */
    uint64_t rows, cols; /* elements */
    uint64_t groups;     /* of a product's rows, each with its own columns of the input; 0 is 1 */

    bool present;         /* it was loaded: */
    struct linear linear; /* linear, expert and matrix */
    struct mat vector;    /* [rows, cols] F32 */
    int32_t *table;       /* [rows, cols] */
};

/* The matrices of a routed expert, in the order of use. */
enum { EXPERT_GATE, EXPERT_UP, EXPERT_DOWN, EXPERT_MATRICES };

/* A layer's routed experts. Their tensors are PREFIX NAME NUMBER.MATRIX.weight. */
struct expert_pieces {
    uint64_t count, used; /* all, and those of one token; no count: the layer has none */
    const char *name, *matrix[EXPERT_MATRICES];
    uint64_t dim, inner; /* columns of gate's and up's input, and of down's */
    float limit;         /* see device.h, swiglu() */
};

struct layer {
    const struct network *network;
    uint64_t number;
    char *prefix;        /* "layers.3."; "" for what lies outside of layers */
    struct piece *piece; /* [network->pieces] in the order of use, as the family numbers them */
    struct expert_pieces experts;
    struct mat seen; /* of all its linears, [network->pieces, SEEN] F32 */
};

/* What layer `number`, or LAYER_HEAD, is made of; nothing is loaded yet. */
void layer_begin(const struct network *n, struct layer *layer, uint64_t number);
void layer_end(struct layer *layer);

/* For families, which describe a layer: one of its pieces. */
void layer_piece(struct layer *layer, size_t piece, enum piece_kind kind, const char *name,
                 uint64_t rows, uint64_t cols);

/* The names of expert `number` ("layers.3.ffn.experts.7"), and of the module of one of its
 * matrices; the caller frees them. */
char *layer_expert(const struct layer *layer, uint64_t number);
char *layer_expert_module(const struct layer *layer, uint64_t number, unsigned matrix);

/* See that all its tensors, its experts' too, are in the table of `in` in the right shape; or the
 * process ends. */
void layer_check(const struct layer *layer, struct ts_in *in, const struct weights *weights);

/* The piece that the tensor of that name is; network->pieces if there is none. */
size_t layer_find(const struct layer *layer, const char *tensor);

/* A tensor to its place on the device. A NaN or infinity in a vector, and an expert in a table that
 * there is not, ends the process. */
void layer_load(struct layer *layer, size_t piece, enum arithmetic arithmetic,
                const struct raw_weight *from);

/* With pieces that were loaded: linear_apply(), and device.h's rms_norm() with network->norm_eps.
 */
void layer_apply(struct layer *layer, size_t piece, struct mat y, struct mat x);
void layer_norm(const struct layer *layer, size_t piece, struct mat y, struct mat x);

#endif
