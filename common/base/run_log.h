/* run_log.h: the log of a run, a file for its user alone, which grows from run to run. */
#ifndef RUN_LOG_H
#define RUN_LOG_H

/* Open `path` at its end; it is made if it is not there. Returns the descriptor, or -1, with
 * *reason (static) why not: it is a link, not a regular file, has other names or another owner, or
 * cannot be opened. */
int run_log_open(const char *path, const char **reason);

/* Add a line: the time of day, `who: text`, a newline; all in one write. What the disk does not
 * take is lost. */
void run_log_add(int fd, const char *who, const char *text);

#endif
