#include "base/number.h"

#include "base/die.h"

bool number_parse(const char **text, uint64_t max, uint64_t *number)
{
    const char *p = *text;
    uint64_t value = 0;
    for (; *p >= '0' && *p <= '9'; p++)
        if (!mul_fits(value, 10, &value) || !add_fits(value, (uint64_t)(*p - '0'), &value) ||
            value > max)
            return false;
    if (p == *text)
        return false;
    *text = p;
    *number = value;
    return true;
}
