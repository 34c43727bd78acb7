/* json.h: JSON read key by key, for documents too large to load as a tree: safetensors headers (up
 * to 99 MB) and indexes of 300,000 tensors. Small documents go through Jansson.
 *
 * A walker reads through a window of 64 KiB, holds one token at a time, and checks grammar, UTF-8,
 * nesting and bounds as it goes. It keeps the first error as a text with its offset; after that,
 * every call fails. */
#ifndef JSON_H
#define JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Copy up to `room` bytes of the document to `data`; return how many, 0 at the end. */
typedef size_t json_fill(void *context, char *data, size_t room);

/* The same from a file: `context` is an int *, the descriptor. 0 at its end and on errors. */
json_fill json_fill_file;

struct json_walk;

/* A walker over what `fill` delivers. The caller frees it with json_walk_free(). */
struct json_walk *json_walk_new(json_fill *fill, void *context);
void json_walk_free(struct json_walk *walk);

/* NULL, or the text of the first error ("JSON offset 12: …"), owned by the walker. */
const char *json_walk_error(const struct json_walk *walk);

/* Enter an object or array. Then json_walk_key() or json_walk_item() returns true if another member
 * follows (read its value next), and false after the end or an error. */
bool json_walk_object(struct json_walk *walk);
bool json_walk_array(struct json_walk *walk);

/* *key is valid until the next call on the walker. */
bool json_walk_key(struct json_walk *walk, const char **key);
bool json_walk_item(struct json_walk *walk);

/* Values: NULL or false after an error. A string is unescaped, holds no NUL, is at most 64 KiB long
 * and stays valid until the next call. A number is a non-negative integer below 2^64. */
const char *json_walk_string(struct json_walk *walk);
bool json_walk_number(struct json_walk *walk, uint64_t *number);

/* Skip a value of any kind. */
bool json_walk_skip(struct json_walk *walk);

/* After the outermost value: true if only white space follows. */
bool json_walk_end(struct json_walk *walk);

/* Report an error of the caller's ("what the caller found wrong") at the current offset; the text
 * is made printable(). */
void json_walk_fail(struct json_walk *walk, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* As json_loadb() and json_load_file(), but a document whose values would take more than `most`
 * bytes of memory is refused before it is parsed: a tree takes up to 150 times its text. A file may
 * have JSON_FILE_MAX bytes. */
enum { JSON_FILE_MAX = 1 << 20, JSON_MEMORY = 64 << 20 };
json_t *json_load_within(const char *data, size_t length, size_t flags, size_t most,
                         json_error_t *error);
json_t *json_file_within(const char *path, size_t flags, json_error_t *error);

/* Parse a small file's content, of up to JSON_MEMORY, as a JSON object, which the caller owns. If it is not one, end the
 * process with `name`, line and reason. */
json_t *json_object_from(const char *data, size_t length, const char *name);

/* `value` as JSON text with a newline at its end; keys in the object's own order, or sorted. The
 * caller frees it. */
char *json_text(const json_t *value, bool indent, bool sorted);

/* Print any value as JSON without a newline at its end. Characters that are not plain (text.h) are
 * escaped. */
void json_print(FILE *out, const json_t *value, bool indent);

#endif
