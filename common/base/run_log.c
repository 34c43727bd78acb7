#include "base/run_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/die.h"
#include "base/output.h"
#include "base/owner.h"
#include "base/text.h"

/* Another user could have left anything under that name. */
static const char *fault_of(int fd, const char *path)
{
    struct stat status;
    char *name = output_folder_of(path);
    int folder = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const char *fault = NULL;
    free(name);
    if (folder < 0 || fstat(fd, &status))
        fault = strerror(errno);
    else if (!S_ISREG(status.st_mode))
        fault = "is not a regular file";
    else if (status.st_nlink != 1)
        fault = "has other names, too";
    else if (!owner_is_self(fd, folder))
        fault = "belongs to another user";
    if (folder >= 0)
        close(folder);
    return fault;
}

int run_log_open(const char *path, const char **reason)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    *reason = fd >= 0 ? fault_of(fd, path) : errno == ELOOP ? "is a link" : strerror(errno);
    if (fd >= 0 && *reason) {
        close(fd);
        fd = -1;
    }
    return fd;
}

void run_log_add(int fd, const char *who, const char *text)
{
    char stamp[32];
    struct tm tm;
    time_t clock = time(NULL);
    if (fd < 0 || !localtime_r(&clock, &tm) ||
        !strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &tm))
        return;
    char *line = xprintf("%s %s: %s", stamp, who, text);
    size_t length = strlen(printable(line));
    line[length] = '\n'; /* in the place of the NUL */
    if (write(fd, line, length + 1) < 0)
        errno = 0; /* lost */
    free(line);
}
