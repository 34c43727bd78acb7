#include "base/glob.h"

#include <fnmatch.h>
#include <stddef.h>

bool glob_matches(const char *pattern, const char *name)
{
    const char *star = NULL, *from = NULL; /* after the last '*', and where it could end */
    for (;;) {
        bool special = *pattern == '[' || *pattern == '\\';
        if (special ? !fnmatch(pattern, name, 0) : !*pattern && !*name)
            return true;
        if (*pattern == '*') {
            star = ++pattern;
            from = name;
        } else if (*name && (*pattern == '?' || (*pattern == *name && !special))) {
            pattern++;
            name++;
        } else if (star && *from) {
            pattern = star;
            name = ++from;
        } else {
            return false;
        }
    }
}
