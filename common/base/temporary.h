/* temporary.h: files without a name, which are gone when they are closed. */
#ifndef TEMPORARY_H
#define TEMPORARY_H

/* The folder for them: $TMPDIR, or /tmp. */
const char *temporary_folder(void);

/* A new file in `folder` for reading and writing, as a descriptor; -1 and errno if that fails. A
 * filesystem without O_TMPFILE (FUSE, NFS) gives the file a name for a moment. */
int temporary_file(const char *folder);

#endif
