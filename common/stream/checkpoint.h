/* checkpoint.h: a checkpoint on disk (safetensors shards, index, side files) as a table and the
 * places where its tensors lie. */
#ifndef CHECKPOINT_H
#define CHECKPOINT_H

#include <jansson.h>

#include "stream/source.h"
#include "tensor/toc.h"

/* A side file (config.json, tokenizer.json, inference/model.py, …). */
struct side_file {
    char *name;      /* relative to the checkpoint's folder */
    uint64_t size;   /* bytes */
    char *data;      /* the bytes with a 0 behind, for small files; NULL: by reference */
    size_t source;   /* by reference: index of the file … */
    uint64_t offset; /* … and where in it */
};

struct checkpoint {
    struct toc *toc;      /* in the stream's order */
    uint64_t *offset;     /* of each line, in its shard's file */
    size_t *shard_source; /* toc->shard[i] is sources.file[shard_source[i]] */
    struct sources sources;
    struct side_file *file;
    size_t files;
    char *folder;        /* absolute, links resolved; NULL for single files */
    char *model_type;    /* from config.json, or NULL */
    struct model *model; /* opened with it */
};

/* What lies in a folder that st-write did not finish yet. Such a folder is no checkpoint: its
 * shards have their headers and sizes from the start. */
#define CHECKPOINT_JOURNAL ".journal"

/* Side files up to this size travel inside the stream; all that do, together, may have this many
 * bytes, which a reader holds in memory. */
enum { SIDE_FILE_INLINE_MAX = 1 << 20, SIDE_FILES_MAX = 128 << 20 };

/* Open one folder, or `count` .safetensors files. Follows symbolic links to files (a Hugging Face
 * cache consists of them). Checks headers, and the index if there is one: a shard or tensor that it
 * names but that is missing, or a tensor in another shard, ends the process; tensors that the index
 * does not name are read, with a warning. The caller frees it. */
void checkpoint_open(struct checkpoint *checkpoint, char **path, size_t count);
void checkpoint_free(struct checkpoint *checkpoint);

/* True for a relative path without empty, "." or ".." components, control characters, and shorter
 * than 1024 bytes: what a side file may be called. */
bool side_file_name_valid(const char *name);

/* True for the name of a checkpoint's shard or index, or of what a download leaves behind: no side
 * files. `name` is relative to the checkpoint's folder. */
bool side_file_excluded(const char *name);

#endif
