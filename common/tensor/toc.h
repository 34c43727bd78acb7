/* toc.h: the table of contents of a tensor stream: what tensors there are, in stream order.
 *
 * The table comes first in a stream. A stage turns the incoming table into its own (its plan),
 * so that everybody downstream knows the totals before the first tensor flows. */
#ifndef TOC_H
#define TOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/dtype.h"

enum { TENSOR_RANK_MAX = 8, TENSOR_NAME_MAX = 1023, SHARD_NAME_MAX = 255 };

/* One line of the table: a tensor. */
struct tensor {
    const char *name; /* as in the checkpoint; printable ASCII; unique within its shard */
    uint64_t size;    /* payload bytes: the product of dim[] and the dtype's size */
    uint64_t dim[TENSOR_RANK_MAX];
    uint32_t shard; /* index into toc.shard */
    uint8_t rank;   /* 0 for a scalar */
    uint8_t dtype;  /* enum dtype */
    bool context;   /* read by stages, dropped by st-write */
};

/* The table. Owns its strings; read the members, change them through the functions only. */
struct toc {
    struct tensor *tensor;
    size_t count;
    char **shard; /* file names of shards, in order of first use */
    size_t shards;
    struct names *shard_names;
    struct toc_index *index; /* names to lines; made on demand */
    struct arena *arena;
    size_t capacity;
};

struct toc *toc_new(void);
void toc_free(struct toc *toc);

/* The index of a shard's name, added if new. */
uint32_t toc_shard(struct toc *toc, const char *name);

/* Append a tensor: fields as in *line, name copied, size computed. Returns NULL, or the text of
 * what is wrong with it (name, rank or size), which stays valid. */
const char *toc_add(struct toc *toc, const struct tensor *line);

/* Append `line` under another name, dtype and shape (rank numbers in dim), same shard and use.
 * For plans: the arguments come from a checked table, so failure ends the process. */
void toc_derive(struct toc *toc, const struct tensor *line, const char *name, enum dtype dtype,
                unsigned rank, const uint64_t *dim);

/* Append a line of a table that a program makes itself, in a shard of that name; as toc_derive().
 */
void toc_append(struct toc *toc, const char *shard, const char *name, enum dtype dtype,
                unsigned rank, const uint64_t *dim);

/* Append a copy of `line`, whose shard index refers to `from`. */
void toc_copy(struct toc *toc, const struct toc *from, size_t line);

/* Check that each name is unique within its shard: NULL, or the index of the second one through
 * *line and an error text. */
const char *toc_check_unique(struct toc *toc, size_t *line);

/* The first line with that name, or -1. */
int64_t toc_find(struct toc *toc, const char *name);

/* Where the lines of `part` that are data are in `whole`, with the same form, shard and use, and in
 * the same order: by part's lines; the caller frees it. NULL if one is not there. */
uint32_t *toc_lines_in(const struct toc *part, const struct toc *whole);

/* Payload bytes of all lines that are data, and with context too if asked. */
uint64_t toc_bytes(const struct toc *toc, bool context);

/* Bytes of a tensor from dtype and shape through *size; false if they overflow 63 bits (which
 * file offsets cannot express). */
bool tensor_size(enum dtype dtype, unsigned rank, const uint64_t *dim, uint64_t *size);

/* "[2048,4096]" into text (at least TENSOR_SHAPE_TEXT bytes); returns text. */
enum { TENSOR_SHAPE_TEXT = TENSOR_RANK_MAX * 21 + 3 };
char *tensor_shape(const struct tensor *tensor, char *text);

/* True if dtype, rank and dimensions are equal. */
bool tensor_same_form(const struct tensor *a, const struct tensor *b);

/* True if the name may be a tensor's: printable ASCII, not empty, no leading '.' or "files/", no
 * empty, "." or ".." component. */
bool tensor_name_valid(const char *name);

/* True if the name may be a shard's: a tensor's name without '/' and '@', and not longer than a
 * file name: it becomes one, and the label of references. */
bool shard_name_valid(const char *name);

/* The shard's name that a file gives: what follows the last '/' of its path. Ends the process if no
 * shard may be called so. */
const char *shard_name_of(const char *path);

/* The table as text, one line a tensor, tab-separated: name, dtype, shape, shard, use. The caller
 * frees *text. */
size_t toc_format(const struct toc *toc, char **text);

/* Parse such text (length bytes, not 0-terminated; changed while parsing). NULL, or an error text
 * that the caller frees; then *toc is unspecified but can be freed. */
char *toc_parse(struct toc *toc, char *text, size_t length);

#endif
