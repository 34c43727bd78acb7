/* foreign.h: files in an output folder that no one knows. */
#ifndef FOREIGN_H
#define FOREIGN_H

#include <stdbool.h>

#include "base/names.h"

/* The first file below the folder `path` that is not of these names, relative to it, and at its top
 * none that `is_known` (NULL: none more) accepts; the caller frees it. NULL if there is none. What
 * NFS and FUSE keep of removed files that are still open is not counted. */
char *foreign_file(const char *path, const struct names *names, bool (*is_known)(const char *name));

#endif
