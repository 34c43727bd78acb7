#include "quantize/zeros.h"

#include "base/die.h"

void zeros_begin(struct ts_out *out)
{
    ts_count(out, NULL, "zero_weights", 0);
}

void zeros_add(struct ts_out *out, const char *name, bool verbose)
{
    ts_count(out, NULL, "zero_weights", 1);
    ts_count_first(out, "zero_first", name);
    if (verbose)
        warn("%s: all zero", name);
}
