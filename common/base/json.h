/* json.h: JSON walked key by key, for documents too large to load as a tree: safetensors headers
 * (99 MB of it is legal) and indexes of 300,000 tensors. Small documents go through Jansson.
 *
 * A walker reads through a window of a few KiB, holds one token at a time, and checks grammar,
 * UTF-8, nesting and bounds as it goes. Errors stick: the first one is kept as a text with its
 * offset, and everything after it fails. */
#ifndef JSON_H
#define JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Copies up to `room` bytes of the document to `data`; returns how many, 0 at the end. */
typedef size_t json_fill(void *context, char *data, size_t room);

struct json_walk;

/* A walker over what `fill` delivers. The caller ends it with json_walk_free(). */
struct json_walk *json_walk_new(json_fill *fill, void *context);
void json_walk_free(struct json_walk *walk);

/* NULL, or the text of the first error ("offset 12: …"), owned by the walker. */
const char *json_walk_error(const struct json_walk *walk);

/* Enter an object or array; then json_walk_key() or json_walk_item() says whether another member
 * follows (true; read its value next) or the end was passed (false; also after an error). */
bool json_walk_object(struct json_walk *walk);
bool json_walk_array(struct json_walk *walk);

/* *key is valid until the next call on the walker. */
bool json_walk_key(struct json_walk *walk, const char **key);
bool json_walk_item(struct json_walk *walk);

/* Values. NULL or false after an error. Strings are unescaped, valid until the next call, hold no
 * NUL, and are at most 64 KiB; numbers are non-negative integers below 2^64. */
const char *json_walk_string(struct json_walk *walk);
bool json_walk_number(struct json_walk *walk, uint64_t *number);

/* Read past a value of any kind. */
bool json_walk_skip(struct json_walk *walk);

/* After the outermost value: true if only white space follows. */
bool json_walk_end(struct json_walk *walk);

/* Set the error from outside ("what the caller found wrong"), with the present offset; made
 * printable(). */
void json_walk_fail(struct json_walk *walk, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Text from outside made fit for one line of a message, in place: what is not printable ASCII
 * becomes '?'. Returns text. */
char *printable(char *text);

/* A whole small file as a tree that the caller owns; ends the process with name, line and reason if
 * it is no JSON object. `name` is for messages. */
json_t *json_object_from(const char *data, size_t length, const char *name);

/* `value` as JSON text with a newline behind, keys in the object's own order or
 * sorted. The caller frees it. */
char *json_text(const json_t *value, bool indent, bool sorted);

#endif
