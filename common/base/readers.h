/* readers.h: who may read what this process writes: nobody who may not read all that it is made of.
 * The umask knows. */
#ifndef READERS_H
#define READERS_H

enum { READERS_ALL = 0044 }; /* permissions of files: group and others may read them */

/* From now on, new files are only for those of group and others who may read a file of these
 * permissions. */
void readers_limit(unsigned mode);

/* The same with the permissions of an open file. A pipe says nothing. */
void readers_limit_to(int fd);

/* Who may read new files now: bits of READERS_ALL. */
unsigned readers(void);

#endif
