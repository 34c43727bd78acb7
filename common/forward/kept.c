#include "forward/kept.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/die.h"
#include "base/folder.h"
#include "forward/states.h"
#include "tensor/bf16.h"

/* The second are left where the filesystem has no files without names (output.h). */
#define FILES "calibration.[0-9][0-9][0-9]+([0-9]).+([0-9]).ts"
static const char files[] = FILES, unfinished[] = FILES ".+([0-9]).partial";

/* As many rows are copied at a time: memory that is used again stays in the allocator. */
enum { COPIED_BYTES = 8 << 20 };

/* ---- chunks ---- */

static uint64_t row_bytes(const struct kept *kept)
{
    return network_columns(kept->run->network) * sizeof(uint16_t);
}

static uint64_t rows_at_a_time(const struct kept *kept)
{
    uint64_t rows = COPIED_BYTES / row_bytes(kept);
    return rows ? rows : 1;
}

static uint64_t first_row(const struct kept *kept, size_t chunk)
{
    return kept->run->tokens->start[kept->first[chunk]];
}

static uint64_t rows_in(const struct kept *kept, size_t chunk)
{
    return first_row(kept, chunk + 1) - first_row(kept, chunk);
}

/* A chunk takes samples as long as they fit. */
static void divide(struct kept *kept)
{
    enum { CHUNK_BYTES = 64 << 20, CHUNKS_LEAST = 16 };
    const struct tokens *tokens = kept->run->tokens;
    uint64_t most =
        at_most(tokens->start[tokens->samples] * row_bytes(kept) / CHUNKS_LEAST, CHUNK_BYTES);
    kept->first = xalloc((size_t)tokens->samples + 1, sizeof *kept->first);
    for (uint64_t s = 1; s < tokens->samples; s++) {
        uint64_t begin = tokens->start[kept->first[kept->chunks]];
        if ((tokens->start[s + 1] - begin) * row_bytes(kept) > most)
            kept->first[++kept->chunks] = s;
    }
    kept->first[++kept->chunks] = tokens->samples;
}

void kept_begin(struct kept *kept, const struct forward *run, const char *folder, int fd,
                const char *options)
{
    *kept = (struct kept){.run = run, .folder = folder, .fd = fd, .options = options};
    states_fingerprint(run, kept->fingerprint);
    divide(kept);
}

void kept_end(struct kept *kept)
{
    free(kept->first);
    kept->first = NULL;
}

uint64_t kept_bytes(const struct kept *kept)
{
    return first_row(kept, kept->chunks) * row_bytes(kept);
}

/* ---- files ---- */

/* In the folder; the caller frees it. */
static char *name_of(size_t chunk, const struct level *level)
{
    return xprintf("calibration.%04zu.%" PRId64 ".ts", chunk, level->layer);
}

static char *path_of(const struct kept *kept, size_t chunk, const struct level *level)
{
    char *name = name_of(chunk, level), *path = xprintf("%s/%s", kept->folder, name);
    free(name);
    return path;
}

static bool exists(const struct kept *kept, size_t chunk, const struct level *level)
{
    struct stat status;
    char *name = name_of(chunk, level);
    bool is = level->layer >= 0 && !fstatat(kept->fd, name, &status, AT_SYMLINK_NOFOLLOW) &&
              S_ISREG(status.st_mode);
    free(name);
    return is;
}

uint64_t kept_there(const struct kept *kept)
{
    return folder_bytes(kept->fd, kept->folder, files);
}

bool kept_is_name(const char *name)
{
    return folder_matches(name, files) || folder_matches(name, unfinished);
}

void kept_remove(int fd, const char *folder)
{
    folder_remove(fd, folder, files);
    folder_remove(fd, folder, unfinished);
}

size_t kept_ahead(const struct kept *kept, const struct level *level, const struct level *before)
{
    size_t ahead = 0;
    while (ahead < kept->chunks && exists(kept, ahead, level))
        ahead++;
    for (size_t i = ahead; i < kept->chunks; i++)
        if (before->layer >= 0 ? !exists(kept, i, before) : exists(kept, i, level)) {
            const struct level *lost = before->layer >= 0 ? before : level;
            char *path = path_of(kept, before->layer >= 0 ? i : ahead, lost);
            die("%s: is missing; remove the other calibration.* there to start again", path);
        }
    return ahead;
}

/* ---- their content ---- */

enum { DIGITS = DIGEST_TEXT - 1 };

static struct toc *plan(const struct kept *kept, size_t chunk)
{
    const uint64_t digits[] = {DIGITS}, place[] = {2};
    const uint64_t rows[] = {rows_in(kept, chunk), network_columns(kept->run->network)};
    struct toc *toc = toc_new();
    static const char shard[] = "states.safetensors";
    toc_append(toc, shard, "fingerprint", DTYPE_U8, 1, digits);
    toc_append(toc, shard, "options", DTYPE_U8, 1, digits);
    toc_append(toc, shard, "weights", DTYPE_U8, 1, digits);
    toc_append(toc, shard, "place", DTYPE_I64, 1, place);
    toc_append(toc, shard, "hidden_states", DTYPE_BF16, 2, rows);
    return toc;
}

/* All but hidden_states, in this order, without gaps. */
struct label {
    char fingerprint[DIGITS], options[DIGITS], weights[DIGITS];
    int64_t place[2];
};

static void describe(struct label *label, const struct kept *kept, size_t chunk,
                     const struct level *level)
{
    memcpy(label->fingerprint, kept->fingerprint, DIGITS);
    memcpy(label->options, kept->options, DIGITS);
    memcpy(label->weights, level->weights, DIGITS);
    label->place[0] = level->layer;
    label->place[1] = (int64_t)kept->first[chunk];
}

_Noreturn static void refuse(struct ts_in *in)
{
    die("%s: is not what this run keeps; remove the calibration.* there to start again",
        ts_name(in));
}

static void check_table(struct ts_in *in, const struct toc *wanted)
{
    const struct toc *toc = ts_toc(in);
    bool same = toc->count == wanted->count && !ts_plan_only(in);
    for (size_t i = 0; same && i < wanted->count; i++)
        same = !strcmp(toc->tensor[i].name, wanted->tensor[i].name) &&
               tensor_same_form(&toc->tensor[i], &wanted->tensor[i]);
    if (!same)
        refuse(in);
}

/* What is carried besides hidden states are not all numbers. */
static void check_finite(const struct kept *kept, struct ts_in *in, const uint16_t *rows,
                         uint64_t count)
{
    const struct network *n = kept->run->network;
    int wrong = 0;
    for (uint64_t i = 0; i < count; i++)
        for (uint64_t j = 0; j < n->copies * n->dim; j++)
            wrong |= bf16_not_finite(rows[i * network_columns(n) + j]);
    if (wrong)
        die("%s: holds NaN or infinity, which no run keeps; remove the calibration.* there to "
            "start again",
            ts_name(in));
}

static void read_rows(const struct kept *kept, struct ts_in *in, size_t chunk,
                      struct offloaded hidden)
{
    struct device *d = kept->run->device;
    const uint64_t end = first_row(kept, chunk + 1), most = rows_at_a_time(kept);
    uint16_t *rows = xalloc((size_t)most, (size_t)row_bytes(kept));
    for (uint64_t at = first_row(kept, chunk); at < end; at += most) {
        uint64_t count = at_most(end - at, most);
        ts_read(in, rows, (size_t)(count * row_bytes(kept)));
        check_finite(kept, in, rows, count);
        struct mat there = d->fetch(d, hidden, at, count);
        d->write(d, there, rows);
        d->store(d, hidden, at, there);
    }
    free(rows);
}

void kept_load(const struct kept *kept, size_t chunk, const struct level *level,
               struct offloaded hidden)
{
    struct label wanted, found;
    char *name = name_of(chunk, level), *path = path_of(kept, chunk, level), *to = (char *)&found;
    int file = folder_file(kept->fd, kept->folder, name);
    if (file < 0)
        die_errno("%s", path);
    struct ts_in *in = ts_open_fd(file, path);
    struct toc *toc = plan(kept, chunk);
    check_table(in, toc);
    describe(&wanted, kept, chunk, level);
    for (size_t i = 0; i + 1 < toc->count && ts_next(in); i++) {
        ts_read(in, to, (size_t)toc->tensor[i].size);
        to += toc->tensor[i].size;
    }
    if (memcmp(&found, &wanted, sizeof found) != 0 || !ts_next(in))
        refuse(in);
    read_rows(kept, in, chunk, hidden);
    if (ts_next(in) || !ts_sealed(in))
        refuse(in);
    ts_close(in);
    toc_free(toc);
    free(path);
    free(name);
}

static void write_rows(const struct kept *kept, struct ts_out *out, size_t chunk,
                       struct offloaded hidden)
{
    struct device *d = kept->run->device;
    const uint64_t end = first_row(kept, chunk + 1), most = rows_at_a_time(kept);
    uint16_t *rows = xalloc((size_t)most, (size_t)row_bytes(kept));
    ts_begin(out, "hidden_states");
    for (uint64_t at = first_row(kept, chunk); at < end; at += most) {
        uint64_t count = at_most(end - at, most);
        struct mat there = d->fetch(d, hidden, at, count);
        d->read(d, rows, there);
        d->store(d, hidden, at, there);
        ts_write(out, rows, (size_t)(count * row_bytes(kept)));
    }
    free(rows);
}

void kept_store(const struct kept *kept, const struct stage *stage, size_t chunk,
                const struct level *level, struct offloaded hidden)
{
    char *path = path_of(kept, chunk, level);
    struct stage file = {.output = path, .entry = stage->entry};
    struct toc *toc = plan(kept, chunk);
    folder_refuse_moved(kept->fd, kept->folder);
    struct ts_out *out = ts_create(&file, NULL, toc);
    struct label label;
    ts_direct(out);
    describe(&label, kept, chunk, level);
    ts_put(out, "fingerprint", label.fingerprint, sizeof label.fingerprint);
    ts_put(out, "options", label.options, sizeof label.options);
    ts_put(out, "weights", label.weights, sizeof label.weights);
    ts_put(out, "place", label.place, sizeof label.place);
    write_rows(kept, out, chunk, hidden);
    ts_finish(out, NULL, NULL);
    folder_sync(kept->fd, kept->folder);
    toc_free(toc);
    free(path);
}

void kept_drop(const struct kept *kept, size_t chunk, const struct level *level)
{
    char *name = name_of(chunk, level);
    if (level->layer >= 0)
        folder_remove(kept->fd, kept->folder, name);
    free(name);
}
