/* reach.h: which files a checkpoint or a stream may lead to.
 *
 * A stream's references, and links in a downloaded folder, are read with the rights of whoever
 * reads them, and what they lead to ends up in the output. So a file must be one of these:
 *
 *   what everybody may read: itself, and every folder on the way to it;
 *   tensors: a file that ends in .safetensors;
 *   a file in the checkpoint's folder (which .stream names), but for a stream's tensors;
 *   a blob of the Hugging Face cache that this folder is a snapshot in;
 *   a file below a folder that $SEEKPIPE_ALLOW names, of several separated by ':'.
 *
 * A stream may name any folder as its own. Its side files by reference are larger than 1 MiB, as
 * st-read makes them, which keys and passwords are not. */
#ifndef REACH_H
#define REACH_H

#include <stdbool.h>

/* End the process unless the file at `real`, where `path` leads to with all links resolved, may be
 * read for the checkpoint in `folder` (links resolved, too; NULL: not known). With `claimed`, only
 * a stream says that tensors are there: that the file is in the folder is not enough. */
void reach_check(const char *path, const char *real, const char *folder, bool claimed);

/* The same for what is open, whatever `path`, by which it was opened, leads to by now. */
void reach_check_open(const char *path, int fd, const char *folder, bool claimed);

#endif
