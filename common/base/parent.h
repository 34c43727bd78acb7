/* parent.h: a stage of a pipeline script ends with the shell that started it. */
#ifndef PARENT_H
#define PARENT_H

/* From now on, this process gets SIGTERM when its parent ends, however that is; or at once, if it
 * has ended already. Only in the process group that a pipeline script made for its stages and said
 * in SEEKPIPE_GROUP: its shells wait for all that they start. */
void parent_follow(void);

#endif
