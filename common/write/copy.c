#include "write/copy.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/zero.h"

enum { PAGE = 4096, BUFFER = 1 << 20, CLONES_PER_SAMPLE = 64 };

void read_at(int fd, uint64_t offset, void *data, uint64_t size, const char *what)
{
    for (uint64_t done = 0; done < size;) {
        ssize_t got = pread(fd, (char *)data + done, (size_t)(size - done), (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            die_errno("%s: reading at offset %" PRIu64, what, offset + done);
        if (got == 0)
            die("%s: its file ends at offset %" PRIu64 ": it changed meanwhile; run the pipeline "
                "again from st-read",
                what, offset + done);
        done += (uint64_t)got;
    }
}

void write_at(int fd, uint64_t offset, const void *data, uint64_t size, const char *what)
{
    for (uint64_t done = 0; done < size;) {
        ssize_t put =
            pwrite(fd, (const char *)data + done, (size_t)(size - done), (off_t)(offset + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            die_errno("%s: writing at offset %" PRIu64, what, offset + done);
        done += (uint64_t)put;
    }
}

static bool clone_range(int in, uint64_t in_offset, int out, uint64_t out_offset, uint64_t length)
{
    struct file_clone_range range = {
        .src_fd = in, .src_offset = in_offset, .src_length = length, .dest_offset = out_offset};
    int result;
    do
        result = ioctl(out, FICLONERANGE, &range);
    while (result && errno == EINTR);
    return !result;
}

bool can_clone(int in, int out)
{
    return clone_range(in, 0, out, 0, PAGE);
}

uint64_t compare_range(int in, uint64_t in_offset, int out, uint64_t out_offset, uint64_t length,
                       const char *what)
{
    size_t most = (size_t)at_most(length, BUFFER);
    char *a = xgrow(NULL, most, 2), *b = a + most;
    uint64_t same = 0;
    while (same < length) {
        size_t size = (size_t)at_most(length - same, most), i = 0;
        read_at(in, in_offset + same, a, size, what);
        read_at(out, out_offset + same, b, size, what);
        if (memcmp(a, b, size) != 0) {
            while (a[i] == b[i])
                i++;
            same += i;
            break;
        }
        same += size;
    }
    free(a);
    return same;
}

static bool zero_piece(int fd, uint64_t offset, size_t size, char *buffer, const char *what)
{
    read_at(fd, offset, buffer, size, what);
    return zeros_only(buffer, size);
}

/* Where the next data (SEEK_DATA) or hole (SEEK_HOLE) from `at` on is; at most `end`. Without a
 * word of the filesystem, all is data. */
static uint64_t seek(int fd, uint64_t at, uint64_t end, int whence)
{
    off_t found = lseek(fd, (off_t)at, whence);
    if (found < 0)
        return errno == ENXIO || whence == SEEK_HOLE ? end : at; /* ENXIO: no data up to the end */
    return at_most((uint64_t)found, end);
}

/* True if a piece is in a hole, so that it need not be read. In a file without holes this is not
 * asked: there it may cost as much as reading, as on a network. */
static bool in_hole(int fd, uint64_t offset, uint64_t size)
{
    enum { BLOCK = 512 }; /* of st_blocks, whatever the filesystem's is */
    struct stat status;
    return !fstat(fd, &status) && status.st_blocks < status.st_size / BLOCK &&
           seek(fd, offset, offset + size, SEEK_DATA) == offset + size;
}

bool zero_range(int fd, uint64_t offset, uint64_t length, const char *what)
{
    char *buffer = xgrow(NULL, BUFFER, 1);
    uint64_t end = offset + length, size = at_most(length, PAGE),
             middle = offset + (length - size) / 2;
    bool zero = length && (in_hole(fd, middle, size) || zero_piece(fd, middle, size, buffer, what));
    for (uint64_t at = offset; zero && (at = seek(fd, at, end, SEEK_DATA)) < end; at += size) {
        size = at_most(seek(fd, at, end, SEEK_HOLE) - at, BUFFER);
        zero = zero_piece(fd, at, size, buffer, what);
    }
    free(buffer);
    return zero;
}

/* Copies through memory, for pairs of filesystems that the kernel does not copy between. */
static void copy_by_hand(int in, uint64_t in_offset, int out, uint64_t out_offset, uint64_t length,
                         const char *what)
{
    char *buffer = xgrow(NULL, BUFFER, 1);
    for (uint64_t done = 0; done < length;) {
        uint64_t size = length - done < BUFFER ? length - done : BUFFER;
        read_at(in, in_offset + done, buffer, size, what);
        write_at(out, out_offset + done, buffer, size, what);
        done += size;
    }
    free(buffer);
}

void copy_range(struct copier *copier, int in, uint64_t in_offset, int out, uint64_t out_offset,
                uint64_t length, const char *what)
{
    copier->copied += length;
    while (length) {
        off_t from = (off_t)in_offset, to = (off_t)out_offset;
        ssize_t done = copy_file_range(in, &from, out, &to, (size_t)length, 0);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && errno != EXDEV && errno != ENOSYS && errno != EOPNOTSUPP &&
            errno != EINVAL && errno != EPERM)
            die_errno("%s: copying to offset %" PRIu64, what, out_offset);
        if (done <= 0)
            break; /* some filesystems return 0 for what they cannot do; reading shows the actual
                    * state */
        in_offset += (uint64_t)done;
        out_offset += (uint64_t)done;
        length -= (uint64_t)done;
    }
    if (length)
        copy_by_hand(in, in_offset, out, out_offset, length, what);
}

/* Check the last page of a clone, where a misplaced range would show. */
static void check_sample(int in, uint64_t in_end, int out, uint64_t out_end, const char *what)
{
    uint64_t same = compare_range(in, in_end - PAGE, out, out_end - PAGE, PAGE, what);
    if (same < PAGE)
        die("%s: offset %" PRIu64 ": shared with the source, but reads differently: the filesystem "
            "cannot be trusted; --no-share copies instead",
            what, out_end - PAGE + same);
}

bool share_range(struct copier *copier, int in, uint64_t in_offset, int out, uint64_t out_offset,
                 uint64_t length, const char *what)
{
    uint64_t head = (PAGE - in_offset % PAGE) % PAGE;
    if (copier->no_share || in_offset % PAGE != out_offset % PAGE || length < head + PAGE)
        return false;
    uint64_t middle = (length - head) / PAGE * PAGE, done = head + middle;
    if (!clone_range(in, in_offset + head, out, out_offset + head, middle)) {
        if (errno == ENOSPC || errno == EDQUOT || errno == EIO)
            die_errno("%s: sharing its pages", what);
        return false;
    }
    copier->shared += middle;
    if (copier->clones++ % CLONES_PER_SAMPLE == 0)
        check_sample(in, in_offset + done, out, out_offset + done, what);
    copy_range(copier, in, in_offset, out, out_offset, head, what);
    copy_range(copier, in, in_offset + done, out, out_offset + done, length - done, what);
    return true;
}
