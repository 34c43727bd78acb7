/* launch.h: this process's rank among those of one run, from the environment that its launcher
 * sets:
 *
 *                rank                    ranks                   rank on this machine
 *   torchrun     RANK                    WORLD_SIZE              LOCAL_RANK
 *   Open MPI     OMPI_COMM_WORLD_RANK    OMPI_COMM_WORLD_SIZE    OMPI_COMM_WORLD_LOCAL_RANK
 *   Slurm        SLURM_PROCID            SLURM_STEP_NUM_TASKS    SLURM_LOCALID
 *
 * where rank and ranks are both set, and not empty; and where rank 0 is: MASTER_ADDR and
 * MASTER_PORT, by default this machine and 29500. */
#ifndef LAUNCH_H
#define LAUNCH_H

#include <stdbool.h>

struct launch {
    unsigned rank, count; /* rank < count */
    unsigned local;       /* among those on this machine: selects its GPU */
    bool together;        /* all are on this machine, the launcher says */
    const char *host;     /* rank 0's; NULL for this machine */
    const char *port;
    const char *rank_from, *count_from; /* the variables that told */
};

/* Fill *launch; return true if the run has more than one process. A contradictory environment ends
 * the process. The strings belong to the environment. */
bool launch_read(struct launch *launch);

#endif
