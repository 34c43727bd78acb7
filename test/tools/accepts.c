/* accepts: reads safetensors files from standard input, each after its size (u32, little-endian),
 * and says of each, in a line, "yes", or "no: " and what is wrong with it. For
 * test/fuzz/differential. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/die.h"
#include "stream/safetensors.h"

static bool read_all(void *data, size_t size)
{
    size_t got = fread(data, 1, size, stdin);
    if (got != size && (got || !feof(stdin)))
        die("standard input ends within a file");
    return got == size;
}

/* As checkpoint_open() reads it: the header, then whether names are unique. */
static void judge(int fd, const void *bytes, size_t size)
{
    uint64_t *offset = NULL;
    size_t line;
    if (ftruncate(fd, 0) || pwrite(fd, bytes, size, 0) != (ssize_t)size)
        die_errno("a file in memory");
    struct toc *toc = toc_new();
    char *error = safetensors_read(fd, size, toc, toc_shard(toc, "s"), &offset);
    const char *twice = error ? NULL : toc_check_unique(toc, &line);
    if (error || twice)
        printf("no: %s\n", error ? error : twice);
    else
        puts("yes");
    free(error);
    free(offset);
    toc_free(toc);
}

int main(void)
{
    unsigned char size[4];
    int fd = memfd_create("accepts", 0);
    if (fd < 0)
        die_errno("a file in memory");
    while (read_all(size, sizeof size)) {
        size_t bytes =
            size[0] | (size_t)size[1] << 8 | (size_t)size[2] << 16 | (size_t)size[3] << 24;
        char *data = xgrow(NULL, bytes, 1);
        if (bytes && !read_all(data, bytes))
            die("standard input ends within a file");
        judge(fd, data, bytes);
        free(data);
    }
    return fflush(stdout) ? EXIT_FAILED : 0;
}
