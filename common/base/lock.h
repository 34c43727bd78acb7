/* lock.h: one program at a time in a folder. */
#ifndef LOCK_H
#define LOCK_H

#include <stdbool.h>

/* Lock an open folder, until its descriptor is closed. False if another program holds the lock. On
 * a filesystem without locks, the process ends: two programs would spoil each other's files there.
 * `path` names the folder in errors. */
bool lock_folder(int folder, const char *path);

#endif
