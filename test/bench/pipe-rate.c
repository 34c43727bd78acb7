/* pipe-rate [BYTES | FILE]: how fast a pipe is, in blocks of 1 MiB.
 *
 * With BYTES: write that many to standard output, from memory far larger than caches, as fresh data
 * is. With FILE (that has a '/' in its name): write what it holds. Without either: read standard
 * input to its end, and print how many bytes came in a second, from the first one on. So
 *
 *     pipe-rate 4000000000 | pipe-rate
 *     pipe-rate ./some.file | pipe-rate
 *
 * are what the pipe alone can do, and the same with a file behind it; "fp8-dequant x.ts |
 * pipe-rate" is what a stage puts into it. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/progress.h"

enum { BLOCK = 1 << 20, BLOCKS = 256 };

static void put(const char *data, size_t size)
{
    while (size) {
        ssize_t written = write(STDOUT_FILENO, data, size);
        if (written < 0)
            die_errno("standard output");
        data += written;
        size -= (size_t)written;
    }
}

static void write_memory(uint64_t left)
{
    char *block = xalloc(BLOCKS, BLOCK);
    memset(block, 1, (size_t)BLOCKS * BLOCK);
    for (size_t i = 0; left; i = (i + 1) % BLOCKS) {
        size_t size = left < BLOCK ? (size_t)left : BLOCK;
        put(block + i * BLOCK, size);
        left -= size;
    }
    free(block);
}

static void write_file(const char *path)
{
    char *block = xalloc(BLOCK, 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die_errno("%s", path);
    for (ssize_t got; (got = read(fd, block, BLOCK)) != 0;) {
        if (got < 0)
            die_errno("%s", path);
        put(block, (size_t)got);
    }
    close(fd);
    free(block);
}

static void read_all(void)
{
    char *block = xalloc(BLOCK, 1);
    double start = 0;
    uint64_t bytes = 0;
    fcntl(STDIN_FILENO, F_SETPIPE_SZ, BLOCK);
    for (ssize_t got; (got = read(STDIN_FILENO, block, BLOCK)) != 0;) {
        if (got < 0)
            die_errno("standard input");
        if (!bytes)
            start = now();
        bytes += (uint64_t)got;
    }
    printf("%.0f\n", (double)bytes / (now() - start));
    free(block);
}

int main(int argc, char **argv)
{
    fcntl(STDOUT_FILENO, F_SETPIPE_SZ, BLOCK);
    if (argc > 1 && strchr(argv[1], '/'))
        write_file(argv[1]);
    else if (argc > 1)
        write_memory(strtoull(argv[1], NULL, 10));
    else
        read_all();
    return 0;
}
