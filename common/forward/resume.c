#include "forward/resume.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/die.h"
#include "base/folder.h"
#include "base/lock.h"
#include "base/output.h"
#include "base/owner.h"
#include "base/progress.h"
#include "forward/needed.h"
#include "forward/states.h"

static const char name[] = "calibration.ts", unfinished[] = "calibration.ts.+([0-9]).partial";
static const struct level nothing = {-1, "00000000000000000000000000000000"
                                         "00000000000000000000000000000000"};

bool resume_keeps(const char *folder, const char *file)
{
    const char *slash = strrchr(file, '/'), *last = slash ? slash + 1 : file;
    return (!strcmp(last, name) || folder_matches(last, unfinished) || kept_is_name(last)) &&
           output_is_in(file, folder);
}

void resume_begin(struct resume *resume, const char *folder, const char *options,
                  const struct keeping *keeping)
{
    *resume = (struct resume){
        .folder = folder, .keeping = *keeping, .done = nothing, .before = nothing, .ended = now()};
    if (!folder)
        return;
    if (mkdir(folder, 0777) && errno != EEXIST)
        die_errno("%s", folder);
    resume->fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (resume->fd < 0)
        die_errno("%s", folder);
    owner_refuse_other(resume->fd, folder);
    if (!lock_folder(resume->fd, folder))
        die("%s: another program is at work in it; wait for it, or choose another folder", folder);
    resume->file = xprintf("%s/%s", folder, name);
    struct digest *digest = digest_new();
    digest_add(digest, options, strlen(options));
    digest_end(digest, resume->options);
}

/* ---- room ---- */

/* Chunks that are there give way to others. */
static uint64_t room_for(const struct kept *kept, bool exists)
{
    struct statvfs status;
    if (fstatvfs(kept->fd, &status))
        die_errno("%s", kept->folder);
    return (uint64_t)status.f_bavail * status.f_frsize + (exists ? kept_there(kept) : 0);
}

static void check_room(const struct kept *kept, uint64_t room)
{
    char needed[BYTES_TEXT], available[BYTES_TEXT];
    if (kept_bytes(kept) > room)
        die("%s: %s are needed for hidden states, %s are free; make room, choose another disk, or "
            "give --no-keep",
            kept->folder, bytes_text((double)kept_bytes(kept), needed),
            bytes_text((double)room, available));
}

static bool is_finished(int fd, const char *folder)
{
    int file = folder_file(fd, folder, name);
    if (file < 0)
        return false;
    char *path = xprintf("%s/%s", folder, name);
    struct ts_in *in = ts_open_fd(file, path);
    bool finished = toc_find(ts_toc(in), "before") < 0;
    ts_close(in);
    free(path);
    return finished;
}

/* How often they are kept, as a text that the caller frees. */
static char *how_often(const struct kept *kept, const struct keeping *keeping)
{
    char all[BYTES_TEXT];
    if (!keeping->every)
        return xstrdup("as often as fits in a tenth of the time");
    uint64_t times = (kept->run->last + needs_mtp(kept->run)) / keeping->every;
    if (times < 2)
        return xstrdup(times ? "once" : "never, as there are fewer layers");
    return xprintf("%" PRIu64 " times, %s in all", times,
                   bytes_text((double)times * (double)kept_bytes(kept), all));
}

void resume_plan(const char *folder, const struct forward *run, const struct keeping *keeping,
                 bool quiet)
{
    struct kept kept;
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    bool exists = fd >= 0;
    if (exists)
        owner_refuse_other(fd, folder);
    bool finished = exists && is_finished(fd, folder);
    if (exists && (keeping->never || finished))
        close(fd);
    if (!folder || keeping->never || finished)
        return;
    char *parent = output_folder_of(folder), needed[BYTES_TEXT], available[BYTES_TEXT];
    if (!exists)
        fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        die_errno("%s", folder);
    kept_begin(&kept, run, folder, fd, nothing.weights);
    uint64_t room = room_for(&kept, exists);
    check_room(&kept, room);
    char *often = how_often(&kept, keeping);
    if (!quiet)
        warn("%s: keeps %s of hidden states, %s; %s are free", folder,
             bytes_text((double)kept_bytes(&kept), needed), often,
             bytes_text((double)room, available));
    free(often);
    free(parent);
    kept_end(&kept);
    close(fd);
}

/* ---- reading ---- */

static _Noreturn void refuse(struct ts_in *in)
{
    die("%s: was not written by --resume; choose another folder", ts_name(in));
}

static void read_digest(struct ts_in *in, char *digest)
{
    if (ts_present(in)->size != DIGEST_TEXT - 1)
        refuse(in);
    ts_read(in, digest, DIGEST_TEXT - 1);
    digest[DIGEST_TEXT - 1] = 0;
}

static void check_options(const struct resume *resume, struct ts_in *in)
{
    char found[DIGEST_TEXT];
    read_digest(in, found);
    if (memcmp(found, resume->options, sizeof found) != 0)
        die("%s: was left by a run with other options, or by another version (st-ls --header shows "
            "which); give the same, or remove it to start again",
            ts_name(in));
}

static int64_t read_layer(struct ts_in *in, int64_t least, int64_t most)
{
    int64_t layer;
    if (ts_present(in)->size != sizeof layer)
        refuse(in);
    ts_read(in, &layer, sizeof layer);
    if (layer < least || layer > most)
        refuse(in);
    return layer;
}

static void read_record(struct ts_in *in, struct scalars *scalars)
{
    const struct tensor *tensor = ts_present(in);
    int64_t value;
    if (tensor->rank || tensor->size > sizeof value)
        refuse(in);
    ts_read(in, &value, (size_t)tensor->size);
    scalars_add(scalars, tensor->name, tensor->dtype, &value);
}

/* What a file that resume_load() reads must have had by its end. */
enum { FINGERPRINT = 1, OPTIONS = 2, LAYER = 4, WEIGHTS = 8, BEFORE = 16, WEIGHTS_BEFORE = 32 };

/* Read the current tensor, and return which of these it was; 0 for a record. */
static unsigned read_tensor(struct resume *resume, const struct forward *run, struct ts_in *in,
                            struct scalars *scalars)
{
    const struct tensor *tensor = ts_present(in);
    if (!strcmp(tensor->name, "fingerprint"))
        return states_check(run, in), FINGERPRINT;
    if (!strcmp(tensor->name, "options"))
        return check_options(resume, in), OPTIONS;
    if (!strcmp(tensor->name, "layer"))
        return resume->done.layer = read_layer(in, 0, (int64_t)run->last), LAYER;
    if (!strcmp(tensor->name, "weights"))
        return read_digest(in, resume->done.weights), WEIGHTS;
    if (!strcmp(tensor->name, "before"))
        return resume->before.layer = read_layer(in, -1, (int64_t)run->last - 1), BEFORE;
    if (!strcmp(tensor->name, "weights_before"))
        return read_digest(in, resume->before.weights), WEIGHTS_BEFORE;
    if (strcmp(ts_toc(in)->shard[tensor->shard], scalars->shard) != 0)
        refuse(in);
    return read_record(in, scalars), 0;
}

static void read_file(struct resume *resume, int file, const struct forward *run,
                      struct scalars *scalars)
{
    struct ts_in *in = ts_open_fd(file, resume->file);
    const unsigned all = FINGERPRINT | OPTIONS | LAYER | WEIGHTS | BEFORE | WEIGHTS_BEFORE;
    unsigned seen = 0;
    while (ts_next(in))
        seen |= read_tensor(resume, run, in, scalars);
    resume->finished = seen == (FINGERPRINT | OPTIONS | LAYER | WEIGHTS);
    if ((seen != all && !resume->finished) || !ts_sealed(in) ||
        resume->done.layer <= resume->before.layer ||
        (resume->finished && resume->done.layer != (int64_t)run->last))
        refuse(in);
    ts_close(in);
}

bool resume_load(struct resume *resume, struct forward *run, struct scalars *scalars)
{
    if (!resume->folder)
        return false;
    kept_begin(&resume->kept, run, resume->folder, resume->fd, resume->options);
    int file = folder_file(resume->fd, resume->folder, name);
    bool there = file >= 0;
    if (there)
        read_file(resume, file, run, scalars);
    if (!resume->finished && !resume->keeping.never)
        check_room(&resume->kept, room_for(&resume->kept, true));
    if (!there)
        return false;
    memcpy(resume->weights, resume->done.weights, sizeof resume->weights);
    run->first = run->repeated = (uint64_t)resume->done.layer + 1;
    run->mtp &= !resume->finished;
    if (resume->finished)
        return true;
    resume->ahead = kept_ahead(&resume->kept, &resume->done, &resume->before);
    if (resume->ahead < resume->kept.chunks) {
        run->first = (uint64_t)(resume->before.layer + 1);
        run->lagging = resume->kept.first[resume->ahead];
    }
    if (resume->ahead) /* it may have been killed between the two */
        kept_drop(&resume->kept, resume->ahead - 1, &resume->before);
    return true;
}

static void check_weights(const struct resume *resume, const struct level *level,
                          const struct states *states)
{
    if (strcmp(level->weights, states->weights) != 0)
        die("%s: these states were made with other weights than the previous layers have here; "
            "give the same, or remove this file to start again",
            resume->file);
}

void resume_states(const struct resume *resume, const struct forward *run,
                   const struct states *states)
{
    bool all = run->first == run->repeated;
    if (run->first)
        check_weights(resume, all ? &resume->done : &resume->before, states);
    for (size_t i = 0; i < resume->kept.chunks && !resume->finished; i++)
        if (i < resume->ahead)
            kept_load(&resume->kept, i, &resume->done, states->hidden);
        else if (run->first)
            kept_load(&resume->kept, i, &resume->before, states->hidden);
}

/* ---- writing ---- */

static void plan_digest(struct toc *toc, const char *tensor)
{
    toc_append(toc, "calibration.safetensors", tensor, DTYPE_U8, 1,
               (const uint64_t[]){DIGEST_TEXT - 1});
}

static void plan_level(struct toc *toc, const char *layer, const char *weights)
{
    toc_append(toc, "calibration.safetensors", layer, DTYPE_I64, 0, NULL);
    plan_digest(toc, weights);
}

static void put_level(struct ts_out *out, const char *layer, const char *weights,
                      const struct level *level)
{
    ts_put(out, layer, &level->layer, sizeof level->layer);
    ts_put(out, weights, level->weights, DIGEST_TEXT - 1);
}

static void write_file(const struct resume *resume, const struct stage *stage,
                       const struct scalars *scalars)
{
    struct stage file = {.output = resume->file, .entry = stage->entry};
    struct toc *toc = toc_new();
    folder_refuse_moved(resume->fd, resume->folder);
    plan_digest(toc, "fingerprint");
    plan_digest(toc, "options");
    plan_level(toc, "layer", "weights");
    if (!resume->finished)
        plan_level(toc, "before", "weights_before");
    for (size_t i = 0; i < scalars->toc->count; i++)
        toc_copy(toc, scalars->toc, i);
    struct ts_out *out = ts_create(&file, NULL, toc);
    ts_put(out, "fingerprint", resume->kept.fingerprint, DIGEST_TEXT - 1);
    ts_put(out, "options", resume->options, DIGEST_TEXT - 1);
    put_level(out, "layer", "weights", &resume->done);
    if (!resume->finished)
        put_level(out, "before", "weights_before", &resume->before);
    scalars_write(scalars, out);
    ts_finish(out, NULL, NULL);
    toc_free(toc);
    folder_sync(resume->fd, resume->folder);
}

bool resume_is_due(const struct resume *resume, uint64_t layer, double time)
{
    enum { PATIENCE = 10 };
    return resume->keeping.every ? (layer + 1) % resume->keeping.every == 0
                                 : time - resume->ended >= PATIENCE * resume->took;
}

static struct level level_of(const struct states *states)
{
    struct level level = {.layer = (int64_t)states->layer};
    memcpy(level.weights, states->weights, sizeof level.weights);
    return level;
}

/* Measure how long the chunks take, by one that is not kept. */
static void try_disk(struct resume *resume, const struct stage *stage, const struct states *states)
{
    struct level level = level_of(states);
    double begin = now();
    kept_store(&resume->kept, stage, 0, &level, states->hidden);
    resume->took = (now() - begin) * (double)resume->kept.chunks;
    kept_drop(&resume->kept, 0, &level);
}

/* From here on, chunks are at this layer, or at the last that was kept. */
static void begin_level(struct resume *resume, const struct stage *stage,
                        const struct states *states, const struct scalars *scalars)
{
    if (resume->done.layer < 0) /* what may be there is of another run */
        kept_remove(resume->fd, resume->folder);
    resume->before = resume->done;
    resume->done = level_of(states);
    resume->ahead = 0;
    write_file(resume, stage, scalars);
}

/* Write the chunks that are not at this layer yet, each in place of an older one. */
static void replace_chunks(struct resume *resume, const struct stage *stage,
                           const struct states *states, double begin)
{
    const size_t chunks = resume->kept.chunks, left = chunks - resume->ahead;
    for (; resume->ahead < chunks; resume->ahead++) {
        kept_store(&resume->kept, stage, resume->ahead, &resume->done, states->hidden);
        kept_drop(&resume->kept, resume->ahead, &resume->before);
    }
    resume->ended = now();
    resume->took = (resume->ended - begin) * (double)chunks / (double)left;
    char time[TIME_TEXT];
    if (stage->verbose)
        warn("kept layer %" PRIu64 ": %zu of %zu chunks in %s", states->layer, left, chunks,
             time_text(resume->ended - begin, time));
}

/* True if anything is computed from the hidden states after a layer. */
static bool goes_on(const struct forward *run, uint64_t layer)
{
    return layer < run->last || needs_mtp(run);
}

void resume_save(struct resume *resume, const struct stage *stage, const struct states *states,
                 const struct scalars *scalars)
{
    if (!resume->folder)
        return;
    const double time = now();
    const bool lagged = (int64_t)states->layer == resume->done.layer;
    memcpy(resume->weights, states->weights, sizeof resume->weights);
    if (lagged)
        check_weights(resume, &resume->done, states);
    if (resume->keeping.never || !goes_on(resume->kept.run, states->layer))
        return;
    if (!lagged && !resume->keeping.every && resume->took <= 0)
        try_disk(resume, stage, states);
    if (!lagged && !resume_is_due(resume, states->layer, time))
        return;
    const double begin = now();
    if (!lagged)
        begin_level(resume, stage, states, scalars);
    replace_chunks(resume, stage, states, begin);
}

void resume_finish(struct resume *resume, const struct stage *stage, const struct scalars *scalars)
{
    if (!resume->folder || resume->finished)
        return;
    resume->finished = true;
    resume->done.layer = (int64_t)resume->kept.run->last;
    memcpy(resume->done.weights, resume->weights, sizeof resume->weights);
    write_file(resume, stage, scalars);
    kept_remove(resume->fd, resume->folder);
}

/* ---- removing ---- */

void resume_end(struct resume *resume)
{
    if (!resume->folder)
        return;
    folder_remove(resume->fd, resume->folder, unfinished);
    if (!resume->finished)
        folder_remove(resume->fd, resume->folder, name); /* first: it tells of chunks */
    kept_remove(resume->fd, resume->folder);
    kept_end(&resume->kept);
    close(resume->fd);
    free(resume->file);
}

void resume_discard(const char *folder)
{
    struct resume resume;
    if (access(folder, F_OK) && errno == ENOENT)
        return;
    resume_begin(&resume, folder, "", &(struct keeping){0});
    resume_end(&resume);
    if (rmdir(folder) && errno != ENOTEMPTY && errno != EEXIST)
        die_errno("%s", folder);
}
