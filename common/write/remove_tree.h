/* remove_tree.h: removing folders that others may be able to write in. */
#ifndef REMOVE_TREE_H
#define REMOVE_TREE_H

#include <stdbool.h>

/* Remove everything in an open folder but the entry `keep` (NULL: everything). Names are looked up
 * from open folders and links are not followed, so nothing outside is removed even if somebody
 * moves things meanwhile; neither is what is mounted there. False and errno at the first that
 * cannot be removed, EXDEV if something is mounted on it. */
bool remove_content(int folder, const char *keep);

#endif
