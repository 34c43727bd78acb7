/* pipe-rate [BYTES]: how fast a pipe is, in blocks of 1 MiB.
 *
 * With BYTES: write that many to standard output, from memory far larger than caches, as fresh data
 * is. Without: read standard input to its
 * end, and print how many bytes came in a second, from the first one on. So
 *
 *     pipe-rate 4000000000 | pipe-rate
 *
 * is what the pipe alone can do, and "fp8-dequant x.ts | pipe-rate" what a stage puts into it. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "die.h"

enum { BLOCK = 1 << 20, BLOCKS = 256 };

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void write_bytes(uint64_t left)
{
    char *block = xalloc(BLOCKS, BLOCK);
    memset(block, 1, (size_t)BLOCKS * BLOCK);
    fcntl(STDOUT_FILENO, F_SETPIPE_SZ, BLOCK);
    for (size_t i = 0; left; i = (i + 1) % BLOCKS) {
        ssize_t put = write(STDOUT_FILENO, block + i * BLOCK, left < BLOCK ? (size_t)left : BLOCK);
        if (put < 0)
            die_errno("standard output");
        left -= (uint64_t)put;
    }
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
    if (argc > 1)
        write_bytes(strtoull(argv[1], NULL, 10));
    else
        read_all();
    return 0;
}
