#include "quantize/zeros.h"

#include <stdlib.h>
#include <string.h>

#include "base/die.h"

bool zeros_only(const void *data, size_t size)
{
    const char *byte = data;
    return size && !byte[0] && !memcmp(byte, byte + 1, size - 1);
}

void zeros_add(struct zeros *zeros, const char *name)
{
    if (!zeros->count++)
        zeros->first = xstrdup(name);
    if (zeros->verbose)
        warn("%s: all zero", name);
}

void zeros_end(struct zeros *zeros, json_t *counts)
{
    json_object_set_new(counts, "zero_weights", json_integer((json_int_t)zeros->count));
    if (zeros->first)
        json_object_set_new(counts, "zero_first", json_string(zeros->first));
    free(zeros->first);
    zeros->first = NULL;
}
