/* hub.h: names of checkpoints on the Hugging Face hub, given where a folder is wanted. Nothing is
 * downloaded. */
#ifndef HUB_H
#define HUB_H

#include <stdbool.h>

/* True for OWNER/NAME as the hub has them: each part of letters, digits and "-_.", which begins and
 * ends with none of "-.", and no "--" or ".." in it. */
bool hub_is_name(const char *text);

/* The folder that is meant by `path`, which the caller frees: `path` itself, if it is there or can
 * be no name on the hub; otherwise the absolute path of the snapshot that the cache has of the
 * branch main. The cache is the folder $HF_HUB_CACHE or $HUGGINGFACE_HUB_CACHE, its older name, or
 * $HF_HOME/hub, or huggingface/hub in $XDG_CACHE_HOME or ~/.cache. A leading "~" in these is the
 * user's own folder.
 *
 * Without a snapshot, ends the process with the command that downloads it; unless a folder OWNER is
 * here, in which the user may have meant a file: then it is `path`, too. A cache whose refs/main
 * holds anything but a commit's digits ends the process. */
char *hub_folder(const char *path);

/* What people call the checkpoint in a folder with this absolute path: OWNER/NAME of a snapshot in
 * a cache, the folder's own name of another one. The caller frees it. NULL if it has none, or for
 * NULL. */
char *hub_label(const char *folder);

#endif
