/* skeleton: the smallest stage: every tensor passes, by reference if it came so. It is kept
 * compiling and tested so that a new stage can begin as a copy of it: this file to stages/NAME.c,
 * some page of man/ to man/NAME.1, skeleton.bats to test/NAME.bats. Nothing else lists the
 * programs. */
#include "stream/ts.h"

static const char usage[] = "usage: skeleton [-hnqv] [-o file] [--progress] [stream]\n"
                            "\n"
                            "Copy a tensor stream.\n"
                            "\n"
                            "  -n, --plan       write the table only, no tensors\n"
                            "  -o, --output F   write to F instead of standard output\n"
                            "      --progress   show bytes, rate and time left\n"
                            "  -q, --quiet      no messages but errors\n"
                            "  -v, --verbose    no more messages than without\n"
                            "  -h, --help       this text\n"
                            "      --version    the version\n";

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
    stage_begin(&stage, usage, NULL, argc, argv, 1);
    struct ts_in *in = ts_open(stage_input(&stage), &stage);
    struct toc *toc = plan(ts_toc(in));
    struct ts_out *out = ts_create(&stage, in, toc);
    while (ts_next(in))
        ts_pass(out, in);
    ts_finish(out, in, NULL);
    toc_free(toc);
    return stage_end(&stage);
}
