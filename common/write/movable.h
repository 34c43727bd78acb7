/* movable.h: whether a folder can get another name, found out without giving it one. */
#ifndef MOVABLE_H
#define MOVABLE_H

/* 0, or the error with which the folder `path` in `parent` resists a rename: EBUSY (a mount point),
 * EXDEV (of overlayfs's lower layer), EPERM (immutable). Other errors, as where `parent` cannot be
 * written, are left to those who rename. Leaves nothing behind. */
int folder_resists(const char *path, const char *parent);

#endif
