/* answers.h: what is asked about a run's folder without a stream. Each prints its answer on
 * standard output. */
#ifndef ANSWERS_H
#define ANSWERS_H

#include "base/args.h"

/* The state of DST in one word: absent, partial, complete or other (output_dir_state()). */
void answer_state(const char *path);

/* The shards that an interrupted run did not finish, a line each; nothing where DST only waits for
 * its last step. Where there is no such run, the process ends. */
void answer_todo(const char *path);

/* The same for part `part->a` of `part->b`. */
void answer_todo_part(const char *path, const struct arg_pair *part);

#endif
