/* device.h: the seam between a model's forward pass and what executes it.
 *
 * The forward pass sees matrices that belong to a device, and operations on them, which the device
 * executes in the order of the calls. Only read() waits, so it is the only way to see a result. A
 * device is a table of functions. Its threads, streams, layouts and instructions do not show here;
 * the same calls on the same device give the same bytes for any number of threads.
 *
 * Arithmetic is F32, and each operation rounds; the device chooses the order of sums. A result in a
 * BF16 matrix is rounded to nearest even. "BF16 steps" means that each named step is rounded to
 * BF16, as in a chain of PyTorch operations on BF16 tensors.
 *
 * Rows are independent: a row gives the same bits whatever else is in the matrix and wherever it
 * stands. So results do not depend on how samples are batched. */
#ifndef DEVICE_H
#define DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/dtype.h"
#include "tensor/weight.h"

/* A matrix, or a view of some of its rows and columns: rows x cols elements, row-major. Passed by
 * value. A vector is a matrix of one column or one row, as the operation says. */
struct mat {
    void *at; /* an address in the device's memory; only the device dereferences it */
    uint64_t rows, cols;
    uint64_t stride;  /* elements from one row to the next */
    enum dtype dtype; /* BF16, F32, I32 or I64; U8 for a weight's bytes as stored in a checkpoint */
};

/* Views: `count` rows or columns from `first` on, and a contiguous matrix reshaped to rows of
 * `cols` elements. */
struct mat mat_rows(struct mat m, uint64_t first, uint64_t count);
struct mat mat_cols(struct mat m, uint64_t first, uint64_t count);
struct mat mat_shaped(struct mat m, uint64_t cols);

/* The bytes of m's columns as elements of another type. */
struct mat mat_as(struct mat m, enum dtype dtype);

/* Bytes of a matrix, which must be contiguous. */
size_t mat_bytes(struct mat m);

struct device;

/* A column of numbers on the device, I32, which the caller drops; frees value[count]. */
struct mat mat_numbers(struct device *d, int32_t *value, uint64_t count);

/* Round a matrix in F32 to BF16, in place. */
void mat_round(struct device *d, struct mat m);

/* A matrix that may not fit into the device's memory: see make_offloaded(). */
struct offloaded {
    struct mat all;
    bool on_host; /* in the host's memory */
};

/* A weight as the right-hand side of products, in the device's own layout. */
struct operand;

/* What an operand has of a matrix: rows first … first + rows - 1, or the transpose of these; or
 * these split, as the right side of a product (see split.h). */
struct operand_part {
    uint64_t first, rows;
    bool transposed, split;
};

/* How the activations of a product are quantized before it. */
enum activation {
    ACTIVATION_BF16, /* not at all */
    ACTIVATION_FP8,  /* E4M3 per 128 columns, scale a power of two: 2^ceil(log2(amax/448)), amax at
                        least 1e-4 */
    ACTIVATION_FP8_32,  /* the same per 32 columns */
    ACTIVATION_FP8_V3,  /* E4M3 per 128 columns, scale amax / 448, amax at least 1e-4. The values
                           are split, see split.h: rows have SPLIT times as many columns */
    ACTIVATION_FP8_V32, /* the same with the scale amax · (1/448), which differs in the last place;
                           so quotients that are ties with one are not with the other */
    ACTIVATION_FP8_V32_ROUNDED, /* the same, but rounded to BF16, not split */
    ACTIVATION_FP4,  /* E2M1 per 32 columns, scale a power of two: 2^ceil(log2(amax/6)), amax at
                        least 6 * 2^-126 */
    ACTIVATION_NVFP4 /* NVFP4 under a given scale_2, see nvfp4.h */
};

/* True if it makes split rows. */
static inline bool activation_splits(enum activation how)
{
    return how == ACTIVATION_FP8_V3 || how == ACTIVATION_FP8_V32;
}

/* How a router turns its logits into scores. */
enum scoring { SCORING_SOFTMAX, SCORING_SIGMOID, SCORING_SQRT_SOFTPLUS };

/* A limit > 0 first clamps gate to at most limit, and up to ±limit. `rounds`: silu(gate) is rounded
 * to BF16. */
struct swiglu {
    float limit;
    bool rounds;
};

/* What swiglu() sees, as max_abs() would: [1, 1] F32 each. `unweighted`: y as it would be without a
 * weight; ignored where there is none. */
struct swiglu_seen {
    struct mat gate, up, unweighted, y;
};

/* The groups that a router chooses from first; count 1: it does not. */
struct expert_groups {
    uint64_t count, used;
};

/* The keys of consecutive samples of tokens. */
struct keys {
    struct mat window;     /* [tokens, width] BF16: each token's own key, which is also its value */
    struct mat compressed; /* [blocks, width] BF16: keys of blocks of tokens; 0 rows for none */
    struct mat scale;      /* [blocks, 1] F32: of compressed keys, for select(); or no rows */
    struct mat position;   /* [tokens, 1] I32: the token's position in its sample */
    struct mat block;      /* [tokens, 1] I32: row in `compressed` of its sample's first block */
    struct mat selected;   /* [tokens, n] I32: which blocks of its sample a token sees, -1 for none;
                              with 0 columns, all blocks that end at or before it */
    uint64_t sliding;      /* size of the sliding window, the token itself included */
    uint64_t ratio;        /* tokens a block */
};

/* What attend() does with its output. If `table` has rows, it rotates it back by the tokens'
 * positions: see rotate(), `inverse`. Then it sees it. */
struct attended {
    struct mat table, seen;
};

/* The columns of each head in a BF16 matrix: head h has `width` from first + h * step on. With a
 * step of 0, all heads share them. */
struct head_cols {
    struct mat of;
    uint64_t first, width, step;
};

/* What attend_causal() works on. Queries and keys consist of two parts, whose products are added:
 * with rounds_parts, each rounded to BF16 before. */
struct causal {
    uint64_t heads;
    struct head_cols q[2], key[2], value;
    bool rounds_parts;
    struct mat position; /* [tokens, 1] I32: the token's position in its sample */
    struct mat first;    /* [tokens, 1] I32: the row of its sample's first token */
    struct mat selected; /* [tokens, n] I32: the only ones that a token sees, by position,
                            ascending, -1 after the last; with 0 columns, all */
    uint64_t longest;    /* tokens of the longest sample */
    float scale;
};
/* Columns that share an NVFP4 scale. */
enum { DEVICE_BLOCK = 16 };

/* The most bytes that acquire_staging() gives at a time; the number of streams besides stream 0. */
enum { DEVICE_PIECE = 16 << 20, DEVICE_STREAMS = 6 };

struct device {
    const char *name;
    unsigned threads;  /* of the host, for what is computed there; 0: one for each processor */
    uint64_t memory;   /* bytes for weights that wait or are in use, unless the user sets them */
    uint64_t room;     /* bytes for offloaded matrices and what is needed along with them */
    uint64_t rows;     /* of matrices outside the experts, unless the user sets them: enough for the
                          operations' full speed */
    bool stages_pages; /* see acquire_staging() */

    void (*close)(struct device *d);

    /* ---- memory ---- */

    /* An uninitialized matrix, which the caller frees with drop(). Ends the process if memory is
     * exhausted. */
    struct mat (*make)(struct device *d, enum dtype dtype, uint64_t rows, uint64_t cols);
    void (*drop)(struct device *d, struct mat m);

    /* Copy a whole contiguous matrix from or to the caller's memory, which the caller may reuse at
     * once. read() waits for all earlier operations. */
    void (*write)(struct device *d, struct mat m, const void *data);
    void (*read)(struct device *d, void *data, struct mat m);

    /* Select the stream for the operations, make() and drop() called from now on; it is 0 at first.
     * Each stream keeps its order. Streams 1 to DEVICE_STREAMS may run concurrently, after all work
     * queued on stream 0 before them. Stream 0 is ordered after all work queued on streams 1 to
     * DEVICE_STREAMS. scatter_add() alone keeps the order of its calls across streams. */
    void (*stream)(struct device *d, unsigned number);

    /* A matrix that stays in the device's memory if `room` holds its bytes and `besides` more. If
     * not, it lies in the host's memory, and operations see some rows at a time: fetch() brings
     * rows from `first` on as last stored, and store() must return the same rows, changed or not,
     * before any of them are fetched again. Stored rows are copied while operations run, and so are
     * rows that fetch_ahead() says will be fetched, in the order of its calls; they must be stored
     * by then. It does nothing if it has said so before. A fetch() of other rows than those said
     * first makes it forget all. In stream 0. */
    struct offloaded (*make_offloaded)(struct device *d, enum dtype dtype, uint64_t rows,
                                       uint64_t cols, uint64_t besides);
    void (*drop_offloaded)(struct device *d, struct offloaded offloaded);
    struct mat (*fetch)(struct device *d, struct offloaded offloaded, uint64_t first,
                        uint64_t rows);
    void (*fetch_ahead)(struct device *d, struct offloaded offloaded, uint64_t first,
                        uint64_t rows);
    void (*store)(struct device *d, struct offloaded offloaded, uint64_t first, struct mat rows);

    /* Weights are uploaded while operations run: acquire_staging() gives memory for `size` bytes of
     * m, a matrix of U8, from its byte `at` on; submit_staging() takes the filled memory back and
     * starts the upload. Any thread may call these two, and make() for U8; an operation waits for
     * what was submitted of its matrices before its call. With stages_pages, the memory begins
     * `phase` bytes into a page of 4096, and the pages at its ends may be overwritten, as O_DIRECT
     * needs. */
    void *(*acquire_staging)(struct device *d, struct mat m, uint64_t at, size_t size,
                             size_t phase);
    void (*submit_staging)(struct device *d, struct mat m, uint64_t at, size_t size, void *staging);

    /* The same, but past the caller's memory; NULL where a device cannot. open_file() takes a file
     * opened with O_DIRECT, which must stay open until close_file(); it returns NULL if it cannot
     * read the file. read_file() acts as acquire_staging(), reading from `offset` on, and
     * submit_staging() would; false if it got fewer bytes. */
    void *(*open_file)(struct device *d, int fd);
    void (*close_file)(struct device *d, void *file);
    bool (*read_file)(struct device *d, struct mat m, uint64_t at, size_t size, void *file,
                      uint64_t offset);

    /* Some rows of a checkpoint's matrix (see weight.h; raw holds all its bytes, U8) as an operand:
     * dequantized to BF16, or in F32 where it is F32. If block scales are a byte each (MXFP4,
     * NVFP4), `scale` holds all their bytes in place of scales->raw; otherwise it is ignored.
     * `amax`, [1, 1] F32, gets the largest magnitude, or NaN or infinity if there is one. */
    struct operand *(*operand)(struct device *d, const struct weight *w,
                               const struct tensor *tensor, const struct scales *scales,
                               struct mat scale, struct mat raw, struct operand_part part,
                               struct mat amax);
    void (*drop_operand)(struct device *d, struct operand *operand);

    /* ---- rows ----
     * `seen`: [1, 1] F32, to see the largest magnitude as max_abs() would without another pass over
     * memory; or no rows. */

    /* y = x, of the same shape, to or from BF16 and F32. */
    void (*copy)(struct device *d, struct mat y, struct mat x);

    /* Row i of y = row index[i] of x; index [rows, 1] I32. BF16. Sees y. */
    void (*gather)(struct device *d, struct mat y, struct mat x, struct mat index, struct mat seen);

    /* Row index[i] of y += row i of x times its weight, with no index twice; y F32, x BF16, weight
     * [rows, 1] F32, or no rows for 1. Sees x. */
    void (*scatter_add)(struct device *d, struct mat y, struct mat x, struct mat index,
                        struct mat weight, struct mat seen);

    /* x *= factor, BF16. */
    void (*scale)(struct device *d, struct mat x, float factor);

    /* Each row of x *= its factor; x BF16, factor [rows, 1] F32. */
    void (*scale_rows)(struct device *d, struct mat x, struct mat factor);

    /* y += x, BF16. */
    void (*add)(struct device *d, struct mat y, struct mat x);

    /* y = x · wᵀ; x BF16, y BF16 or F32. */
    void (*product)(struct device *d, struct mat y, struct mat x, const struct operand *w);

    /* y = x quantized and dequantized; BF16, y may be x unless it is split. Only NVFP4 uses
     * scale_2. Sees x. */
    void (*quantize)(struct device *d, struct mat y, struct mat x, enum activation how,
                     float scale_2, struct mat seen);

    /* y = x quantized to E4M3 with one scale a row, that of ACTIVATION_FP8_V32 or, if `power`,
     * ACTIVATION_FP8, without dequantizing it; factor [rows, 1] F32 *= the scale. BF16. */
    void (*encode)(struct device *d, struct mat y, struct mat x, struct mat factor, bool power);

    /* amax [1, 1] F32 = max(amax, |x|) over all of x (BF16 or F32); NaN and infinity persist. */
    void (*max_abs)(struct device *d, struct mat amax, struct mat x);

    /* For each block of DEVICE_BLOCK columns, add the products of its columns' elements, two by
     * two, summed over rows: moments [cols, DEVICE_BLOCK] F32 has at 16 b + i, j the sum of x's
     * columns 16 b + i and 16 b + j. x BF16.
     * Rows are added one after the other: however they are divided into calls. */
    void (*add_moments)(struct device *d, struct mat moments, struct mat x);

    /* Count the blocks of DEVICE_BLOCK columns of each row by their largest magnitudes: count [1,
     * HEADROOM_BUCKETS] I64, see tensor/headroom.h. x BF16. */
    void (*count_amaxes)(struct device *d, struct mat count, struct mat x);

    /* y = weight · x / rms(x) per row, rms(x) = sqrt(mean(x²) + eps); weight [1, cols] F32. BF16,
     * y may be x. */
    void (*rms_norm)(struct device *d, struct mat y, struct mat x, struct mat weight, float eps);

    /* y = rms_norm() of sum + x, which is not rounded for it; then sum += x. BF16. */
    void (*add_norm)(struct device *d, struct mat y, struct mat sum, struct mat x,
                     struct mat weight, float eps);

    /* y = weight · (x - mean(x)) / sqrt(variance(x) + eps) + bias per row; weight and bias [1,
     * cols] F32. BF16, y may be x. */
    void (*layer_norm)(struct device *d, struct mat y, struct mat x, struct mat weight,
                       struct mat bias, float eps);

    /* x /= rms(x) for each `width` columns separately, in BF16 steps: square, mean, sum with eps,
     * reciprocal root, product. Sees x as it was. */
    void (*unit)(struct device *d, struct mat x, uint64_t width, float eps, struct mat seen);

    /* Rotate the last table.cols of each `width` columns, pair by pair, by the angles of the row's
     * position; table [positions, pairs * 2] F32: cosine and sine. `inverse` rotates back. */
    void (*rotate)(struct device *d, struct mat x, uint64_t width, struct mat table,
                   struct mat position, bool inverse);

    /* Rotate the first table.cols of each `width` columns: each of the first half of these is a
     * pair with the one that is table.cols / 2 after it. */
    void (*rotate_halves)(struct device *d, struct mat x, uint64_t width, struct mat table,
                          struct mat position);

    /* Multiply each `width` columns (a power of two) by Sylvester's Hadamard matrix of that size
     * over sqrt(width). BF16. */
    void (*hadamard)(struct device *d, struct mat x, uint64_t width);

    /* y = silu(gate) · up, all BF16; y may be gate. weight: [rows, 1] F32, a factor for each row,
     * or no rows. `seen` may be NULL. */
    void (*swiglu)(struct device *d, struct mat y, struct mat gate, struct mat up,
                   struct swiglu how, struct mat weight, const struct swiglu_seen *seen);

    /* ---- hyper-connections: a row holds n copies of the hidden state ---- */

    /* mixes (F32) /= rms(x) per row. */
    void (*hc_scale)(struct device *d, struct mat mixes, struct mat x, float eps);

    /* The three parts of mixes [rows, 2n + n²]: pre [rows, n] = sigmoid(m · scale[0] + base) + eps;
     * post [rows, n] = 2 sigmoid(m · scale[1] + base); comb [rows, n * n] = m · scale[2] + base
     * made doubly stochastic by Sinkhorn's rule: softmax of each row, plus eps, then columns and
     * rows alternately divided by their sum plus eps, columns `iterations` times, rows once less.
     * scale [1, 3], base [1, 2n + n²]. All F32. */
    void (*sinkhorn)(struct device *d, struct mat pre, struct mat post, struct mat comb,
                     struct mat mixes, struct mat scale, struct mat base, uint64_t iterations,
                     float eps);

    /* pre = sigmoid(mixes · scale[0] + base) + eps, F32, for the head. */
    void (*hc_gate)(struct device *d, struct mat pre, struct mat mixes, struct mat scale,
                    struct mat base, float eps);

    /* y = sum over k of pre[k] · x's copy k; BF16. */
    void (*hc_in)(struct device *d, struct mat y, struct mat x, struct mat pre);

    /* x's copy k = post[k] · y + sum over j of comb[j, k] · x's copy j; BF16, in place. */
    void (*hc_out)(struct device *d, struct mat x, struct mat y, struct mat post, struct mat comb);

    /* ---- attention ---- */

    /* Pool blocks of `ratio` tokens, channel by channel: y = sum of kv · softmax(score + ape) over
     * the block's tokens; kv, score [tokens, c] F32, ape [ratio, c] F32, y [blocks, width] BF16.
     * With c = 2 width, blocks overlap: the softmax is over the tokens of the previous block (first
     * half of the channels; a sample's first block has none) and of the block itself (second half).
     * first [blocks, 1] I32: the row of a block's first token; number [blocks, 1] I32: the block's
     * number in its sample. */
    void (*pool)(struct device *d, struct mat y, struct mat kv, struct mat score, struct mat ape,
                 struct mat first, struct mat number);

    /* The best blocks for each token, by the indexer's scores: relu(q · key) per head, times the
     * head's weight, summed over heads; in BF16 steps if the weight is BF16, in F32, times the
     * key's scale, if it is F32. q [tokens, heads * width] BF16, weight [tokens, heads];
     * keys->compressed are the indexer's keys; keys->window and keys->selected are ignored.
     * selected [tokens, n] I32: the numbers of the n best blocks of the token's sample that end at
     * or before it, ascending, padded with -1. Ties go to the first. */
    void (*select)(struct device *d, struct mat selected, struct mat q, const struct keys *keys,
                   struct mat weight);

    /* o = softmax(q · key · scale) · key over all keys that a token sees, with `sink` [1, heads]
     * F32 as one more logit that has no value. Probabilities are rounded to BF16 for the second
     * product, but not for their sum; relative to the largest logit, or to the largest of those so
     * far. q, o [tokens, heads * width] BF16. */
    void (*attend)(struct device *d, struct mat o, struct mat q, const struct keys *keys,
                   struct mat sink, float scale, const struct attended *then);

    /* o = softmax(q · key · scale) · value over the tokens that a token sees: in its sample, those
     * up to itself. In BF16 steps: logits, scaled logits, probabilities. o [tokens, heads * value's
     * width] BF16. */
    void (*attend_causal)(struct device *d, struct mat o, const struct causal *causal);

    /* ---- experts ---- */

    /* Logits [tokens, experts] F32 to scores, in place. */
    void (*score)(struct device *d, struct mat logits, enum scoring how);

    /* The experts.cols best of scores + bias, best first, ties to the first; experts I32; bias [1,
     * experts] F32, or no rows for none. With groups.count > 1 only experts of groups.used groups
     * are candidates: those with the largest sum of their two best, or without a bias the largest
     * best one. A group is scores.cols / groups.count neighbouring experts. */
    void (*route_topk)(struct device *d, struct mat experts, struct mat scores, struct mat bias,
                       struct expert_groups groups);

    /* weight [tokens, n] F32 = the scores of experts [tokens, n] I32, divided by their sum if
     * `normalize`, times scale. */
    void (*route_weights)(struct device *d, struct mat weight, struct mat scores,
                          struct mat experts, bool normalize, float scale);

    /* Sort tokens by expert: token [tokens * n, 1] I32 and sorted [tokens * n, 1] F32 get, for one
     * expert after the other, the tokens that have it among theirs, ascending, and its weights
     * there. experts [tokens, n] I32 and weight [tokens, n] F32, both contiguous, n > 0; each
     * expert is below `count`, and at most once in a row. number [count], in the caller's memory:
     * how many tokens an expert has. Waits as read() does. */
    void (*sort_by_expert)(struct device *d, struct mat token, struct mat sorted,
                           struct mat experts, struct mat weight, uint64_t *number, uint64_t count);

    /* ---- time ---- */

    /* Seconds so far that complete uploads of weights took, and that operations waited for uploads
     * or for rows of an offloaded matrix; 0 where a device uploads nothing. Waits as read() does.
     */
    void (*spent)(struct device *d, double *upload, double *wait);

    /* Seconds so far in matrix products, on average over its threads; NULL for a device that does
     * not tell. */
    double (*multiplied)(struct device *d);

    /* ---- results ---- */

    /* nll [rows, 1] F32 = -log softmax(logits)[target], target [rows, 1] I32. */
    void (*loss)(struct device *d, struct mat nll, struct mat logits, struct mat target);

    /* The best value.cols of log softmax(logits), best first, ties to the first: values F32 and
     * token ids I32. */
    void (*best)(struct device *d, struct mat value, struct mat number, struct mat logits);
};

/* The same steps after attend() by rotate() and max_abs(), for devices that have no better way. */
void device_attended(struct device *d, struct mat o, const struct keys *keys, uint64_t width,
                     const struct attended *then);

/* The CPU, through oneDNN; `threads` of 0 means one for each processor. */
struct device *device_cpu(unsigned threads);

/* GPU number `gpu` of those visible to the process, through CUDA. NULL if there is none or the
 * build has no CUDA; *why says which. */
struct device *device_cuda(unsigned gpu, const char **why);

#endif
