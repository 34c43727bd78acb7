/* skeleton: the smallest stage: every tensor passes, by reference if it came so. It is kept
 * compiling and tested so that a new stage can begin as a copy of it: this file to stages/NAME.c,
 * some page of man/ to man/NAME.1, skeleton.bats to test/bats/NAME.bats. Nothing else lists the
 * programs. */
#include "stream/ts.h"

static const struct program program = {
    .about = "Copy a tensor stream.",
    .operands = {"[stream]"},
    .max_operands = 1,
};

/* The outgoing table: here, the incoming one. Names, dtypes, shapes and order are decided now. */
static struct toc *plan(const struct toc *in)
{
    struct toc *out = toc_new();
    for (size_t i = 0; i < in->count; i++)
        toc_copy(out, in, i);
    return out;
}

int main(int argc, char **argv)
{
    struct stage stage;
    stage_begin(&stage, &program, NULL, argc, argv);
    struct ts_in *in = ts_open(stage_input(&stage), &stage);
    struct toc *toc = plan(ts_toc(in));
    struct ts_out *out = ts_create(&stage, in, toc);
    while (ts_next(in))
        ts_pass(out, in);
    ts_finish(out, in, NULL);
    toc_free(toc);
    return stage_end(&stage);
}
