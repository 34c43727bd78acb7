#include "cpu/piece.h"

struct piecewise {
    piece *run;
    const void *args;
};

static void run_piece(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    const struct piecewise *operation = context;
    (void)thread;
    operation->run(operation->args, first, last);
}

void cpu_each_row(struct device *d, uint64_t rows, uint64_t elements, piece *run, const void *args)
{
    parallel_for(cpu_of(d)->threads, rows, cpu_grain(elements), run_piece,
                 &(struct piecewise){run, args});
}
