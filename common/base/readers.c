#include "base/readers.h"

#include <sys/stat.h>

void readers_limit(unsigned mode)
{
    unsigned others = ~mode & READERS_ALL, mask = umask(0);
    umask(mask | others | others >> 1 | others >> 2);
}

void readers_limit_to(int fd)
{
    struct stat status;
    if (!fstat(fd, &status) && S_ISREG(status.st_mode))
        readers_limit(status.st_mode);
}

unsigned readers(void)
{
    unsigned mask = umask(0);
    umask(mask);
    return READERS_ALL & ~mask;
}
