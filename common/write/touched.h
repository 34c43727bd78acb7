/* touched.h: notice in the journal that something happened to a source file since the run began.
 *
 * A note "source LABEL CTIME PATH" says when the file's status last changed. No program can set
 * that time, unlike size and mtime, which are part of the run's identity: a file that was replaced
 * by one of the same size and mtime has another ctime. So has one that was only linked or given
 * other permissions, which is why the run goes on, and writes again what was made of it. */
#ifndef TOUCHED_H
#define TOUCHED_H

#include "base/names.h"
#include "stream/source.h"

/* The notes for all of `sources`, which the caller frees. */
char *touched_notes(const struct sources *sources);

/* The labels of files that have another ctime than the last of their notes says. A file that is not
 * there, as on another machine, is not among them. The caller frees the result. */
struct names *touched_labels(const char *notes);

#endif
