/* entries.h: streams without their tar, for fuzzers of what readers make of the entries. entries.c
 * stands in for stream/tar_in.c: a change of the input changes an entry, never the frame around it
 * (the target `stream` is for that), and ten times as many inputs are read in the same time. */
#ifndef ENTRIES_H
#define ENTRIES_H

#include <stddef.h>
#include <stdint.h>

/* What any ts_open() of ENTRIES_PATH reads from now on: entries, with "\n%%\n" between two. An
 * entry is its name, a tab and its target if it is a link, a newline, and its bytes. The digits of
 * a digest in .end become the right ones where they are all 0. `data` is borrowed. */
#define ENTRIES_PATH "/dev/null"
void entries_set(const uint8_t *data, size_t size);

/* Take the first entry's bytes off such data: where they begin, and their size in *size. The rest
 * begins at *rest. */
const uint8_t *entries_cut(const uint8_t *data, size_t *size, const uint8_t **rest,
                           size_t *rest_size);

#endif
