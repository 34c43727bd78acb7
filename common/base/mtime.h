/* mtime.h: times of a file in nanoseconds, by which changed files are detected. */
#ifndef MTIME_H
#define MTIME_H

#include <stdint.h>
#include <sys/stat.h>

/* When the file was last modified, in nanoseconds since the epoch. */
static inline int64_t mtime_ns(const struct stat *status)
{
    return (int64_t)status->st_mtim.tv_sec * 1000000000 + status->st_mtim.tv_nsec;
}

/* When its status was last changed: by writing, renaming, linking, or another mode. Only the kernel
 * sets this time. */
static inline int64_t ctime_ns(const struct stat *status)
{
    return (int64_t)status->st_ctim.tv_sec * 1000000000 + status->st_ctim.tv_nsec;
}

#endif
