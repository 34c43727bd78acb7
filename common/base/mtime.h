/* mtime.h: modification time in nanoseconds, used to detect changed files. */
#ifndef MTIME_H
#define MTIME_H

#include <stdint.h>
#include <sys/stat.h>

/* When the file was last modified, in nanoseconds since the epoch. */
static inline int64_t mtime_ns(const struct stat *status)
{
    return (int64_t)status->st_mtim.tv_sec * 1000000000 + status->st_mtim.tv_nsec;
}

#endif
