/* checkpoint.h: a checkpoint on disk (safetensors shards, index, side files) as a table with the
 * location of each tensor. */
#ifndef CHECKPOINT_H
#define CHECKPOINT_H

#include <jansson.h>

#include "stream/source.h"
#include "tensor/toc.h"

/* A side file (config.json, tokenizer.json, inference/model.py, …). */
struct side_file {
    char *name;      /* relative to the checkpoint's folder */
    uint64_t size;   /* bytes */
    unsigned mode;   /* its permissions */
    char *data;      /* for small files the bytes, NUL-terminated; NULL: by reference */
    size_t source;   /* by reference: index of the source file … */
    uint64_t offset; /* … and the offset in it */
};

struct checkpoint {
    struct toc *toc;      /* in stream order */
    uint64_t *offset;     /* of each line, in its shard's file */
    size_t *shard_source; /* toc->shard[i] is sources.file[shard_source[i]] */
    struct sources sources;
    struct side_file *file;
    size_t files;
    size_t left_out;      /* files and folders beside them that are no part of a checkpoint */
    char *left_out_first; /* name of one, or NULL */
    size_t unindexed;     /* tensors that the index does not name; not in the table */
    char *folder;         /* absolute, links resolved; NULL for single files */
    char *scope;          /* what is missing: "without model-00002-of-00003.safetensors"; or NULL */
    char *model_type;     /* from config.json, or NULL */
    struct model *model;  /* opened with it */
};

/* The file that marks a folder which st-write has not finished. Such a folder is not a checkpoint:
 * its shards have headers and full size from the start. Where st-write works inside its
 * destination, the file is in the second folder there. */
#define CHECKPOINT_JOURNAL ".journal"
#define CHECKPOINT_PARTIAL ".partial"

#define CHECKPOINT_INDEX "model.safetensors.index.json"

/* Side files up to the first size travel inside the stream. The second limits their total, which a
 * reader holds in memory. */
enum { SIDE_FILE_INLINE_MAX = 1 << 20, SIDE_FILES_MAX = 128 << 20 };

/* Open one folder, or `count` .safetensors files. Follows symbolic links to files (a Hugging Face
 * cache consists of them). Checks the headers and the index, if there is one. A shard or tensor
 * that the index names but is missing or elsewhere ends the process. Tensors that the index does
 * not name are left out, with a warning. Without an index, a folder must have all shards that their
 * names tell of, and each tensor once, unless they are of ranks (shard_name.h). checkpoint_free()
 * frees the content. */
void checkpoint_open(struct checkpoint *checkpoint, char **path, size_t count);
void checkpoint_free(struct checkpoint *checkpoint);

#endif
