/* What ranks put together, and that a read which hangs ends them all. Each rank is a process. */
#include "base/ranks.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/die.h"
#include "base/message.h"
#include "forward/predictions.h"

enum { RANKS = 3, TEXT = 4096 };

/* Run all ranks; what they say goes into `said`. The number of those that ended well. */
static unsigned run(bool work(struct ranks *ranks), char said[TEXT])
{
    static int runs;
    char *port = xprintf("%d", 40000 + ((int)getpid() + 7919 * runs++) % 10000);
    pid_t process[RANKS];
    int from_all[2];
    unsigned well = 0;
    assert_int_equal(pipe(from_all), 0);
    for (unsigned rank = 0; rank < RANKS; rank++) {
        process[rank] = fork();
        if (process[rank])
            continue;
        const struct launch launch = {.rank = rank, .count = RANKS, .local = rank, .port = port};
        dup2(from_all[1], STDERR_FILENO);
        struct ranks *ranks = ranks_open(&launch);
        bool right = work(ranks);
        ranks_close(ranks);
        _exit(!right);
    }
    close(from_all[1]);
    for (size_t length = 0;;) {
        ssize_t got = read(from_all[0], said + length, TEXT - 1 - length);
        if (got <= 0) {
            said[length] = 0;
            break;
        }
        length += (size_t)got;
    }
    close(from_all[0]);
    for (unsigned rank = 0; rank < RANKS; rank++) {
        int status;
        waitpid(process[rank], &status, 0);
        well += WIFEXITED(status) && !WEXITSTATUS(status);
    }
    free(port);
    return well;
}

static bool put_together(struct ranks *ranks)
{
    unsigned rank = ranks_rank(ranks);
    float most[] = {(float)rank, rank == 1 ? NAN : INFINITY, rank == 2 ? 0 : 0x1p-149F, 0};
    uint64_t sum[] = {rank, UINT32_MAX};
    char text[] = "rank ?";
    ranks_max(ranks, most, sizeof most / sizeof *most);
    ranks_sum(ranks, sum, sizeof sum / sizeof *sum);
    text[5] = (char)('0' + rank);
    ranks_broadcast(ranks, text, sizeof text);
    ranks_agree(ranks, "another text", text);
    return most[0] == RANKS - 1 && isnan(most[1]) && most[2] == 0x1p-149F && most[3] == 0 &&
           sum[0] == 3 && sum[1] == (uint64_t)3 * UINT32_MAX && !strcmp(text, "rank 0");
}

static void what_they_put_together(void **state)
{
    (void)state;
    char said[TEXT];
    assert_int_equal(run(put_together, said), RANKS);
    assert_string_equal(said, "");
    assert_true(put_together(NULL) == false); /* alone: sums are not of three */
}

static bool share_all(struct ranks *ranks)
{
    bool right = true;
    for (uint64_t total = 0; total < 20; total++) {
        uint64_t first, count, before[RANKS] = {0};
        ranks_share(ranks, total, &first, &count);
        right &= count >= total / RANKS && count <= (total + RANKS - 1) / RANKS;
        for (unsigned rank = ranks_rank(ranks) + 1; rank < RANKS; rank++)
            before[rank] = count;
        ranks_sum(ranks, before, RANKS);
        right &= first == before[ranks_rank(ranks)];
        right &= ranks_rank(ranks) != RANKS - 1 || first + count == total;
    }
    return right;
}

static void shares_are_equal_and_complete(void **state)
{
    (void)state;
    char said[TEXT];
    uint64_t first, count;
    assert_int_equal(run(share_all, said), RANKS);
    ranks_share(NULL, 5, &first, &count);
    assert_true(!first && count == 5);
}

static bool hang(struct ranks *ranks)
{
    uint64_t one = 1;
    ranks_reading(ranks, "one.weight");
    ranks_reading(ranks, NULL);
    if (ranks_rank(ranks) == 1) {
        ranks_reading(ranks, "two.weight");
        pause();
    }
    ranks_sum(ranks, &one, 1);
    return true;
}

static void a_read_that_hangs_ends_all(void **state)
{
    (void)state;
    char said[TEXT];
    setenv("SEEKPIPE_RANK_TIMEOUT", "1", 1);
    assert_int_equal(run(hang, said), 0);
    unsetenv("SEEKPIPE_RANK_TIMEOUT");
    assert_non_null(strstr(said, "[1]: two.weight: a read of it takes longer than 1 seconds"));
    assert_non_null(strstr(said, "[0]: rank 1 says: two.weight"));
    assert_non_null(strstr(said, "[2]: rank 0 says: rank 1 says: two.weight"));
}

/* Rank 1 has three candidates for its token, the others one. */
static bool gather_others(struct ranks *ranks)
{
    const int32_t id[] = {1, 2, 3};
    const float logprob[] = {-1, -2, -3};
    struct predictions p = {.top = ranks_rank(ranks) == 1 ? 3 : 1};
    predictions_add(&p, 0.5F, logprob, id);
    predictions_gather(&p, ranks);
    predictions_free(&p);
    return true;
}

static void what_is_not_as_expected_ends_all(void **state)
{
    (void)state;
    char said[TEXT];
    assert_int_equal(run(gather_others, said), 0);
    assert_non_null(strstr(said, "[0]: rank 1 is at a different step"));
    assert_non_null(strstr(said, "[2]: rank 0 says: rank 1 is at a different step"));
}

/* What is announced takes no memory until it comes. */
static void a_message_that_never_comes(void **state)
{
    (void)state;
    const uint64_t announced = (uint64_t)1 << 62;
    size_t size;
    int end[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, end), 0);
    assert_int_equal(send(end[0], &announced, sizeof announced, 0), sizeof announced);
    assert_int_equal(send(end[0], "some", 4, 0), 4);
    close(end[0]);
    assert_null(message_receive_any(end[1], &size));
    close(end[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_they_put_together),
        cmocka_unit_test(shares_are_equal_and_complete),
        cmocka_unit_test(a_read_that_hangs_ends_all),
        cmocka_unit_test(what_is_not_as_expected_ends_all),
        cmocka_unit_test(a_message_that_never_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
