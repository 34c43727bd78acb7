/* When a calibration keeps what it has, and in what chunks. */
#include "forward/resume.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/die.h"

static void due_after_every_so_many_layers(void **state)
{
    (void)state;
    for (uint64_t every = 1; every <= 5; every++)
        for (uint64_t layer = 0; layer < 20; layer++) {
            struct resume resume = {.keeping.every = every, .took = 1000, .ended = 1000};
            assert_int_equal(resume_is_due(&resume, layer, 1000), layer % every == every - 1);
        }
}

static void due_when_ten_times_as_long_has_gone_by(void **state)
{
    (void)state;
    struct resume resume = {.took = 0.5, .ended = 100};
    for (uint64_t layer = 0; layer < 3; layer++) {
        assert_false(resume_is_due(&resume, layer, 100));
        assert_false(resume_is_due(&resume, layer, 104.75));
        assert_true(resume_is_due(&resume, layer, 105));
        assert_true(resume_is_due(&resume, layer, 1000));
    }
}

/* The chunks of samples of these lengths, with 1 KiB a token: the samples in each. */
static void check_chunks(const uint64_t *length, uint64_t samples, const uint64_t *wanted,
                         size_t chunks)
{
    json_t *config = json_object();
    uint64_t *start = xalloc((size_t)samples + 1, sizeof *start), first = 0;
    for (uint64_t i = 0; i < samples; i++)
        start[i + 1] = start[i] + length[i];
    struct network network = {.config.json = config, .dim = 128, .copies = 4};
    struct tokens tokens = {.samples = samples, .start = start};
    struct forward run = {.network = &network, .tokens = &tokens};
    struct kept kept;
    kept_begin(&kept, &run, ".", -1, "");
    assert_int_equal(kept.chunks, chunks);
    for (size_t i = 0; i < chunks; i++) {
        assert_int_equal(kept.first[i], first);
        first += wanted[i];
    }
    assert_int_equal(kept.first[chunks], samples);
    assert_int_equal(first, samples);
    assert_int_equal(kept_bytes(&kept), start[samples] << 10);
    kept_end(&kept);
    json_decref(config);
    free(start);
}

static void chunks_of_whole_samples(void **state)
{
    (void)state;
    uint64_t length[96], wanted[96];
    check_chunks((const uint64_t[]){1}, 1, (const uint64_t[]){1}, 1);
    check_chunks((const uint64_t[]){7, 1, 1, 90}, 4, (const uint64_t[]){1, 2, 1}, 3);
    for (size_t i = 0; i < 96; i++) {
        length[i] = 10;
        wanted[i] = 6;
    }
    check_chunks(length, 96, wanted, 16); /* a sixteenth each */
    for (size_t i = 0; i < 96; i++) {
        length[i] = 20 << 10;
        wanted[i] = 3;
    }
    check_chunks(length, 96, wanted, 32); /* 64 MiB at most */
    for (size_t i = 0; i < 96; i++) {
        length[i] = 100 << 10;
        wanted[i] = 1;
    }
    check_chunks(length, 96, wanted, 96); /* but a sample at least */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(due_after_every_so_many_layers),
        cmocka_unit_test(due_when_ten_times_as_long_has_gone_by),
        cmocka_unit_test(chunks_of_whole_samples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
