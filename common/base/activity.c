#include "base/activity.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* True if the kernel says that the thread sleeps and cannot be interrupted: for a disk, as a rule.
 */
static bool waits_for_disk(int tasks, const char *thread)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "%.32s/stat", thread);
    int fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (length < 0)
        return false;
    text[length] = 0;
    const char *after = strrchr(text, ')'); /* the name before it may hold anything */
    return after && !strncmp(after, ") D", 3);
}

void activity_sample(struct activity *activity, double seconds)
{
    struct timespec cpu = {0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    activity->cpu = (double)cpu.tv_sec + 1e-9 * (double)cpu.tv_nsec;
    DIR *tasks = opendir("/proc/self/task");
    bool disk = false;
    for (struct dirent *entry; tasks && !disk && (entry = readdir(tasks));)
        disk = *entry->d_name != '.' && waits_for_disk(dirfd(tasks), entry->d_name);
    if (tasks)
        closedir(tasks);
    activity->disk += disk ? seconds : 0;
}
