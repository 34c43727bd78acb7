/* Tensors read ahead: by ranks that share the reading, processes of their own, as in a run, that
 * send their pieces to each other through rank 0; and by a device that reads files itself. */
#include "forward/prefetch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/die.h"

#define CHECKPOINT "test/data/v4-nano/ckpt"
enum { RANKS = 3, LARGE = 128 << 10, BUDGET = 16 << 20, BATCH = 3 << 20 };

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

static void *acquire_staging(struct device *d, struct mat m, uint64_t at, size_t size, size_t phase)
{
    (void)d;
    (void)size;
    (void)phase;
    return (char *)m.at + at;
}

static void submit_staging(struct device *d, struct mat m, uint64_t at, size_t size, void *staging)
{
    (void)d;
    (void)m;
    (void)at;
    (void)size;
    (void)staging;
}

/* ---- ranks ---- */

/* What a rank knows of the present tensors when it gathers. */
struct sharing {
    struct gather gather;
    struct ranks *ranks;
    struct ts_in *truth; /* the same checkpoint, read by this rank alone */
    char *whole;         /* the present tensor, from there */
    char *others;        /* what rank 0 gets of a piece from the others, one after the other */
    size_t taken;
    uint64_t read, all, largest; /* bytes of pieces */
    unsigned batches, gathered, wrong;
};

static bool take_piece(void *context, const void *data, size_t size)
{
    struct sharing *s = context;
    memcpy(s->others + s->taken, data, size);
    s->taken += size;
    return true;
}

/* The next tensor that is read together. */
static void next_whole(struct sharing *s)
{
    const struct tensor *tensor = ts_next(s->truth);
    while (tensor->size < LARGE)
        tensor = ts_next(s->truth);
    s->whole = xgrow(s->whole, 1, (size_t)tensor->size);
    ts_read(s->truth, s->whole, (size_t)tensor->size);
    s->gathered++;
}

/* Before: its own pieces, and no others. After: all. */
static void gather_one(struct sharing *s, const struct gathered *part)
{
    unsigned rank = ranks_rank(s->ranks);
    char *bytes = (char *)part->bytes.at + part->at;
    if (!part->at)
        next_whole(s);
    bool there = !memcmp(bytes, s->whole + part->at, (size_t)part->size);
    s->wrong += there != (rank == part->owner);
    s->read += part->owner == rank ? part->size : 0;
    s->all += part->size;
    s->largest = part->size > s->largest ? part->size : s->largest;
    s->others = xgrow(NULL, RANKS - 1, (size_t)part->size);
    s->taken = 0;
    ranks_gather(s->ranks, bytes, (size_t)part->size, take_piece, s);
    if (!rank && part->owner)
        memcpy(bytes, s->others + (part->owner - 1) * part->size, (size_t)part->size);
    ranks_broadcast(s->ranks, bytes, (size_t)part->size);
    free(s->others);
}

static void gather_all(struct gather *gather, const struct gathered *part, size_t count)
{
    struct sharing *s = (struct sharing *)gather;
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        gather_one(s, &part[i]);
        bytes += part[i].size;
    }
    s->wrong += part[0].bytes.at != part[count - 1].bytes.at && bytes > BATCH;
    s->batches++;
}

/* One rank reads everything; how many tensors were wrong, or not read together. */
static unsigned run(unsigned rank, const char *port)
{
    const struct launch launch = {.rank = rank, .count = RANKS, .local = rank, .port = port};
    struct sharing s = {.ranks = ranks_open(&launch), .truth = ts_open(CHECKPOINT, NULL)};
    s.gather.batch = BATCH;
    s.gather.all = gather_all;
    struct ts_in *in = ts_open(CHECKPOINT, NULL), *truth = ts_open(CHECKPOINT, NULL);
    bool *wanted = xalloc(ts_toc(in)->count, sizeof *wanted);
    unsigned large = 0, wrong = 0;
    for (size_t i = 0; i < ts_toc(in)->count; i++) {
        wanted[i] = true;
        large += ts_toc(in)->tensor[i].size >= LARGE;
    }
    struct device device = {.make = make,
                            .drop = drop,
                            .acquire_staging = acquire_staging,
                            .submit_staging = submit_staging};
    const struct prefetch_plan plan = {.wanted = wanted,
                                       .on_device = wanted,
                                       .device = &device,
                                       .budget = BUDGET,
                                       .ranks = s.ranks,
                                       .gather = &s.gather};
    struct prefetch *prefetch = prefetch_begin(in, &plan);
    struct prefetched to;
    for (const struct tensor *tensor; (tensor = prefetch_take(prefetch, &to));) {
        ts_next(truth);
        void *whole = ts_read_all(truth);
        size_t size = (size_t)tensor->size, head = size < PREFETCH_HEAD ? size : PREFETCH_HEAD;
        wrong += memcmp(to.bytes.at, whole, size) != 0;
        wrong += memcmp(to.head, whole, head) != 0;
        free(whole);
        free(to.head);
        drop(&device, to.bytes);
    }
    prefetch_end(prefetch);
    ranks_close(s.ranks);
    ts_close(in);
    ts_close(truth);
    ts_close(s.truth);
    free(wanted);
    free(s.whole);
    wrong += s.read > s.all / RANKS + s.largest;
    return wrong + s.wrong + (s.gathered != large) + !large + (s.batches < 2) +
           (s.batches >= large);
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

static void gather_nothing(struct gather *gather, const struct gathered *part, size_t count)
{
    (void)gather;
    for (size_t i = 0; i < count; i++)
        assert_int_equal(part[i].owner, 0);
}

/* It may end while tensors are being listed, read and gathered, whatever was taken. */
static void it_ends_at_any_time(void **state)
{
    (void)state;
    struct gather gather = {.batch = BATCH / 4, .all = gather_nothing};
    struct device device = {.make = make,
                            .drop = drop,
                            .acquire_staging = acquire_staging,
                            .submit_staging = submit_staging};
    for (unsigned taken = 0; taken < 40; taken++) {
        struct ts_in *in = ts_open(CHECKPOINT, NULL);
        bool *wanted = xalloc(ts_toc(in)->count, sizeof *wanted);
        memset(wanted, true, ts_toc(in)->count);
        const struct prefetch_plan plan = {.wanted = wanted,
                                           .on_device = wanted,
                                           .device = &device,
                                           .budget = BUDGET / 4,
                                           .gather = &gather};
        struct prefetch *prefetch = prefetch_begin(in, &plan);
        struct prefetched to;
        for (unsigned i = 0; i < taken; i++) {
            assert_non_null(prefetch_take(prefetch, &to));
            free(to.head);
            drop(&device, to.bytes);
        }
        prefetch_end(prefetch);
        ts_close(in);
        free(wanted);
    }
}

/* ---- a device that reads files itself ---- */

enum { PAGE = 4096 };

static atomic_uint opened, closed, asked, refused, looked_at;

static void *acquire_pages(struct device *d, struct mat m, uint64_t at, size_t size, size_t phase)
{
    (void)d;
    (void)m;
    (void)at;
    char *pages = aligned_alloc(PAGE, (phase + size + PAGE - 1) / PAGE * PAGE);
    assert_non_null(pages);
    return pages + phase;
}

static void take_pages(struct device *d, struct mat m, uint64_t at, size_t size, void *staging)
{
    (void)d;
    memcpy((char *)m.at + at, staging, size);
    free((char *)staging - (uintptr_t)staging % PAGE);
}

static void *open_file(struct device *d, int fd)
{
    (void)d;
    int *file = xalloc(1, sizeof *file);
    *file = fd;
    opened++;
    return file;
}

static void close_file(struct device *d, void *file)
{
    (void)d;
    closed++;
    free(file);
}

/* Every third time it cannot, and leaves something else there. */
static bool read_file(struct device *d, struct mat m, uint64_t at, size_t size, void *file,
                      uint64_t offset)
{
    size_t phase = (size_t)(offset % PAGE), room = (phase + size + PAGE - 1) / PAGE * PAGE;
    char *bytes = acquire_pages(d, m, at, size, phase);
    ssize_t got = pread(*(int *)file, bytes - phase, room, (off_t)(offset - phase));
    bool read = got >= (ssize_t)(phase + size) && asked++ % 3 != 2;
    if (!read) {
        memset(bytes, 0x55, size);
        refused++;
    }
    take_pages(d, m, at, size, bytes);
    return read;
}

static void look(void *context, uint32_t line, uint64_t at, const void *bytes, size_t size)
{
    const bool *unseen = context;
    (void)at;
    (void)bytes;
    looked_at += unseen[line] ? 1U << 31 : size != 0;
}

/* Bytes that nobody has to see come from the file itself, or else as all others do. */
static void unseen_bytes_come_from_the_file(void **state)
{
    (void)state;
    struct ts_in *in = ts_open(CHECKPOINT, NULL), *truth = ts_open(CHECKPOINT, NULL);
    size_t count = ts_toc(in)->count;
    bool *wanted = xalloc(count, sizeof *wanted), *unseen = xalloc(count, sizeof *unseen);
    for (size_t i = 0; i < count; i++) {
        wanted[i] = true;
        unseen[i] = i % 4 != 0;
    }
    struct device device = {.stages_pages = true,
                            .make = make,
                            .drop = drop,
                            .acquire_staging = acquire_pages,
                            .submit_staging = take_pages,
                            .open_file = open_file,
                            .close_file = close_file,
                            .read_file = read_file};
    const struct prefetch_plan plan = {.wanted = wanted,
                                       .on_device = wanted,
                                       .unseen = unseen,
                                       .device = &device,
                                       .look = look,
                                       .context = unseen,
                                       .budget = BUDGET};
    struct prefetch *prefetch = prefetch_begin(in, &plan);
    struct prefetched to;
    for (const struct tensor *tensor; (tensor = prefetch_take(prefetch, &to));) {
        ts_next(truth);
        void *whole = ts_read_all(truth);
        size_t size = (size_t)tensor->size, head = size < PREFETCH_HEAD ? size : PREFETCH_HEAD;
        assert_memory_equal(to.bytes.at, whole, size);
        if (unseen[tensor - ts_toc(in)->tensor])
            assert_null(to.head);
        else
            assert_memory_equal(to.head, whole, head);
        free(whole);
        free(to.head);
        drop(&device, to.bytes);
    }
    prefetch_end(prefetch);
    ts_close(in);
    ts_close(truth);
    free(wanted);
    free(unseen);
    assert_int_equal(opened, closed);
    assert_in_range(looked_at, count / 4, count);
    if (!opened) {
        print_message("this file system has no O_DIRECT\n");
        skip();
    }
    assert_in_range(asked, count / 2, 2 * count);
    assert_in_range(refused, 1, count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pieces_make_the_whole),
                                       cmocka_unit_test(it_ends_at_any_time),
                                       cmocka_unit_test(unseen_bytes_come_from_the_file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
