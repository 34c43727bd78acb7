/* owner.h: whose files are, where several users can write. */
#ifndef OWNER_H
#define OWNER_H

#include <stdbool.h>

/* True if the open file or folder has the owner that files which this process makes in the open
 * folder get: only then nobody else chose what is in it. On NFS, root may be somebody else. */
bool owner_is_self(int fd, int folder);

/* End the process if the open folder at `path`, in which a run is to go on, is not of this user. */
void owner_refuse_other(int folder, const char *path);

/* End the process if somebody else could have put a link or FIFO on the way to `path`, or there: in
 * a sticky folder that everybody may write in, such as /tmp, it must be of this user or of the
 * folder's owner. What is not there, and everything in other folders, is none of it. The same for a
 * file that could not be replaced, because it is another user's in a sticky folder. */
void owner_refuse_planted(const char *path);

#endif
