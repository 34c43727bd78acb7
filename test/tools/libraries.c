/* libraries FILE...: where shared libraries that a machine may have or not (library.h) lie on this
 * one: a line each, the file's name and its path or "not found". */
#include <stdio.h>
#include <stdlib.h>

#include "base/die.h"
#include "base/library.h"

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *path = library_path(argv[i]);
        printf("%s: %s\n", argv[i], path ? path : "not found");
        free(path);
    }
    return fflush(stdout) ? EXIT_FAILED : 0;
}
