#include "write/movable.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"

/* The kernel looks whether the old name can go before it looks whether a folder of the new name is
 * empty. So a rename to one that is not empty fails either way, and the error tells. */
int folder_resists(const char *path, const char *parent)
{
    int error = 0;
    char *full = xprintf("%s/.seekpipe-XXXXXX", parent);
    if (mkdtemp(full)) {
        char *content = xprintf("%s/full", full);
        bool made = !mkdir(content, 0700);
        if (made && rename(path, full))
            error = errno;
        else if (made && rename(full, path)) /* a filesystem that renames all the same */
            die_errno("%s: is now at %s, and could not be renamed back", path, full);
        rmdir(content);
        rmdir(full);
        free(content);
    }
    free(full);
    return error == EBUSY || error == EXDEV || error == EPERM ? error : 0;
}
