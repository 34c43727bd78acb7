/* launch.h: which of several processes of one run this is, as its launcher says in the environment:
 *
 *                rank                    ranks                   on this machine
 *   torchrun     RANK                    WORLD_SIZE              LOCAL_RANK
 *   Open MPI     OMPI_COMM_WORLD_RANK    OMPI_COMM_WORLD_SIZE    OMPI_COMM_WORLD_LOCAL_RANK
 *   Slurm        SLURM_PROCID            SLURM_STEP_NUM_TASKS    SLURM_LOCALID
 *
 * and where rank 0 is: MASTER_ADDR and MASTER_PORT, by default this machine and 29500. */
#ifndef LAUNCH_H
#define LAUNCH_H

#include <stdbool.h>

struct launch {
    unsigned rank, count; /* rank < count */
    unsigned local;       /* among those on this machine: which GPU is this one's */
    const char *host;     /* rank 0's, or NULL: this one */
    const char *port;
};

/* True if there are others. An environment that contradicts itself ends the process. */
bool launch_read(struct launch *launch);

#endif
