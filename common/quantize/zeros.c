#include "quantize/zeros.h"

#include <string.h>

#include "base/die.h"

bool zeros_only(const void *data, size_t size)
{
    const char *byte = data;
    return size && !byte[0] && !memcmp(byte, byte + 1, size - 1);
}

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
