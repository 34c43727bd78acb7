/* peak FILE COMMAND...: run a command, write the most memory that it took, in KiB, to FILE, and
 * exit as it did. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int fail(const char *what)
{
    fprintf(stderr, "peak: %s: %s\n", what, strerror(errno));
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct rusage usage;
    int status;
    if (argc < 3) {
        fputs("usage: peak file command ...\n", stderr);
        return EXIT_FAILURE;
    }
    pid_t child = fork();
    if (child < 0)
        return fail("fork");
    if (!child) {
        execvp(argv[2], argv + 2);
        _exit(fail(argv[2]));
    }
    if (wait4(child, &status, 0, &usage) != child)
        return fail(argv[2]);
    FILE *out = fopen(argv[1], "w");
    if (!out || fprintf(out, "%ld\n", usage.ru_maxrss) < 0 || fclose(out))
        return fail(argv[1]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}
