/* hub.h: names of checkpoints on the Hugging Face hub, given where a folder is wanted. */
#ifndef HUB_H
#define HUB_H

/* After `path` was not found: if it can be a name on the hub (OWNER/NAME, with no folder OWNER
 * here), end the process with the command that downloads it. Otherwise do nothing. Keeps errno. */
void hub_refuse(const char *path);

#endif
