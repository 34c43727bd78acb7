/* device.h: the seam between a model's forward pass and what executes it.
 *
 * The forward pass sees matrices that belong to a device, and operations on them, which a device
 * carries out in the order in which they were called. None of them waits but read(), which is
 * therefore the only way to see a result. A device is a table of functions; what it does on its
 * own account (threads, streams, layouts, instructions) does not show here, except that the same
 * calls on the same device give the same bytes, whatever the number of threads.
 *
 * Arithmetic is F32, each operation rounded (products and other sums in an order of the device's
 * own); a result goes into a BF16 matrix by rounding to nearest even. "BF16 steps" means that each
 * named step is rounded to BF16, as a chain of PyTorch operations on BF16 tensors would.
 *
 * Rows are independent of each other: the same row gives the same bits whatever else is in the
 * matrix, and wherever it stands. That is what makes results independent of how samples are put
 * together into batches. */
#ifndef DEVICE_H
#define DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/dtype.h"
#include "tensor/weight.h"

/* A matrix, or some of the rows and columns of one: rows x cols elements, row-major. Passed by
 * value. A vector is a matrix of one column or one row, as the operation says. */
struct mat {
    void *at; /* an address in the device's memory: nobody but the device looks there */
    uint64_t rows, cols;
    uint64_t stride;  /* elements from one row to the next */
    enum dtype dtype; /* BF16, F32 or I32; U8 for a weight's bytes as they lie in a checkpoint */
};

/* `count` rows or columns from `first` on, and a matrix without gaps whose rows are cut into, or
 * put together as, rows of `cols` elements. */
struct mat mat_rows(struct mat m, uint64_t first, uint64_t count);
struct mat mat_cols(struct mat m, uint64_t first, uint64_t count);
struct mat mat_shaped(struct mat m, uint64_t cols);

/* Bytes of a matrix, which must have no gaps. */
size_t mat_bytes(struct mat m);

/* A matrix that may not fit into the device's memory: see make_offloaded(). */
struct offloaded {
    struct mat all;
    bool on_host; /* in the host's memory */
};

/* A weight as the right-hand side of products, in the device's own form. */
struct operand;

/* How the activations of a product are quantized first. */
enum activation {
    ACTIVATION_BF16, /* not at all */
    ACTIVATION_FP8,  /* E4M3 per 128 columns, scale a power of two: 2^ceil(log2(amax/448)), amax at
                        least 1e-4 */
    ACTIVATION_FP4,  /* E2M1 per 32 columns, scale a power of two: 2^ceil(log2(amax/6)), amax at
                        least 6 * 2^-126 */
    ACTIVATION_NVFP4 /* NVFP4 under a given scale_2, see nvfp4.h */
};

/* How a router turns its logits into scores. */
enum scoring { SCORING_SOFTMAX, SCORING_SIGMOID, SCORING_SQRT_SOFTPLUS };

/* The keys of a run of tokens, one sample behind the other. */
struct keys {
    struct mat window;     /* [tokens, width] BF16: each token's own key, which is its value, too */
    struct mat compressed; /* [blocks, width] BF16: those of blocks of tokens; 0 rows for none */
    struct mat position;   /* [tokens, 1] I32: of each token in its sample */
    struct mat block;      /* [tokens, 1] I32: row in `compressed` of its sample's first block */
    struct mat selected;   /* [tokens, n] I32: which of its sample's blocks a token sees, -1 for
                              none; with 0 columns: all that end at or before it */
    uint64_t sliding;      /* how many of the last tokens, itself included, a token sees */
    uint64_t ratio;        /* tokens a block */
};

/* How many bytes of a weight are lent at a time, at most: see acquire_staging(); lanes beside
 * stream 0. */
enum { DEVICE_PIECE = 16 << 20, DEVICE_STREAMS = 6 };

struct device {
    const char *name;
    uint64_t memory; /* bytes for weights that wait or are in use, unless the user says how many */
    uint64_t room;   /* bytes for far matrices and what their makers need besides */
    bool stages_pages; /* see acquire_staging() */

    void (*close)(struct device *d);

    /* ---- memory ---- */

    /* A matrix with anything in it, which the caller gives back with drop(). Ends the process if
     * memory is out. */
    struct mat (*make)(struct device *d, enum dtype dtype, uint64_t rows, uint64_t cols);
    void (*drop)(struct device *d, struct mat m);

    /* All of a matrix without gaps from or to the caller's memory, which it may use again at once.
     * read() waits until everything called before is done. */
    void (*write)(struct device *d, struct mat m, const void *data);
    void (*read)(struct device *d, void *data, struct mat m);

    /* Operations called from now on, and memory made or dropped, belong to a stream: 0 at first.
     * Each stream keeps its order, but lanes 1 to DEVICE_STREAMS may run beside each other, behind
     * all that was called in stream 0 before them; and what is called in lane 0 again comes behind
     * all of them. Only scatter_add() keeps the order of its calls everywhere. */
    void (*stream)(struct device *d, unsigned number);

    /* A matrix that stays in the device's memory if `room` has its bytes and `besides` more. If
     * not, it lies in the host's, and operations take some rows of it at a time: fetch() brings
     * those from `first` on as they were stored last, store() takes them back, changed or not,
     * before they are fetched again. If `next` rows behind them are fetched next, these come while
     * operations run; 0 if others are. What is stored goes meanwhile, too. In stream 0. */
    struct offloaded (*make_offloaded)(struct device *d, enum dtype dtype, uint64_t rows,
                                       uint64_t cols, uint64_t besides);
    void (*drop_offloaded)(struct device *d, struct offloaded offloaded);
    struct mat (*fetch)(struct device *d, struct offloaded offloaded, uint64_t first, uint64_t rows,
                        uint64_t next);
    void (*store)(struct device *d, struct offloaded offloaded, uint64_t first, struct mat rows);

    /* Weights come while operations run: acquire_staging() gives memory for `size` bytes of m, a
     * matrix of U8, from its byte `at` on; submit_staging() is told that they are there, and has
     * its memory back. Any thread may call these two, and make() for U8; operations wait for what
     * was taken before they were called. With stages_pages, the memory lies `phase` bytes behind
     * the beginning of a page of 4096, and the pages at its ends may be overwritten: what O_DIRECT
     * needs. */
    void *(*acquire_staging)(struct device *d, struct mat m, uint64_t at, size_t size,
                             size_t phase);
    void (*submit_staging)(struct device *d, struct mat m, uint64_t at, size_t size, void *staging);

    /* The same without a way through the caller's memory, NULL where a device cannot: open_file()
     * takes a file that is open with O_DIRECT, and stays so until close_file(); NULL if it cannot
     * read this one. read_file() does what acquire_staging(), reading from `offset` on, and
     * submit_staging() would; false if that many bytes did not come. */
    void *(*open_file)(struct device *d, int fd);
    void (*close_file)(struct device *d, void *file);
    bool (*read_file)(struct device *d, struct mat m, uint64_t at, size_t size, void *file,
                      uint64_t offset);

    /* Rows first … first + rows - 1 of a matrix as it lies in a checkpoint (see weight.h; raw holds
     * all its bytes, U8) as an operand: dequantized to BF16, or in F32 where it is F32. `scale`
     * holds all bytes of its block scales, in the place of scales->raw, if they are a byte each
     * (MXFP4, NVFP4), and is not looked at otherwise. The largest magnitude goes into `amax`,
     * [1, 1] F32; NaN or infinity if there is one. */
    struct operand *(*operand)(struct device *d, const struct weight *w,
                               const struct tensor *tensor, const struct scales *scales,
                               struct mat scale, struct mat raw, uint64_t first, uint64_t rows,
                               struct mat amax);
    void (*drop_operand)(struct device *d, struct operand *operand);

    /* ---- rows ---- */

    /* y = x, of the same shape, to or from BF16 and F32. */
    void (*copy)(struct device *d, struct mat y, struct mat x);

    /* Row i of y = row index[i] of x; index [rows, 1] I32. BF16. */
    void (*gather)(struct device *d, struct mat y, struct mat x, struct mat index);

    /* Row index[i] of y += row i of x, no index twice; y F32, x BF16. */
    void (*scatter_add)(struct device *d, struct mat y, struct mat x, struct mat index);

    /* x *= factor, BF16. */
    void (*scale)(struct device *d, struct mat x, float factor);

    /* y += x, BF16. */
    void (*add)(struct device *d, struct mat y, struct mat x);

    /* y = x · wᵀ; x BF16, y BF16 or F32. */
    void (*product)(struct device *d, struct mat y, struct mat x, const struct operand *w);

    /* y = x quantized and dequantized again; BF16, y may be x. scale_2 counts for NVFP4 only. */
    void (*quantize)(struct device *d, struct mat y, struct mat x, enum activation how,
                     float scale_2);

    /* amax [1, 1] F32 = the larger of itself and the largest magnitude in x (BF16 or F32); a NaN
     * or infinity anywhere stays. */
    void (*max_abs)(struct device *d, struct mat amax, struct mat x);

    /* y = weight · x / rms(x) per row, rms(x) = sqrt(mean(x²) + eps); weight [1, cols] F32. BF16,
     * y may be x. */
    void (*rms_norm)(struct device *d, struct mat y, struct mat x, struct mat weight, float eps);

    /* x /= rms(x) for every `width` columns by itself, in BF16 steps: square, mean, sum with eps,
     * reciprocal root, product. */
    void (*unit)(struct device *d, struct mat x, uint64_t width, float eps);

    /* Rotate the last table.cols of every `width` columns, pair by pair, by the angles of the
     * row's position; table [positions, pairs * 2] F32: cosine and sine. `inverse` turns back. */
    void (*rotate)(struct device *d, struct mat x, uint64_t width, struct mat table,
                   struct mat position, bool inverse);

    /* Every `width` columns (a power of two) times the Hadamard matrix of that size (Sylvester's)
     * over its root. BF16. */
    void (*hadamard)(struct device *d, struct mat x, uint64_t width);

    /* y = silu(gate) · up, both BF16; with a limit > 0, gate is cut at limit above, and up at both
     * ends, before. weight: [rows, 1] F32 that each row is multiplied with, or no rows. */
    void (*swiglu)(struct device *d, struct mat y, struct mat gate, struct mat up, float limit,
                   struct mat weight);

    /* ---- hyper-connections: n copies of the hidden state, side by side in a row ---- */

    /* mixes (F32) /= rms(x) per row. */
    void (*hc_scale)(struct device *d, struct mat mixes, struct mat x, float eps);

    /* The three parts of mixes [rows, 2n + n²]: pre [rows, n] = sigmoid(m · scale[0] + base) + eps;
     * post [rows, n] = 2 sigmoid(m · scale[1] + base); comb [rows, n * n] = m · scale[2] + base
     * made doubly stochastic by Sinkhorn's rule: softmax of each row, plus eps, then columns and
     * rows in turn divided by their sum plus eps, columns `iterations` times, rows one time less.
     * scale [1, 3], base [1, 2n + n²]. All F32. */
    void (*sinkhorn)(struct device *d, struct mat pre, struct mat post, struct mat comb,
                     struct mat mixes, struct mat scale, struct mat base, uint64_t iterations,
                     float eps);

    /* pre = sigmoid(mixes · scale[0] + base) + eps, F32, for the head. */
    void (*hc_gate)(struct device *d, struct mat pre, struct mat mixes, struct mat scale,
                    struct mat base, float eps);

    /* y = sum of the n copies in x, each times its pre; BF16. */
    void (*hc_in)(struct device *d, struct mat y, struct mat x, struct mat pre);

    /* x's copy k = post[k] · y + sum over j of comb[j, k] · x's copy j; BF16, in place. */
    void (*hc_out)(struct device *d, struct mat x, struct mat y, struct mat post, struct mat comb);

    /* ---- attention ---- */

    /* Blocks of `ratio` tokens pooled, channel by channel: y = sum of kv · softmax(score + ape)
     * over the block's tokens; kv, score [tokens, c] F32, ape [ratio, c] F32, y [blocks, width]
     * BF16. With c = 2 width, blocks overlap: the softmax is over the tokens of the block before
     * (first half of the channels; none before a sample's first block) and its own (second half).
     * first [blocks, 1] I32: the row of a block's first token; number [blocks, 1] I32: of the block
     * in its sample. */
    void (*pool)(struct device *d, struct mat y, struct mat kv, struct mat score, struct mat ape,
                 struct mat first, struct mat number);

    /* The best blocks for each token, by the indexer's scores in BF16 steps: products q · key per
     * head, cut at 0 below, times the head's weight, summed over heads. q [tokens, heads * width],
     * weight [tokens, heads] BF16; keys->compressed are the indexer's keys; keys->window and
     * keys->selected are not looked at. selected [tokens, n] I32: the numbers of the n best
     * among those blocks of a token's sample that end at or before it, ascending, -1 behind. Of
     * equal ones the first. */
    void (*select)(struct device *d, struct mat selected, struct mat q, const struct keys *keys,
                   struct mat weight);

    /* o = softmax(q · key · scale) · key over all keys that a token sees, with `sink` [1, heads]
     * F32 as one more logit, of no value; probabilities are rounded to BF16 before the second
     * product, not before they are summed. q, o [tokens, heads * width] BF16. */
    void (*attend)(struct device *d, struct mat o, struct mat q, const struct keys *keys,
                   struct mat sink, float scale);

    /* ---- experts ---- */

    /* Logits [tokens, experts] F32 to scores, in place. */
    void (*score)(struct device *d, struct mat logits, enum scoring how);

    /* The experts.cols best of scores + bias (bias [1, experts] F32), best first, of equal ones the
     * first; experts I32. */
    void (*route_topk)(struct device *d, struct mat experts, struct mat scores, struct mat bias);

    /* weight [tokens, n] F32 = the scores of the chosen experts [tokens, n] I32, divided by their
     * sum if `normalize`, times scale. */
    void (*route_weights)(struct device *d, struct mat weight, struct mat scores,
                          struct mat experts, bool normalize, float scale);

    /* ---- time ---- */

    /* Seconds so far that weights took on their way to the device, and that operations waited for
     * them, or for rows of a far matrix: 0 where a device has all at once. Waits as read() does. */
    void (*spent)(struct device *d, double *upload, double *wait);

    /* ---- results ---- */

    /* nll [rows, 1] F32 = -log softmax(logits)[target], target [rows, 1] I32. */
    void (*loss)(struct device *d, struct mat nll, struct mat logits, struct mat target);

    /* The best value.cols of log softmax(logits), best first, of equal ones the first: values
     * F32 and token numbers I32. */
    void (*best)(struct device *d, struct mat value, struct mat number, struct mat logits);
};

/* The processor, through oneDNN; `threads` of 0: as many as there are processors. */
struct device *device_cpu(unsigned threads);

/* GPU number `gpu` of those that the process sees, through CUDA; NULL if there is none, or the
 * build has no CUDA, and *why says which. */
struct device *device_cuda(unsigned gpu, const char **why);

#endif
