#include "base/launch.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/die.h"
#include "base/number.h"

enum { RANKS_MOST = 4096, PORT_MOST = 65535 };

/* The variables of each launcher. A Slurm batch script has SLURM_PROCID too, but only what srun
 * starts has SLURM_STEP_NUM_TASKS. */
static const struct launcher {
    const char *rank, *count, *local;
    const char *together, *alone; /* number of ranks on this machine, or of machines */
} launchers[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", NULL},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", NULL},
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", NULL, "SLURM_STEP_NUM_NODES"},
};

/* The value of a variable; NULL if it is not set, or empty. */
static const char *value_of(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static unsigned number_of(const char *name, uint64_t least, uint64_t most, uint64_t otherwise)
{
    const char *text = value_of(name), *end = text;
    uint64_t number = otherwise;
    if (text && (!number_parse(&end, most, &number) || *end || number < least))
        die("$%s is '%s', wanted a number from %" PRIu64 " to %" PRIu64, name, text, least, most);
    return (unsigned)number;
}

/* True if the launcher says that all ranks are on one machine, rather than nothing. */
static bool says_together(const struct launcher *launcher, const struct launch *launch)
{
    if (launcher->together)
        return number_of(launcher->together, 1, RANKS_MOST, 0) == launch->count;
    return number_of(launcher->alone, 1, RANKS_MOST, 0) == 1;
}

static bool has_several_machines(const struct launcher *launcher, const struct launch *launch)
{
    if (launcher->together)
        return number_of(launcher->together, 1, RANKS_MOST, launch->count) != launch->count;
    return number_of(launcher->alone, 1, RANKS_MOST, 1) != 1;
}

bool launch_read(struct launch *launch)
{
    const struct launcher *launcher = launchers,
                          *end = launcher + sizeof launchers / sizeof *launchers;
    while (launcher < end && (!value_of(launcher->rank) || !value_of(launcher->count)))
        launcher++;
    if (launcher == end)
        return false;
    launch->rank_from = launcher->rank;
    launch->count_from = launcher->count;
    launch->count = number_of(launcher->count, 1, RANKS_MOST, 1);
    launch->rank = number_of(launcher->rank, 0, launch->count - 1, 0);
    launch->local = number_of(launcher->local, 0, launch->count - 1, launch->rank);
    launch->together = says_together(launcher, launch);
    launch->host = value_of("MASTER_ADDR");
    launch->port = value_of("MASTER_PORT");
    if (!launch->port)
        launch->port = "29500";
    number_of("MASTER_PORT", 1, PORT_MOST, 1);
    if (!launch->host && has_several_machines(launcher, launch))
        die("the ranks are on several machines, and $MASTER_ADDR does not say which is rank 0's; "
            "set it for all of them (see the script in pipelines/slurm)");
    return launch->count > 1;
}
