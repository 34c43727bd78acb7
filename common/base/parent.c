#include "base/parent.h"

#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/number.h"

void parent_follow(void)
{
    const char *text = getenv("SEEKPIPE_GROUP");
    uint64_t group;
    if (!text || !number_parse(&text, INT32_MAX, &group) || getpgrp() != (pid_t)group)
        return;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getpgid(getppid()) != getpgrp()) /* an orphan's parent is of another group */
        raise(SIGTERM);
}
