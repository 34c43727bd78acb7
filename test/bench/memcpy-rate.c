/* memcpy-rate: how fast one thread copies memory here: bytes read plus bytes written per second,
 * from a block far larger than caches to another one, the best of several rounds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/progress.h"

enum { SIZE = 256 << 20, ROUNDS = 8 };

int main(void)
{
    char *from = xalloc(SIZE, 1), *to = xalloc(SIZE, 1);
    double best = 0;
    memset(from, 1, SIZE); /* pages that were never written share one page of zeros */
    memset(to, 2, SIZE);
    for (int i = 0; i < ROUNDS; i++) {
        double start = now();
        memcpy(to, from, SIZE);
        __asm__ volatile("" : : "r"(to) : "memory"); /* the copy is used */
        double rate = 2.0 * SIZE / (now() - start);
        best = rate > best ? rate : best;
    }
    printf("%.0f\n", best);
    free(from);
    free(to);
    return 0;
}
