/* Tensors read ahead by ranks that share the reading: processes of their own, as in a run, that
 * send their pieces to each other through rank 0. */
#include "ahead.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "die.h"

#define CHECKPOINT "test/data/v4-nano/ckpt"
enum { RANKS = 3, LARGE = 1 << 20, BUDGET = 16 << 20 };

/* ---- a device whose memory is ours ---- */

static struct mat make(struct device *d, enum dtype dtype, uint64_t rows, uint64_t cols)
{
    (void)d;
    return (struct mat){xgrow(NULL, (size_t)rows, (size_t)cols), rows, cols, cols, dtype};
}

static void drop(struct device *d, struct mat m)
{
    (void)d;
    free(m.at);
}

static void *lend(struct device *d, struct mat m, uint64_t at, size_t size, size_t phase)
{
    (void)d;
    (void)size;
    (void)phase;
    return (char *)m.at + at;
}

static void take(struct device *d, struct mat m, uint64_t at, size_t size, void *lent)
{
    (void)d;
    (void)m;
    (void)at;
    (void)size;
    (void)lent;
}

/* ---- ranks ---- */

/* What a rank knows of the present tensor when it gathers. */
struct sharing {
    struct gather gather;
    struct ranks *ranks;
    struct ts_in *truth; /* the same checkpoint, read by this rank alone */
    char *whole;         /* the present tensor, from there, with room behind */
    char *others;        /* where rank 0 puts the next piece */
    unsigned gathered, wrong;
};

static void take_piece(void *context, const void *data, size_t size)
{
    struct sharing *s = context;
    memcpy(s->others, data, size);
    s->others += size;
}

/* Before: its own piece, and no other. After: all. */
static void gather_all(struct gather *gather, struct mat m, uint64_t piece)
{
    struct sharing *s = (struct sharing *)gather;
    const struct tensor *tensor = ts_next(s->truth);
    while (tensor->size < LARGE)
        tensor = ts_next(s->truth);
    s->whole = xgrow(s->whole, RANKS, (size_t)piece);
    ts_read(s->truth, s->whole, (size_t)tensor->size);
    char *bytes = m.at;
    for (uint64_t r = 0; r < RANKS; r++) {
        uint64_t first = r * piece, left = tensor->size - first;
        bool there = !memcmp(bytes + first, s->whole + first, left < piece ? left : piece);
        s->wrong += there != (r == ranks_rank(s->ranks));
    }
    s->others = bytes + piece;
    ranks_gather(s->ranks, bytes + ranks_rank(s->ranks) * piece, (size_t)piece, take_piece, s);
    ranks_broadcast(s->ranks, bytes, (size_t)(RANKS * piece));
    s->gathered++;
}

/* One rank reads everything; how many tensors were wrong, or not read together. */
static unsigned run(unsigned rank, const char *port)
{
    const struct launch launch = {rank, RANKS, rank, NULL, port};
    struct sharing s = {.ranks = ranks_open(&launch), .truth = ts_open(CHECKPOINT, NULL)};
    s.gather.all = gather_all;
    struct ts_in *in = ts_open(CHECKPOINT, NULL), *truth = ts_open(CHECKPOINT, NULL);
    bool *wanted = xalloc(ts_toc(in)->count, sizeof *wanted);
    unsigned large = 0;
    for (size_t i = 0; i < ts_toc(in)->count; i++) {
        wanted[i] = true;
        large += ts_toc(in)->tensor[i].size >= LARGE;
    }
    struct device device = {.make = make, .drop = drop, .lend = lend, .take = take};
    const struct ahead_plan plan = {.wanted = wanted,
                                    .on_device = wanted,
                                    .device = &device,
                                    .budget = BUDGET,
                                    .ranks = s.ranks,
                                    .gather = &s.gather};
    struct ahead *ahead = ahead_begin(in, &plan);
    struct arrived to;
    for (const struct tensor *tensor; (tensor = ahead_take(ahead, &to));) {
        ts_next(truth);
        void *whole = ts_read_all(truth);
        s.wrong += memcmp(to.bytes.at, whole, (size_t)tensor->size) != 0;
        free(whole);
        free(to.head);
        drop(&device, to.bytes);
    }
    ahead_end(ahead);
    ranks_close(s.ranks);
    ts_close(in);
    ts_close(truth);
    ts_close(s.truth);
    free(wanted);
    free(s.whole);
    return s.wrong + (s.gathered != large) + !large;
}

static void pieces_make_the_whole(void **state)
{
    (void)state;
    char *port = xprintf("%d", 30000 + (int)getpid() % 10000);
    pid_t other[RANKS];
    for (unsigned rank = 1; rank < RANKS; rank++) {
        other[rank] = fork();
        if (!other[rank])
            _exit(run(rank, port) != 0);
    }
    assert_int_equal(run(0, port), 0);
    for (unsigned rank = 1; rank < RANKS; rank++) {
        int status;
        assert_int_equal(waitpid(other[rank], &status, 0), other[rank]);
        assert_int_equal(status, 0);
    }
    free(port);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pieces_make_the_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
