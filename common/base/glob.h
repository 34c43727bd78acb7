/* glob.h: patterns of names, as fnmatch(3) without flags has them: "layers.*.w[123]". */
#ifndef GLOB_H
#define GLOB_H

#include <stdbool.h>

/* True if the pattern matches all of the name, which is ASCII. fnmatch() converts both to wide
 * characters first, which takes ten times as long. */
bool glob_matches(const char *pattern, const char *name);

#endif
