/* status.h: what a program tells the pipeline script that runs it, through a pipe that the script
 * gave it: lines of JSON. Nothing depends on whether anybody reads them: what cannot be written at
 * once is dropped, and no call fails.
 *
 * The script says in SEEKPIPE_STATUS which pipe that is: DESCRIPTOR:pipe:[INODE], the number and
 * what /proc says of it. So a descriptor of that number that is something else is left alone. */
#ifndef STATUS_H
#define STATUS_H

#include <stdbool.h>

/* The pipe, which the caller closes; -1 if there is none. */
int status_open(void);

/* Write a line (without its newline, shorter than STATUS_LINE) to what status_open() returned. */
enum { STATUS_LINE = 2048 };
void status_send(int fd, const char *line);

/* A message for people that was printed on standard error, for the script's log. */
void status_say(const char *message);

/* True if standard error is a terminal on which a block can be drawn, and the run is in its
 * foreground: the process SEEKPIPE_TERMINAL, which the script names, or else this one. */
bool status_draws(void);

/* What to print on standard error before a message: nothing, or, if the script draws a block
 * there (status_draws()), what erases it. Its cursor rests at the beginning of the block. */
const char *status_eraser(void);

#endif
