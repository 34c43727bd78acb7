/* config.h: config.json read key by key. A key that is missing or makes no sense ends the process
 * with a line that names the stream, the key and what was wanted. */
#ifndef FORWARD_CONFIG_H
#define FORWARD_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "stream/ts.h"

struct config {
    char *stream; /* the stream's name, for messages */
    json_t *json; /* an object */
};

/* Read a stream's config.json; without one, end the process. The caller closes it with
 * config_close(). */
void config_open(struct config *config, struct ts_in *in);
void config_close(struct config *config);

/* The value of a key, which must exist. Borrowed. */
const json_t *config_member(const struct config *config, const char *key);

/* A key's value that must be an object. Borrowed: do not close it. */
struct config config_object(const struct config *config, const char *key);

/* An integer of at least `least`; for a size, of at least 1. Of sizes that no tensor's shape is
 * compared with, config_within() bounds time and memory: an integer from `least` to `most`. */
uint64_t config_count(const struct config *config, const char *key, uint64_t least);
uint64_t config_size(const struct config *config, const char *key);
uint64_t config_within(const struct config *config, const char *key, uint64_t least, uint64_t most);

/* A nonnegative integer; 0 where the key is missing. */
uint64_t config_optional(const struct config *config, const char *key);

/* The first `count` nonnegative integers of a list that may be longer; the caller frees them.
 * `what` describes them in messages. */
uint64_t *config_list(const struct config *config, const char *key, uint64_t count,
                      const char *what);

/* A number of at least `least`. */
double config_real(const struct config *config, const char *key, double least);

/* The index of the value, a string, among `count` names, at least two. */
unsigned config_choice(const struct config *config, const char *key, const char *const *names,
                       unsigned count);

/* Unless `fits`, end the process with `what` is wrong. */
void config_check(const struct config *config, bool fits, const char *what);

#endif
