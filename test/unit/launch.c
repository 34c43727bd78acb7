/* Who this process is among others, by what launchers put into the environment. */
#include "base/launch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static const char *const known[] = {
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_LOCALID",
    "SLURM_STEP_NUM_NODES",
    "SLURM_NTASKS",
    "MASTER_ADDR",
    "MASTER_PORT",
};

static int clear(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        unsetenv(known[i]);
    return 0;
}

/* Pairs of a name and a value, ended by NULL. */
static void set(const char *const *pair)
{
    for (; *pair; pair += 2)
        setenv(pair[0], pair[1], 1);
}

static void expect(unsigned rank, unsigned count, unsigned local)
{
    struct launch launch;
    assert_true(launch_read(&launch));
    assert_int_equal(launch.rank, rank);
    assert_int_equal(launch.count, count);
    assert_int_equal(launch.local, local);
}

static void without_a_launcher_it_is_alone(void **state)
{
    (void)state;
    struct launch launch;
    assert_false(launch_read(&launch));
    set((const char *const[]){"RANK", "3", NULL}); /* not a launcher's, which sets both */
    assert_false(launch_read(&launch));
    unsetenv("RANK");
    set((const char *const[]){"WORLD_SIZE", "2", "OMPI_COMM_WORLD_SIZE", "3", NULL});
    assert_false(launch_read(&launch));
    set((const char *const[]){"RANK", "", "OMPI_COMM_WORLD_RANK", "", NULL}); /* as not set */
    assert_false(launch_read(&launch));
    set((const char *const[]){"RANK", "0", "WORLD_SIZE", "1", NULL});
    assert_false(launch_read(&launch));
}

static void the_three_launchers(void **state)
{
    set((const char *const[]){"RANK", "5", "WORLD_SIZE", "8", "LOCAL_RANK", "1", "LOCAL_WORLD_SIZE",
                              "4", "MASTER_ADDR", "node7", "MASTER_PORT", "1234", NULL});
    expect(5, 8, 1);
    struct launch launch;
    launch_read(&launch);
    assert_string_equal(launch.host, "node7");
    assert_string_equal(launch.port, "1234");
    assert_string_equal(launch.rank_from, "RANK");
    assert_string_equal(launch.count_from, "WORLD_SIZE");
    clear(state);
    set((const char *const[]){"OMPI_COMM_WORLD_RANK", "2", "OMPI_COMM_WORLD_SIZE", "3",
                              "OMPI_COMM_WORLD_LOCAL_RANK", "2", "OMPI_COMM_WORLD_LOCAL_SIZE", "3",
                              NULL});
    expect(2, 3, 2);
    launch_read(&launch);
    assert_null(launch.host);
    assert_string_equal(launch.rank_from, "OMPI_COMM_WORLD_RANK");
    assert_string_equal(launch.port, "29500");
    clear(state);
    set((const char *const[]){"SLURM_PROCID", "1", "SLURM_STEP_NUM_TASKS", "2", "SLURM_LOCALID",
                              "1", "SLURM_STEP_NUM_NODES", "1", NULL});
    expect(1, 2, 1);
}

/* There, SLURM_PROCID is 0, and tasks are those that srun may start. */
static void a_batch_script_of_slurm_is_alone(void **state)
{
    (void)state;
    struct launch launch;
    set((const char *const[]){"SLURM_PROCID", "0", "SLURM_NTASKS", "8", NULL});
    assert_false(launch_read(&launch));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(without_a_launcher_it_is_alone, clear),
        cmocka_unit_test_setup(the_three_launchers, clear),
        cmocka_unit_test_setup(a_batch_script_of_slurm_is_alone, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
