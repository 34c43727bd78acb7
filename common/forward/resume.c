#include "forward/resume.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/lock.h"
#include "base/owner.h"
#include "base/progress.h"
#include "forward/states.h"

static const char name[] = "calibration.ts", unfinished[] = "calibration.ts.*.partial";

void resume_begin(struct resume *resume, const char *folder, const char *options, uint64_t every)
{
    *resume = (struct resume){.every = every};
    if (!folder)
        return;
    if (mkdir(folder, 0777) && errno != EEXIST)
        die_errno("%s", folder);
    resume->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (resume->folder < 0)
        die_errno("%s", folder);
    owner_refuse_other(resume->folder, folder);
    if (!lock_folder(resume->folder, folder))
        die("%s: another program is at work in it; wait for it, or choose another folder", folder);
    resume->file = xprintf("%s/%s", folder, name);
    struct digest *digest = digest_new();
    digest_add(digest, options, strlen(options));
    digest_end(digest, resume->options);
}

/* ---- reading ---- */

static void refuse(struct ts_in *in)
{
    die("%s: %s: was not written by --resume; choose another folder", ts_name(in),
        ts_present(in)->name);
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

static uint64_t read_layer(struct ts_in *in, const struct forward *run)
{
    int64_t layer;
    if (ts_present(in)->size != sizeof layer)
        refuse(in);
    ts_read(in, &layer, sizeof layer);
    if (layer < (int64_t)run->first || layer > (int64_t)run->last)
        refuse(in);
    return (uint64_t)layer;
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

bool resume_load(struct resume *resume, struct forward *run, struct scalars *scalars)
{
    struct stat status;
    if (!resume->file || fstatat(resume->folder, name, &status, 0))
        return false;
    struct ts_in *in = ts_open(resume->file, NULL);
    bool fingerprint = false, options = false, layer = false, weights = false, states = false;
    uint64_t done = 0;
    for (const struct tensor *tensor; (tensor = ts_next(in));) {
        if (!strcmp(tensor->name, "fingerprint")) {
            states_check(run, in);
            fingerprint = true;
        } else if (!strcmp(tensor->name, "options")) {
            check_options(resume, in);
            options = true;
        } else if (!strcmp(tensor->name, "layer")) {
            done = read_layer(in, run);
            layer = true;
        } else if (!strcmp(tensor->name, "weights")) {
            read_digest(in, resume->weights);
            weights = true;
        } else if (!strcmp(tensor->name, "hidden_states")) {
            states = true;
        } else if (!strcmp(ts_toc(in)->shard[tensor->shard], scalars->shard)) {
            read_record(in, scalars);
        }
    }
    bool whole = fingerprint && options && layer && weights && ts_sealed(in);
    if (!whole || (!states && done != run->last))
        die("%s: was not written by --resume; choose another folder", ts_name(in));
    ts_close(in);
    run->first = done + 1;
    run->states_in = resume->file;
    resume->finished = !states;
    run->mtp &= states;
    return true;
}

/* ---- writing ---- */

bool resume_is_due(const struct resume *resume, uint64_t layer, double time)
{
    enum { PATIENCE = 10 };
    return resume->every ? (layer + 1) % resume->every == 0
                         : time - resume->ended >= PATIENCE * resume->took;
}

/* Without states->hidden: a finished calibration's. */
static void write_file(const struct resume *resume, const struct forward *run,
                       const struct stage *stage, const struct states *states,
                       const struct scalars *scalars)
{
    struct stage file = {.output = resume->file, .entry = stage->entry};
    struct toc *toc = toc_new();
    states_plan(toc, run, states);
    toc_append(toc, "options.safetensors", "options", DTYPE_U8, 1,
               (const uint64_t[]){DIGEST_TEXT - 1});
    for (size_t i = 0; i < scalars->toc->count; i++)
        toc_copy(toc, scalars->toc, i);
    struct ts_out *out = ts_create(&file, NULL, toc);
    states_write(out, run, states);
    ts_put(out, "options", resume->options, DIGEST_TEXT - 1);
    scalars_write(scalars, out);
    ts_finish(out, NULL, NULL);
    toc_free(toc);
    if (fsync(resume->folder) && errno != EINVAL) /* some filesystems cannot */
        die_errno("%s", resume->file);
}

void resume_save(struct resume *resume, const struct forward *run, const struct stage *stage,
                 const struct states *states, const struct scalars *scalars)
{
    double begin = now();
    if (!resume->file)
        return;
    memcpy(resume->weights, states->weights, sizeof resume->weights);
    if (!resume_is_due(resume, states->layer, begin))
        return;
    write_file(resume, run, stage, states, scalars);
    resume->ended = now();
    resume->took = resume->ended - begin;
}

void resume_finish(struct resume *resume, const struct forward *run, const struct stage *stage,
                   const struct scalars *scalars)
{
    if (!resume->file || resume->finished)
        return;
    const struct states states = {.layer = run->last, .weights = resume->weights};
    write_file(resume, run, stage, &states, scalars);
    resume->finished = true;
}

/* Remove the entries of the folder that match a pattern of fnmatch(3). */
static void remove_matching(const struct resume *resume, const char *pattern)
{
    int folder = openat(resume->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = folder < 0 ? NULL : fdopendir(folder);
    if (!entries)
        die_errno("%s: its folder", resume->file);
    for (struct dirent *entry; errno = 0, (entry = readdir(entries));)
        if (!fnmatch(pattern, entry->d_name, 0) && unlinkat(resume->folder, entry->d_name, 0) &&
            errno != ENOENT)
            die_errno("%s: the result is complete; remove this folder yourself", resume->file);
    if (errno)
        die_errno("%s: its folder", resume->file);
    closedir(entries);
}

void resume_end(struct resume *resume)
{
    if (!resume->file)
        return;
    remove_matching(resume, unfinished);
    if (!resume->finished)
        remove_matching(resume, name);
    close(resume->folder);
    free(resume->file);
}

void resume_discard(const char *folder)
{
    struct resume resume;
    if (access(folder, F_OK) && errno == ENOENT)
        return;
    resume_begin(&resume, folder, "", 0);
    resume_end(&resume);
    if (rmdir(folder) && errno != ENOTEMPTY && errno != EEXIST)
        die_errno("%s", folder);
}
