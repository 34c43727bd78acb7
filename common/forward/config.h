/* config.h: config.json read key by key. A key that is missing or makes no sense ends the process
 * with a line that names the stream, the key and what was wanted. */
#ifndef FORWARD_CONFIG_H
#define FORWARD_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "stream/ts.h"

struct config {
    char *stream; /* what its stream is called in messages */
    json_t *json; /* an object */
};

/* That of a stream; one without config.json ends the process. Ended with config_close(). */
void config_open(struct config *config, struct ts_in *in);
void config_close(struct config *config);

/* The value of a key, which must be there. Borrowed. */
const json_t *config_member(const struct config *config, const char *key);

/* An object among the values, which must be there. Borrowed, so it is not closed. */
struct config config_object(const struct config *config, const char *key);

/* An integer from `least` on; a size is one from 1 on. */
uint64_t config_count(const struct config *config, const char *key, uint64_t least);
uint64_t config_size(const struct config *config, const char *key);

/* An integer from 0 on, or 0 where the key is missing. */
uint64_t config_optional(const struct config *config, const char *key);

/* `count` integers from 0 on, the first of a list that may be longer; the caller frees them. `what`
 * says for the message what they are. */
uint64_t *config_list(const struct config *config, const char *key, uint64_t count,
                      const char *what);

/* A number from `least` on. */
double config_real(const struct config *config, const char *key, double least);

/* The index of a text among `count` names, at least two. */
unsigned config_choice(const struct config *config, const char *key, const char *const *names,
                       unsigned count);

/* If values do not fit together, end the process with what is wrong. */
void config_check(const struct config *config, bool fits, const char *what);

#endif
