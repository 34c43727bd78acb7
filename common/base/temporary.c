#include "base/temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/die.h"

const char *temporary_folder(void)
{
    const char *folder = getenv("TMPDIR");
    return folder && *folder ? folder : "/tmp";
}

int temporary_file(const char *folder)
{
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;
    char *path = xprintf("%s/.seekpipe-XXXXXX", folder);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0 && unlink(path))
        die_errno("%s", path);
    int error = errno;
    free(path);
    errno = error;
    return fd;
}
