/* side_name.h: which names side files may have. st-read leaves the others out, and a stream that
 * has one is refused: what a stream's maker wants to be written is not what its reader wants to
 * run. */
#ifndef SIDE_NAME_H
#define SIDE_NAME_H

#include <stdbool.h>

enum { SIDE_FILE_DEPTH_MAX = 16 }; /* folders that a side file may lie in, below the checkpoint's */

/* True for a name that a side file may have: a relative path in UTF-8, composed (Unicode's form
 * NFC), of less than 1024 bytes and at most SIDE_FILE_DEPTH_MAX folders, without empty, "." or ".."
 * components and control characters. */
bool side_file_name_valid(const char *name);

/* True for names that are never side files: a checkpoint's shards and index; hidden files; what
 * makes git take a folder for a repository, whose configuration names programs to run; and what
 * downloads, training and other formats leave behind. A folder of such a name is left out with all
 * that is in it. `name` is relative to the checkpoint's folder; what is such a name on some
 * filesystem (folded_name.h) is one, too. */
bool side_file_excluded(const char *name);

#endif
