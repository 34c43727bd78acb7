/* toc.h: the table of contents of a tensor stream: its tensors in stream order.
 *
 * The table comes first in a stream. A stage derives its own table (its plan) from the incoming
 * one, so that all later stages know the totals before the first tensor arrives. */
#ifndef TOC_H
#define TOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/dtype.h"

enum { TENSOR_RANK_MAX = 8, TENSOR_NAME_MAX = 1023, SHARD_NAME_MAX = 255 };

/* A line of the table: a tensor. */
struct tensor {
    const char *name; /* as in the checkpoint; printable ASCII; unique within its shard */
    uint64_t size;    /* payload bytes, by tensor_size() */
    uint64_t dim[TENSOR_RANK_MAX];
    uint32_t shard; /* index into toc.shard */
    uint8_t rank;   /* 0 for a scalar */
    uint8_t dtype;  /* enum dtype */
    bool context;   /* read by stages, dropped by st-write */
};

/* The table. It owns its strings. Read the members; change them only through the functions. */
struct toc {
    struct tensor *tensor;
    size_t count;
    char **shard; /* file names of shards, in order of first use */
    size_t shards;
    struct names *shard_names;
    struct toc_index *index; /* names to lines; built on demand */
    struct arena *arena;
    size_t capacity;
};

struct toc *toc_new(void);
void toc_free(struct toc *toc);

/* The index of a shard's name, which is added if new. */
uint32_t toc_shard(struct toc *toc, const char *name);

/* Append a tensor with the fields of *line; the name is copied, the size computed. Returns NULL, or
 * a static text that says what is wrong with name, rank or size. */
const char *toc_add(struct toc *toc, const struct tensor *line);

/* Append `line` with another name, dtype and shape (`rank` numbers in dim), same shard and use. For
 * plans: the arguments come from a checked table, so an error ends the process. */
void toc_derive(struct toc *toc, const struct tensor *line, const char *name, enum dtype dtype,
                unsigned rank, const uint64_t *dim);

/* Append a line to a table that a program makes itself, in the shard of that name. An error ends
 * the process. */
void toc_append(struct toc *toc, const char *shard, const char *name, enum dtype dtype,
                unsigned rank, const uint64_t *dim);

/* Append a copy of line number `line` of `from`. An error ends the process. */
void toc_copy(struct toc *toc, const struct toc *from, size_t line);

/* Check that each name is unique within its shard. Returns NULL, or a static error text and through
 * *line the index of the second one. */
const char *toc_check_unique(struct toc *toc, size_t *line);

/* The index of the first line with that name, or -1. */
int64_t toc_find(struct toc *toc, const char *name);

/* Find the data lines of `part` in `whole`: same name, form, shard and use, in the same order.
 * Returns their indices in `whole` by line of `part`, which the caller frees; NULL if one is
 * missing. */
uint32_t *toc_lines_in(const struct toc *part, const struct toc *whole);

/* Payload bytes of all data lines, and of context lines too if `context`; UINT64_MAX on overflow.
 */
uint64_t toc_bytes(const struct toc *toc, bool context);

/* *size = bytes of a tensor of that dtype and shape; false if they exceed 63 bits, the range of
 * file offsets, or if a row of F4 has half a byte. */
bool tensor_size(enum dtype dtype, unsigned rank, const uint64_t *dim, uint64_t *size);

/* "[2048,4096]" into text (at least TENSOR_SHAPE_TEXT bytes); returns text. */
enum { TENSOR_SHAPE_TEXT = TENSOR_RANK_MAX * 21 + 3 };
char *tensor_shape(const struct tensor *tensor, char *text);

/* True if dtype, rank and dimensions are equal. */
bool tensor_same_form(const struct tensor *a, const struct tensor *b);

/* True if the name is valid for a tensor: printable ASCII, not empty, no leading '.' or "files/",
 * no empty, "." or ".." component. */
bool tensor_name_valid(const char *name);

/* True if the name is valid for a shard: a tensor's name without '/' and '@', at most
 * SHARD_NAME_MAX bytes. It becomes a file name and the label of references. */
bool shard_name_valid(const char *name);

/* The shard's name for a file, the last component of its path (points into `path`). Ends the
 * process if it is not valid for a shard. */
const char *shard_name_of(const char *path);

/* The table as text, one line per tensor, tab-separated: name, dtype, shape, shard, use. Returns
 * its length; the caller frees *text. */
size_t toc_format(const struct toc *toc, char **text);

/* Parse such text (`length` bytes, not NUL-terminated; modified) and append its lines to toc.
 * Returns NULL, or an error text that the caller frees. After an error, *toc is unspecified but can
 * be freed. */
char *toc_parse(struct toc *toc, char *text, size_t length);

#endif
