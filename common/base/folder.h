/* folder.h: the files of a program in an open folder, by patterns of fnmatch(3) with FNM_EXTMATCH.
 * `fd` is the folder, `path` its name in errors, which end the process. */
#ifndef FOLDER_H
#define FOLDER_H

#include <stdbool.h>
#include <stdint.h>

/* The file `name`, open for reading; -1 if there is none. What is no regular file, or another
 * user's, ends the process without waiting for it. */
int folder_file(int fd, const char *path, const char *name);

/* End the process if `path` leads to another folder by now: what is written there would be somebody
 * else's to change. */
void folder_refuse_moved(int fd, const char *path);

bool folder_matches(const char *name, const char *pattern);

/* Bytes on the disk of the files whose names match. */
uint64_t folder_bytes(int fd, const char *path, const char *pattern);

/* Remove the files whose names match. */
void folder_remove(int fd, const char *path, const char *pattern);

/* Wait until the names in it are on the disk. */
void folder_sync(int fd, const char *path);

#endif
