/* Embeddings before the layers, logits after them, and multi-token prediction, whose blocks have
 * both. */
#include <stdlib.h>

#include "base/die.h"
#include "forward/pass.h"

/* Rows of logits at a time: the vocabulary is large. */
enum { HEAD_ROWS = 256 };

void embed_all(struct pass *pass)
{
    const struct network *n = pass->network;
    struct device *d = n->device;
    for (uint64_t first = 0; first < rows_count(&pass->rows); first += EMBEDDING_ROWS) {
        struct mat hidden = rows_fetch(&pass->rows, first, EMBEDDING_ROWS);
        struct mat e = d->make(d, DTYPE_BF16, hidden.rows, n->dim);
        embedding_read(&pass->embedding, d, e, pass->rows.id + first);
        for (uint64_t i = 0; i < n->copies; i++)
            d->copy(d, mat_cols(hidden, i * n->dim, n->dim), e);
        d->drop(d, e);
        rows_store(&pass->rows, first, hidden);
    }
}

void run_head(struct pass *pass, struct layer *norm, struct layer *head, unsigned mtp)
{
    const struct network *n = pass->network;
    struct device *d = n->device;
    int32_t *target = rows_targets(&pass->rows);
    for (uint64_t first = 0; first < rows_count(&pass->rows); first += HEAD_ROWS) {
        struct mat hidden = rows_fetch(&pass->rows, first, HEAD_ROWS);
        struct mat x = d->make(d, DTYPE_BF16, hidden.rows, n->dim);
        struct mat logits = d->make(d, DTYPE_F32, hidden.rows, n->vocabulary);
        n->head(n, norm, x, hidden);
        rows_store(&pass->rows, first, hidden);
        linear_apply(d, &head->piece[n->head_piece].linear, logits, x, SEES_BOTH);
        if (n->rounds_logits)
            mat_round(d, logits);
        pass->run->logits(pass->run->context, mtp, first, logits, target + first);
        d->drop(d, x);
        d->drop(d, logits);
    }
    free(target);
}

void prepare_mtp(struct pass *pass, const struct layer *norm)
{
    const struct network *n = pass->network;
    if (!n->mtp_states)
        return;
    for (uint64_t first = 0; first < rows_count(&pass->rows); first += EMBEDDING_ROWS) {
        struct mat hidden = rows_fetch(&pass->rows, first, EMBEDDING_ROWS);
        n->mtp_states(n, norm, hidden);
        rows_store(&pass->rows, first, hidden);
    }
}

void run_mtp(struct pass *pass, struct layer *head, unsigned mtp)
{
    const struct network *n = pass->network;
    struct device *d = n->device;
    struct layer_pass lp;
    layer_pass_begin(&lp, pass, n->layers + mtp);
    rows_shift(&pass->rows);
    for (uint64_t first = 0; first < rows_count(&pass->rows); first += EMBEDDING_ROWS) {
        struct mat hidden = rows_fetch(&pass->rows, first, EMBEDDING_ROWS);
        struct mat e = d->make(d, DTYPE_BF16, hidden.rows, n->dim);
        embedding_read(&pass->embedding, d, e, pass->rows.id + first);
        n->mtp_input(n, &lp.layer, hidden, e);
        d->drop(d, e);
        rows_store(&pass->rows, first, hidden);
    }
    layer_pass_run(&lp);
    feed_layer(&pass->feed, &lp.layer, n->late_pieces, n->pieces);
    if (pass->run->head)
        run_head(pass, &lp.layer, head, mtp + 1);
    if (mtp + 1 < n->mtp_layers)
        prepare_mtp(pass, &lp.layer);
    layer_pass_end(&lp);
}
