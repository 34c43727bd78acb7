/* short.so, preloaded: a read or write moves fewer bytes than was asked, as the kernel may do.
 * SHORT_CALL is which (read, pread64, write, pwrite64, copy_file_range), SHORT_AT the number of the
 * call that does (from 1; 0: each), SHORT_MOST how many bytes it moves at most. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* What remains of `count` bytes in this call of `name`. */
static size_t allowed(const char *name, size_t count)
{
    static atomic_long calls;
    const char *call = getenv("SHORT_CALL"), *at = getenv("SHORT_AT"), *most = getenv("SHORT_MOST");
    if (!call || !at || !most || strcmp(call, name) != 0)
        return count;
    long number = atomic_fetch_add(&calls, 1) + 1, wanted = strtol(at, NULL, 10);
    size_t bytes = strtoul(most, NULL, 10);
    return (wanted == 0 || wanted == number) && bytes < count ? bytes : count;
}

ssize_t read(int fd, void *data, size_t count)
{
    return syscall(SYS_read, fd, data, allowed("read", count));
}

ssize_t pread64(int fd, void *data, size_t count, off_t offset)
{
    return syscall(SYS_pread64, fd, data, allowed("pread64", count), offset);
}

ssize_t write(int fd, const void *data, size_t count)
{
    return syscall(SYS_write, fd, data, allowed("write", count));
}

ssize_t pwrite64(int fd, const void *data, size_t count, off_t offset)
{
    return syscall(SYS_pwrite64, fd, data, allowed("pwrite64", count), offset);
}

ssize_t copy_file_range(int in, off_t *in_offset, int out, off_t *out_offset, size_t count,
                        unsigned flags)
{
    return syscall(SYS_copy_file_range, in, in_offset, out, out_offset,
                   allowed("copy_file_range", count), flags);
}
