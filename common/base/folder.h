/* folder.h: the files of a program in an open folder, by patterns of fnmatch(3). `fd` is the
 * folder, `path` its name in errors, which end the process. */
#ifndef FOLDER_H
#define FOLDER_H

#include <stdint.h>

/* Bytes on the disk of the files whose names match. */
uint64_t folder_bytes(int fd, const char *path, const char *pattern);

/* Remove the files whose names match. */
void folder_remove(int fd, const char *path, const char *pattern);

/* Wait until the names in it are on the disk. */
void folder_sync(int fd, const char *path);

#endif
