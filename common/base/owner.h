/* owner.h: whose files are, where several users can write. */
#ifndef OWNER_H
#define OWNER_H

#include <stdbool.h>

/* True if the open file or folder has the owner that files which this process makes in the open
 * folder get: only then nobody else chose what is in it. On NFS, root may be somebody else. */
bool owner_is_self(int fd, int folder);

/* End the process if the open folder at `path`, in which a run is to go on, is not of this user. */
void owner_refuse_other(int folder, const char *path);

/* End the process if `path` is a link, FIFO or device that neither this user nor root made, or
 * leads through such a link in a sticky folder that everybody may write in, such as /tmp, unless
 * the folder's owner made it. What is not there is none of it. */
void owner_refuse_planted(const char *path);

#endif
