/* layer.h: what a layer consists of: its family's table of pieces, checked against a stream's table
 * and loaded one by one. */
#ifndef LAYER_H
#define LAYER_H

#include "forward/linear.h"
#include "forward/network.h"
#include "forward/row_table.h"

enum piece_kind {
    PIECE_ABSENT,
    PIECE_LINEAR, /* a product whose activations may be quantized */
    PIECE_EXPERT, /* the same, of a shared expert */
    PIECE_MATRIX, /* a product of unquantized activations, with a result in F32 or BF16 */
    PIECE_VECTOR, /* values, kept in F32 */
    PIECE_TABLE,  /* expert numbers, by token id */
    PIECE_ROWS,   /* rows that the family reads by number; see network.h, rows */
    PIECE_UNUSED, /* may be there, but text does not need it */
};

/* What a tensor must be, and what it is on the device. */
struct piece {
    enum piece_kind kind;
    const char *name;    /* after the layer's prefix */
    uint64_t rows, cols; /* elements */
    struct cut cut;      /* of a product; 0 groups mean 1 */

    bool present;         /* loaded: */
    struct linear linear; /* linear, expert and matrix */
    struct mat vector;    /* [rows, cols] F32 */
    int32_t *table;       /* [rows, cols] */
    struct row_table by_number;
};

/* The matrices of a routed expert, in the order of use. */
enum { EXPERT_GATE, EXPERT_UP, EXPERT_DOWN, EXPERT_MATRICES };

/* A layer's routed experts. Their tensors are PREFIX NAME NUMBER.MATRIX.weight. */
struct expert_pieces {
    uint64_t count, used; /* all, and those of one token; count 0: the layer has none */
    const char *name, *matrix[EXPERT_MATRICES];
    uint64_t dim, inner;  /* input columns of gate and up, and of down */
    struct swiglu swiglu; /* see device.h, swiglu() */
    bool weigh_sum;       /* the router's weight multiplies an expert's output where it is added to
                                the others, not down's input */
};

struct layer {
    const struct network *network;
    uint64_t number;
    char *prefix;        /* "layers.3."; "" for tensors outside layers */
    struct piece *piece; /* [network->pieces], numbered by the family in the order of use */
    struct expert_pieces experts;
    struct mat seen;       /* amaxes of its linears, [network->pieces, SEEN] F32 */
    struct inputs *inputs; /* what else is recorded of them, by piece; NULL: nothing */
};

/* Describe layer `number`, or LAYER_HEAD; nothing is loaded yet. Before the network's begin(), a
 * layer can only be checked. */
void layer_begin(const struct network *n, struct layer *layer, uint64_t number);
void layer_end(struct layer *layer);

/* For a family's describe(): set one of the layer's pieces. */
void layer_piece(struct layer *layer, size_t piece, enum piece_kind kind, const char *name,
                 uint64_t rows, uint64_t cols);

/* The name of expert `number` ("layers.3.ffn.experts.7"), and the module of one of its matrices;
 * the caller frees them. */
char *layer_expert(const struct layer *layer, uint64_t number);
char *layer_expert_module(const struct layer *layer, uint64_t number, unsigned matrix);

/* Check that the table of `in` has all the layer's tensors, its experts' included, in the right
 * shapes; end the process if not. */
void layer_check(const struct layer *layer, struct ts_in *in, const struct weights *weights);

/* The piece that a tensor's name stands for; network->pieces if none. */
size_t layer_find(const struct layer *layer, const char *tensor);

/* Load a tensor to the device as a piece, for the arithmetic of `run`. A NaN or infinity in a
 * vector, and an expert number out of range in a table, end the process. */
void layer_load(struct layer *layer, size_t piece, const struct forward *run,
                const struct raw_weight *from);

/* linear_apply(), with all seen or what is said, and device.h's rms_norm() with network->norm_eps,
 * with a loaded piece. */
void layer_apply(struct layer *layer, size_t piece, struct mat y, struct mat x);
void layer_apply_seeing(struct layer *layer, size_t piece, struct mat y, struct mat x,
                        enum sees sees);
void layer_norm(const struct layer *layer, size_t piece, struct mat y, struct mat x);

#endif
