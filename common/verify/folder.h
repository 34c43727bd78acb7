/* folder.h: a checkpoint's folder, opened for a check: what stream/checkpoint.h would end the
 * process for becomes a fact, and the rest is read. */
#ifndef FOLDER_H
#define FOLDER_H

#include <jansson.h>

#include "engines/rule.h"
#include "model/model.h"
#include "stream/source.h"
#include "tensor/toc.h"

struct folder {
    const char *path;     /* as given; borrowed */
    struct toc *toc;      /* of all shards that could be read, each name once, in stream order */
    uint64_t *offset;     /* of each line, in its shard's file */
    size_t *shard_source; /* toc->shard[i] is sources.file[shard_source[i]] */
    struct sources sources;
    json_t *config;   /* config.json, or NULL */
    json_t *hf_quant; /* hf_quant_config.json, or NULL */
    struct model *model;
};

/* Open the folder. Reads headers, index and configs, and adds what is wrong with them. A path that
 * is no folder, or one that st-write has not finished, ends the process. folder_close() frees the
 * content. */
void folder_open(struct folder *folder, const char *path, struct facts *facts);
void folder_close(struct folder *folder);

/* The folder, and what was found so far, as rules see it; valid until folder_close(). */
struct evidence folder_evidence(const struct folder *folder, const struct facts *facts);

/* Read `size` bytes at byte `at` of the tensor on line `line`. */
void folder_read(struct folder *folder, size_t line, uint64_t at, void *data, size_t size);

/* True if the folder has that file. */
bool folder_has(const struct folder *folder, const char *name);

#endif
