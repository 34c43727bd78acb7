/* mtime.h: by what a file is known to be the same. */
#ifndef MTIME_H
#define MTIME_H

#include <stdint.h>
#include <sys/stat.h>

/* When the file was last written, in nanoseconds since the epoch. */
static inline int64_t mtime_ns(const struct stat *status)
{
    return (int64_t)status->st_mtim.tv_sec * 1000000000 + status->st_mtim.tv_nsec;
}

#endif
