/* folded_name.h: names as the least exact filesystems compare them. */
#ifndef FOLDED_NAME_H
#define FOLDED_NAME_H

/* A path without what some filesystem ignores: case; the form of characters (Unicode normalization,
 * compatible ones included, as ZFS can); characters that are not shown (ext4's casefold, HFS+);
 * dots and spaces that end a component (FAT, SMB). Two names are one file there only if these are
 * equal. What is not UTF-8 stays as it is. The caller frees it. */
char *folded_name(const char *path);

#endif
