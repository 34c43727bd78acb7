#include "base/lock.h"

#include <errno.h>
#include <string.h>
#include <sys/file.h>

#include "base/die.h"

bool lock_folder(int folder, const char *path)
{
    int failed;
    do
        failed = flock(folder, LOCK_EX | LOCK_NB);
    while (failed && errno == EINTR);
    if (failed && errno != EWOULDBLOCK)
        die("%s: cannot be locked against a second program (flock: %s); mount its filesystem with "
            "locks (Lustre: -o flock), or choose a folder on another one",
            path, strerror(errno));
    return !failed;
}
