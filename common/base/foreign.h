/* foreign.h: what other users put in the way, in a folder that they can write in, too. */
#ifndef FOREIGN_H
#define FOREIGN_H

#include <stdbool.h>

/* True if the name is a link, device or FIFO of another user, but not of root. Whoever made it
 * chose what would be written by it. False if there is nothing of that name. */
bool is_foreign(const char *path);

#endif
