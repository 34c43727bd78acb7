#include "write/shards.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/die.h"
#include "base/json.h"
#include "base/names.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "base/text.h"
#include "stream/counts.h"
#include "stream/safetensors.h"
#include "write/shard_record.h"
#include "write/touched.h"

enum { BUFFER = 1 << 20 };
#define NO_SHARD UINT32_MAX

struct shard {
    const char *name;
    uint32_t *line; /* its lines of the table, data only */
    size_t count;   /* 0: context only, no file */
    size_t left;    /* tensors still to be written */
    bool made;      /* its file was created by this run */
    uint64_t size;  /* bytes of the file */
    char *note;     /* from the journal, starting at SIZE; NULL until it is complete and on disk */
    const char **noted; /* in it, the proof of each line; NULL if the note is */
    bool looked;        /* for zeros: how many tensors are zeros, and the first of these */
    uint64_t zeros;
    const char *first_zero;
};

/* A complete shard being synced: a thread looks for zeros in it and waits for the disk, while the
 * next shard is read. */
struct syncing {
    pthread_t thread;
    struct shards *shards;
    uint32_t shard; /* or NO_SHARD */
    int fd;
    int error; /* errno of fsync(), or 0 */
};

/* References waiting to be copied, while the kernel reads ahead what they refer to. Tensors come in
 * stream order, which jumps back and forth in the source's files. */
enum { WAITING_MAX = 64, WAITING_BYTES = 64 << 20 };
struct waiting {
    struct {
        size_t line, source;
        uint64_t from;
    } range[WAITING_MAX]; /* a ring */
    size_t first, count;
    uint64_t bytes;
};

struct shards {
    struct toc *toc;
    struct shard *shard;
    size_t count;
    uint64_t *offset;    /* by line of the table */
    struct proof *proof; /* by line of the table, for what was written */
    uint64_t bytes;      /* of all files */
    struct copier *copier;
    uint32_t current; /* the open shard, or NO_SHARD */
    int fd;
    uint64_t begun; /* the offset up to which it is being written to the disk */
    struct waiting waiting;
    struct syncing syncing;
    json_t *counted; /* in each shard, by the stages of this run */
    json_t *noted;   /* the same in the journal */
    bool noting;     /* this run has written notes */
};

static uint32_t phase_of(struct ts_in *in, const char *shard)
{
    struct sources *sources = ts_sources(in);
    int64_t i = sources_find(sources, shard, strlen(shard));
    return i < 0 ? 0 : sources->file[i].phase;
}

/* Lay out one shard: returns its size, sets its offsets, and *header if that is not NULL. */
static uint64_t layout(struct shards *shards, const struct shard *shard, struct ts_in *in,
                       char **header, uint64_t *header_size)
{
    char *text;
    uint64_t *offset = xalloc(shard->count, sizeof *offset);
    uint64_t size = safetensors_layout(shards->toc, shard->line, shard->count,
                                       phase_of(in, shard->name), offset, &text, header_size);
    for (size_t i = 0; i < shard->count; i++)
        shards->offset[shard->line[i]] = offset[i];
    free(offset);
    if (header)
        *header = text;
    else
        free(text);
    return size;
}

struct shards *shards_list(struct toc *toc)
{
    struct shards *shards = xalloc(1, sizeof *shards);
    *shards = (struct shards){
        .toc = toc, .count = toc->shards, .current = NO_SHARD, .fd = -1, .syncing.shard = NO_SHARD};
    shards->counted = json_object();
    shards->noted = json_object();
    shards->shard = xalloc(toc->shards, sizeof *shards->shard);
    for (size_t i = 0; i < toc->count; i++)
        shards->shard[toc->tensor[i].shard].count += !toc->tensor[i].context;
    for (size_t i = 0; i < toc->shards; i++) {
        shards->shard[i].name = toc->shard[i];
        shards->shard[i].line = xalloc(shards->shard[i].count, sizeof *shards->shard[i].line);
    }
    for (size_t i = 0; i < toc->count; i++) {
        struct shard *shard = &shards->shard[toc->tensor[i].shard];
        if (!toc->tensor[i].context)
            shard->line[shard->left++] = (uint32_t)i;
    }
    return shards;
}

struct shards *shards_plan(struct toc *toc, struct ts_in *in, struct copier *copier)
{
    struct shards *shards = shards_list(toc);
    shards->copier = copier;
    shards->offset = xalloc(toc->count, sizeof *shards->offset);
    shards->proof = xalloc(toc->count, sizeof *shards->proof);
    for (size_t i = 0; i < toc->shards; i++) {
        struct shard *shard = &shards->shard[i];
        uint64_t header_size;
        if (!shard->count)
            continue; /* context only */
        /* no side file ends so: a shard never replaces one */
        if (!ends_with(shard->name, ".safetensors"))
            die("%s: shard %s: a checkpoint's shards end in .safetensors; this stream is not one",
                ts_name(in), shard->name);
        shard->size = layout(shards, shard, in, NULL, &header_size);
        if (!add_fits(shards->bytes, shard->size, &shards->bytes))
            die("%s: shard %s: the total size overflows; the table is damaged, make it again",
                ts_name(in), shard->name);
    }
    return shards;
}

size_t shards_count(const struct shards *shards)
{
    return shards->count;
}

bool shards_file(const struct shards *shards, size_t i, struct shard_file *file)
{
    const struct shard *shard = &shards->shard[i];
    *file = (struct shard_file){shard->name, shard->size, shard->note != NULL};
    return shard->count;
}

uint64_t shards_bytes(const struct shards *shards)
{
    return shards->bytes;
}

/* ---- shards that an earlier run finished ---- */

static void forget_note(struct shard *shard)
{
    free(shard->note);
    free(shard->noted);
    shard->note = NULL;
    shard->noted = NULL;
}

/* The counts in a note; NULL if it is not st-write's. */
static json_t *parse_counts(const char *text)
{
    json_t *stages = json_loadb(text, strcspn(text, "\n"), JSON_REJECT_DUPLICATES, NULL);
    if (stages && counts_valid(stages, SIZE_MAX))
        return stages;
    json_decref(stages);
    return NULL;
}

static void read_note(struct shards *shards, const char *line)
{
    const char *name = line + strcspn(line, "\t\n"), *rest;
    size_t length = *name == '\t' ? strcspn(++name, "\t\n") : 0;
    int64_t i = names_find(shards->toc->shard_names, name, length);
    if (i < 0)
        return;
    struct shard *shard = &shards->shard[i];
    rest = name[length] == '\t' ? name + length + 1 : NULL;
    if (starts_with(line, "counts\t")) {
        json_t *stages = rest ? parse_counts(rest) : NULL;
        if (stages)
            json_object_set_new(shards->noted, shard->name, stages);
        return;
    }
    if (!starts_with(line, "shard\t") && !starts_with(line, "redo\t"))
        return;
    forget_note(shard);
    if (!rest || *line != 's')
        return;
    shard->note = xprintf("%.*s", (int)strcspn(rest, "\n"), rest);
    shard->noted = shard_record_proofs(shard->note, shard->count);
    if (!shard->noted)
        forget_note(shard);
}

/* Read the last notes of each shard in the journal. */
static void read_notes(struct shards *shards, const char *notes)
{
    for (const char *line = notes; line && *line; line = strchr(line, '\n') + 1)
        read_note(shards, line);
}

/* True if the shard was made of a file with one of these labels: its own, or one that it refers to.
 */
static bool is_made_of(const struct shard *shard, const struct names *labels)
{
    bool found = names_find(labels, shard->name, strlen(shard->name)) >= 0;
    for (size_t i = 0; i < shard->count && !found; i++)
        found = names_find(labels, shard->noted[i], strcspn(shard->noted[i], "@\t")) >= 0;
    return found;
}

size_t shards_resume(struct shards *shards, const struct output_dir *output)
{
    size_t finished = 0;
    struct names *touched = touched_labels(output->journal.notes);
    read_notes(shards, output->journal.notes);
    for (size_t i = 0; i < shards->count; i++) {
        struct shard *shard = &shards->shard[i];
        struct stat status;
        if (!shard->note)
            continue;
        if (!output_dir_stat(output, shard->name, &status) ||
            !shard_record_matches(shard->note, &status) || is_made_of(shard, touched))
            forget_note(shard);
        finished += shard->note != NULL;
    }
    names_free(touched);
    return finished;
}

/* What the first note of this run says before anything else: which shards of an earlier one are not
 * finished, and what the sources are like (touched.h). The caller frees it. */
static char *first_note(const struct shards *shards, const struct output_dir *output,
                        struct ts_in *in)
{
    char *sources = touched_notes(ts_sources(in)), *text;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        die_errno("out of memory");
    bool continued = output->journal.notes;
    for (size_t i = 0; i < shards->count && continued; i++)
        if (!shards->shard[i].note)
            fprintf(out, "redo\t%s\n", shards->shard[i].name);
    fputs(sources, out);
    if (fclose(out))
        die("out of memory");
    free(sources);
    return text;
}

char *shards_notes(const struct shards *shards)
{
    char *text;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        die_errno("out of memory");
    for (size_t i = 0; i < shards->count; i++)
        if (shards->shard[i].note)
            fprintf(out, "shard\t%s\t%s\n", shards->shard[i].name, shards->shard[i].note);
    if (fclose(out))
        die("out of memory");
    return text;
}

void shards_take_notes(struct shards *shards, const char *notes)
{
    read_notes(shards, notes);
}

static bool is_missing(const struct shard *shard)
{
    return shard->count && !shard->note;
}

size_t shards_missing(const struct shards *shards)
{
    size_t missing = 0;
    for (size_t i = 0; i < shards->count; i++)
        missing += is_missing(&shards->shard[i]);
    return missing;
}

uint64_t shards_to_write(const struct shards *shards)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < shards->count; i++)
        bytes += is_missing(&shards->shard[i]) ? shards->shard[i].size : 0;
    return bytes;
}

uint64_t shards_left_over(const struct shards *shards, const struct output_dir *output)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < shards->count; i++)
        bytes +=
            is_missing(&shards->shard[i]) ? output_dir_holds(output, shards->shard[i].name) : 0;
    return bytes;
}

/* ---- writing ---- */

/* Set the size of the open file and write its header. */
static void create(struct shards *shards, const struct output_dir *output,
                   const struct shard *shard, struct ts_in *in)
{
    char *header;
    uint64_t header_size;
    layout(shards, shard, in, &header, &header_size);
    if (ftruncate(shards->fd, (off_t)shard->size))
        die_errno("%s/%s: making it %" PRIu64 " bytes long", output->partial, shard->name,
                  shard->size);
    write_at(shards->fd, 0, header, header_size, shard->name);
    shards->copier->written += header_size;
    free(header);
}

/* One shard is open at a time: tensors come in stream order, which is nearly the order of shards.
 */
static void open_shard(struct shards *shards, struct output_dir *output, uint32_t i,
                       struct ts_in *in)
{
    struct shard *shard = &shards->shard[i];
    if (shards->current == i)
        return;
    if (shards->current != NO_SHARD)
        output_dir_close(shards->fd, shards->shard[shards->current].name, false);
    shards->fd = output_dir_open(output, shard->name, !shard->made);
    shards->current = i;
    shards->begun = 0;
    if (!shard->made)
        create(shards, output, shard, in);
    shard->made = true;
}

/* What was written goes to the disk while more comes, so that the disk need not wait for the end of
 * a shard. The sync at that end tells whether it could. */
static void begin_writeback(struct shards *shards, uint64_t end)
{
    enum { PIECE = 32 << 20 };
    if (end < shards->begun + PIECE)
        return;
    (void)sync_file_range(shards->fd, (off_t)shards->begun, (off_t)(end - shards->begun),
                          SYNC_FILE_RANGE_WRITE);
    shards->begun = end;
}

/* The checksum of the current tensor, read to its end; with `what`, write it to the open shard. */
static uint64_t read_inline(struct shards *shards, struct ts_in *in, uint64_t offset,
                            const char *what)
{
    const struct tensor *tensor = ts_present(in);
    struct checksum *checksum = checksum_new();
    char *buffer = xgrow(NULL, (size_t)at_most(tensor->size, BUFFER), 1);
    for (uint64_t done = 0; done < tensor->size;) {
        size_t size = (size_t)at_most(tensor->size - done, BUFFER);
        ts_read(in, buffer, size);
        checksum_add(checksum, buffer, size);
        if (what) {
            write_at(shards->fd, offset + done, buffer, size, what);
            begin_writeback(shards, offset + done + size);
        }
        done += size;
    }
    free(buffer);
    return checksum_end(checksum);
}

static int by_line(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void shards_check(struct shards *shards, const char *folder, struct ts_in *in, size_t line)
{
    const struct tensor *tensor = &shards->toc->tensor[line];
    struct shard *shard = &shards->shard[tensor->shard];
    struct proof proof = {.source = PROOF_CHECKSUM};
    const uint32_t key = (uint32_t)line;
    const uint32_t *own = bsearch(&key, shard->line, shard->count, sizeof key, by_line);
    size_t source;
    uint64_t from;
    if (ts_ref(in, &source, &from))
        proof = (struct proof){(uint32_t)source, from};
    else
        proof.value = read_inline(shards, in, 0, NULL);
    if (!own || !shard_record_has(shard->noted[own - shard->line], &proof, ts_sources(in)))
        die("%s: tensor %s is not what it was when an earlier run finished %s: the stream has "
            "other "
            "data; remove the folder (rm -r) to start again",
            folder, tensor->name, shard->name);
}

struct zeros {
    const struct shards *shards;
    const struct shard *shard;
    int fd;
    bool *found, *known; /* of each tensor; known without reading */
};

static void find_zeros(void *context, unsigned thread, uint64_t first, uint64_t last)
{
    const struct zeros *z = context;
    (void)thread;
    for (uint64_t k = first; k < last; k++) {
        uint32_t line = z->shard->line[k];
        const struct tensor *tensor = &z->shards->toc->tensor[line];
        if (!z->known[k])
            z->found[k] = zero_range(z->fd, z->shards->offset[line], tensor->size, tensor->name);
    }
}

/* True if a tensor's bytes came inline: their checksum. */
static bool checksum_of(const struct shards *shards, const struct shard *shard, size_t k,
                        uint64_t *checksum)
{
    const struct proof *proof = &shards->proof[shard->line[k]];
    if (shard->noted)
        return shard_record_checksum(shard->noted[k], checksum);
    *checksum = proof->value;
    return proof->source == PROOF_CHECKSUM;
}

/* Those that are no matrices need not be read, nor those whose bytes have a checksum. */
static void know_zeros(struct zeros *z)
{
    enum { SIZES = 8 }; /* a model's matrices have few */
    uint64_t size[SIZES] = {0}, zeros[SIZES], checksum;
    for (size_t k = 0, next = 0, i = 0; k < z->shard->count; k++) {
        const struct tensor *tensor = &z->shards->toc->tensor[z->shard->line[k]];
        bool matrix = tensor->rank >= 2 && tensor->size;
        bool summed = checksum_of(z->shards, z->shard, k, &checksum);
        z->known[k] = !matrix || summed;
        if (!matrix || !summed)
            continue;
        for (i = 0; i < SIZES && size[i] != tensor->size; i++)
            continue;
        if (i == SIZES) {
            i = next++ % SIZES;
            size[i] = tensor->size;
            zeros[i] = checksum_of_zeros(tensor->size);
        }
        z->found[k] = checksum == zeros[i];
    }
}

/* Once, in the file of a complete shard. */
static void look_for_zeros(const struct shards *shards, struct shard *shard, int fd)
{
    enum { READS = 8 }; /* a disk's queue */
    if (shard->looked)
        return;
    bool *found = xalloc(shard->count + 1, 2);
    struct zeros z = {shards, shard, fd, found, found + shard->count};
    struct parallel *threads = parallel_new(READS);
    know_zeros(&z);
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM); /* a page of each */
    parallel_for(threads, shard->count, 1, find_zeros, &z);
    posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL);
    parallel_free(threads);
    for (size_t k = 0; k < shard->count; k++) {
        if (found[k] && !shard->first_zero)
            shard->first_zero = shards->toc->tensor[shard->line[k]].name;
        shard->zeros += found[k];
    }
    shard->looked = true;
    free(found);
}

static void *sync_file(void *context)
{
    struct syncing *syncing = context;
    look_for_zeros(syncing->shards, &syncing->shards->shard[syncing->shard], syncing->fd);
    syncing->error = fsync(syncing->fd) ? errno : 0;
    return NULL;
}

/* Take what earlier stages counted up to here. Those of a shard are there before the next shard is
 * complete (tensor-stream(5)). */
static void take_counts(struct shards *shards, struct ts_in *in)
{
    json_t *counts = ts_take_counts(in);
    if (!counts_add(shards->counted, counts))
        die("%s: .counts: do not add up; make the stream again", ts_name(in));
    json_decref(counts);
}

/* What was counted in a complete shard, and the shard, as notes; the caller frees them. */
static char *note_of(const struct shards *shards, const struct shard *shard,
                     const struct stat *status, struct ts_in *in)
{
    const json_t *stages = json_object_get(shards->counted, shard->name);
    char *note = shard_record_note(shard->name, status, ts_sources(in), shards->proof, shard->line,
                                   shard->count);
    if (!stages)
        return note;
    char *counts = json_text(stages, false, false); /* ends with a newline */
    char *both = xprintf("counts\t%s\t%s%s", shard->name, counts, note);
    free(counts);
    free(note);
    return both;
}

/* Wait until the last complete shard is synced, and note it in the journal. */
static void end_sync(struct shards *shards, struct output_dir *output, struct ts_in *in)
{
    struct syncing *syncing = &shards->syncing;
    struct stat status;
    if (syncing->shard == NO_SHARD)
        return;
    const struct shard *shard = &shards->shard[syncing->shard];
    pthread_join(syncing->thread, NULL);
    syncing->shard = NO_SHARD;
    errno = syncing->error;
    if (errno || fstat(syncing->fd, &status))
        die_errno("%s/%s: syncing it to disk", output->partial, shard->name);
    output_dir_close(syncing->fd, shard->name, false);
    sources_check_fresh(ts_sources(in)); /* otherwise it may hold two states of a file */
    char *before = shards->noting ? xstrdup("") : first_note(shards, output, in);
    char *lines = note_of(shards, shard, &status, in), *all = xprintf("%s%s", before, lines);
    journal_note(&output->journal, all);
    shards->noting = true;
    read_notes(shards, lines);
    free(before);
    free(lines);
    free(all);
}

/* The current shard is complete: start syncing it. */
static void begin_sync(struct shards *shards, struct output_dir *output, struct ts_in *in)
{
    end_sync(shards, output, in);
    shards->syncing =
        (struct syncing){.shards = shards, .shard = shards->current, .fd = shards->fd};
    shards->current = NO_SHARD;
    if (pthread_create(&shards->syncing.thread, NULL, sync_file, &shards->syncing))
        die("cannot start a thread; are there too many processes?");
}

/* A tensor of the open shard was written. */
static void count_written(struct shards *shards, struct output_dir *output, struct ts_in *in)
{
    if (--shards->shard[shards->current].left == 0)
        begin_sync(shards, output, in);
}

static char *describe(const struct output_dir *output, const struct tensor *tensor,
                      const struct shard *shard)
{
    return xprintf("%s, to %s/%s", tensor->name, output->partial, shard->name);
}

/* Copy the reference that has waited longest. */
static void copy_first(struct shards *shards, struct output_dir *output, struct ts_in *in)
{
    struct waiting *waiting = &shards->waiting;
    size_t line = waiting->range[waiting->first].line;
    size_t source = waiting->range[waiting->first].source;
    const struct tensor *tensor = &shards->toc->tensor[line];
    char *what = describe(output, tensor, &shards->shard[tensor->shard]);
    open_shard(shards, output, tensor->shard, in);
    copy_range(shards->copier, sources_acquire(ts_sources(in), source),
               waiting->range[waiting->first].from, shards->fd, shards->offset[line], tensor->size,
               what);
    sources_release(ts_sources(in), source);
    free(what);
    waiting->first = (waiting->first + 1) % WAITING_MAX;
    waiting->count--;
    waiting->bytes -= tensor->size;
    count_written(shards, output, in);
}

/* Have the kernel read the referenced bytes (of a large tensor, the beginning), and copy them
 * later. */
static void put_off(struct shards *shards, struct output_dir *output, struct ts_in *in, size_t line,
                    size_t source, uint64_t from)
{
    struct waiting *waiting = &shards->waiting;
    uint64_t size = shards->toc->tensor[line].size;
    while (waiting->count == WAITING_MAX ||
           (waiting->count && waiting->bytes + size > WAITING_BYTES))
        copy_first(shards, output, in);
    posix_fadvise(sources_acquire(ts_sources(in), source), (off_t)from,
                  size < WAITING_BYTES ? (off_t)size : WAITING_BYTES, POSIX_FADV_WILLNEED);
    sources_release(ts_sources(in), source);
    size_t i = (waiting->first + waiting->count++) % WAITING_MAX;
    waiting->range[i].line = line;
    waiting->range[i].source = source;
    waiting->range[i].from = from;
    waiting->bytes += size;
}

void shards_write(struct shards *shards, struct output_dir *output, struct ts_in *in, size_t line)
{
    const struct tensor *tensor = &shards->toc->tensor[line];
    const struct shard *shard = &shards->shard[tensor->shard];
    size_t source;
    uint64_t from, to = shards->offset[line];
    take_counts(shards, in);
    if (shard->note) {
        shards_check(shards, output->partial, in, line);
        return;
    }
    char *what = describe(output, tensor, shard);
    bool written = true;
    open_shard(shards, output, tensor->shard, in);
    if (ts_ref(in, &source, &from)) {
        shards->proof[line] = (struct proof){(uint32_t)source, from};
        written = share_range(shards->copier, sources_acquire(ts_sources(in), source), from,
                              shards->fd, to, tensor->size, what);
        sources_release(ts_sources(in), source);
        if (!written)
            put_off(shards, output, in, line, source, from);
    } else {
        shards->proof[line] = (struct proof){PROOF_CHECKSUM, read_inline(shards, in, to, what)};
        shards->copier->written += tensor->size;
    }
    free(what);
    if (written)
        count_written(shards, output, in);
}

/* Have the trailer count all shards: those that an earlier run finished, as noted, instead of what
 * this run's stages read of them. */
static void count_all(const struct shards *shards, const struct output_dir *output,
                      struct ts_in *in)
{
    json_t *part = json_object(), *whole = json_object();
    bool good = true;
    for (size_t i = 0; i < shards->count; i++) {
        const char *name = shards->shard[i].name;
        const json_t *counted = json_object_get(shards->counted, name);
        const json_t *noted = json_object_get(shards->noted, name);
        good &= counts_add(part, counted) && counts_add(whole, noted ? noted : counted);
    }
    if (!good || !ts_recount(in, part, whole))
        die("%s: the counts in its journal do not go with those of the stream; remove it (rm -r) "
            "to "
            "start again",
            output->partial);
    json_decref(part);
    json_decref(whole);
}

void shards_end(struct shards *shards, struct output_dir *output, struct ts_in *in)
{
    take_counts(shards, in);
    while (shards->waiting.count)
        copy_first(shards, output, in);
    end_sync(shards, output, in);
    count_all(shards, output, in);
}

/* ---- reading again ---- */

static bool has_header(struct shards *shards, const struct shard *shard, struct ts_in *in, int fd)
{
    char *header;
    uint64_t header_size;
    layout(shards, shard, in, &header, &header_size);
    char *found = xgrow(NULL, (size_t)header_size, 1);
    read_at(fd, 0, found, header_size, shard->name);
    bool same = !memcmp(found, header, (size_t)header_size);
    free(found);
    free(header);
    return same;
}

char *shards_file_difference(struct shards *shards, size_t i, int fd, struct ts_in *in, bool read)
{
    const struct shard *shard = &shards->shard[i];
    struct stat status;
    uint64_t at;
    if (fstat(fd, &status))
        die_errno("%s", shard->name);
    if (!shard->note)
        return xstrdup("nothing was noted of it");
    if (!S_ISREG(status.st_mode))
        return xstrdup("it is not a regular file");
    if ((uint64_t)status.st_size != shard->size)
        return xprintf("it has %jd bytes, not %" PRIu64, (intmax_t)status.st_size, shard->size);
    if (!read)
        return shard_record_matches(shard->note, &status)
                   ? NULL
                   : xstrdup("it was written to since it was complete");
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* read from the disk, not the page cache */
    if (!has_header(shards, shard, in, fd))
        return xstrdup("its header is not what was written");
    const struct tensor *tensor =
        shard_record_verify(shard->note, fd, ts_sources(in), shards->toc, shard->line, shard->count,
                            shards->offset, &at);
    return tensor ? xprintf("tensor %s is not what was written, at offset %" PRIu64 " or after",
                            tensor->name, at)
                  : NULL;
}

void shards_verify(struct shards *shards, struct output_dir *output, struct ts_in *in)
{
    struct progress *progress = ts_take_progress(in, shards_bytes(shards));
    for (size_t i = 0; i < shards->count; i++) {
        const struct shard *shard = &shards->shard[i];
        if (!shard->count)
            continue;
        int fd = output_dir_open(output, shard->name, false);
        char *wrong = shards_file_difference(shards, i, fd, in, true);
        output_dir_close(fd, shard->name, false);
        progress_add(progress, shard->size, ts_toc(in)->count);
        if (!wrong)
            continue;
        char *line = xprintf("redo\t%s\n", shard->name);
        journal_note(&output->journal, line);
        die("%s/%s: %s: is the disk or the memory failing? Run the same command again, which "
            "writes this shard again",
            output->partial, shard->name, wrong);
    }
    progress_end(progress);
}

uint64_t shards_zeros(struct shards *shards, size_t i, int fd, const char **first)
{
    struct shard *shard = &shards->shard[i];
    look_for_zeros(shards, shard, fd);
    if (!*first)
        *first = shard->first_zero;
    return shard->zeros;
}

/* Open the shard in `folder`, instead of the one that is open, and check its header. */
static void open_finished(struct shards *shards, const char *folder, uint32_t i, struct ts_in *in)
{
    if (shards->current == i)
        return;
    if (shards->current != NO_SHARD)
        close(shards->fd);
    char *path = xprintf("%s/%s", folder, shards->shard[i].name);
    shards->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (shards->fd < 0)
        die_errno("%s", path);
    shards->current = i;
    posix_fadvise(shards->fd, 0, 0, POSIX_FADV_DONTNEED); /* read from the disk */
    if (!has_header(shards, &shards->shard[i], in, shards->fd))
        die("%s: its header is not what the stream gives; --overwrite writes it again", path);
    free(path);
}

/* The number of bytes of the current tensor of `in` that are in the open file at `offset`. */
static uint64_t compare_inline(const struct shards *shards, struct ts_in *in, uint64_t offset)
{
    const struct tensor *tensor = ts_present(in);
    char *came = xgrow(NULL, BUFFER, 2), *there = came + BUFFER;
    uint64_t same = 0, size = 0;
    for (uint64_t at = 0; at < tensor->size && same == at; at += size) {
        size = at_most(tensor->size - at, BUFFER);
        ts_read(in, came, (size_t)size);
        read_at(shards->fd, offset + at, there, size, tensor->name);
        while (same < at + size && came[same - at] == there[same - at])
            same++;
    }
    free(came);
    return same;
}

void shards_compare(struct shards *shards, const char *folder, struct ts_in *in, size_t line)
{
    const struct tensor *tensor = &shards->toc->tensor[line];
    uint64_t from, same, to = shards->offset[line];
    size_t source;
    open_finished(shards, folder, tensor->shard, in);
    if (ts_ref(in, &source, &from)) {
        same = compare_range(sources_acquire(ts_sources(in), source), from, shards->fd, to,
                             tensor->size, tensor->name);
        sources_release(ts_sources(in), source);
    } else {
        same = compare_inline(shards, in, to);
    }
    if (same < tensor->size)
        die("%s/%s: tensor %s is not what the stream gives, from offset %" PRIu64
            " on: is the disk failing? --overwrite writes it again",
            folder, shards->shard[tensor->shard].name, tensor->name, to + same);
}

void shards_free(struct shards *shards)
{
    for (size_t i = 0; i < shards->count; i++) {
        free(shards->shard[i].line);
        forget_note(&shards->shard[i]);
    }
    if (shards->current != NO_SHARD)
        close(shards->fd);
    json_decref(shards->counted);
    json_decref(shards->noted);
    free(shards->shard);
    free(shards->offset);
    free(shards->proof);
    free(shards);
}

char *shards_index(struct toc *toc)
{
    char *text;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        die_errno("out of memory");
    fprintf(out, "{\n  \"metadata\": {\n    \"total_size\": %" PRIu64 "\n  },\n  \"weight_map\": {",
            toc_bytes(toc, false));
    const char *separator = "\n";
    bool unique = true;
    for (size_t i = 0; i < toc->count; i++) {
        const struct tensor *tensor = &toc->tensor[i];
        if (tensor->context)
            continue;
        unique &= toc_find(toc, tensor->name) == (int64_t)i;
        fputs(separator, out);
        fputs("    ", out);
        text_put_quoted(tensor->name, out);
        fputs(": ", out);
        text_put_quoted(toc->shard[tensor->shard], out);
        separator = ",\n";
    }
    fputs("\n  }\n}\n", out);
    if (fclose(out))
        die("out of memory");
    if (unique)
        return text;
    free(text);
    return NULL;
}
