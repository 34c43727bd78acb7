#include "base/number.h"

#include <ctype.h>
#include <string.h>

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

char *number_put(char *p, uint64_t number)
{
    char digit[NUMBER_TEXT];
    size_t n = 0;
    do
        digit[n++] = (char)('0' + number % 10);
    while (number /= 10);
    while (n > 0)
        *p++ = digit[--n];
    return p;
}

int natural_compare(const char *a, const char *b)
{
    while (*a && *b) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            const char *x = a + strspn(a, "0"), *y = b + strspn(b, "0");
            size_t m = strspn(x, "0123456789"), n = strspn(y, "0123456789");
            if (m != n)
                return m < n ? -1 : 1;
            int difference = strncmp(x, y, m);
            if (difference)
                return difference;
            a = x + m;
            b = y + n;
        } else if (*a != *b) {
            return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
        } else {
            a++;
            b++;
        }
    }
    return *a ? 1 : *b ? -1 : 0;
}
