/* ts.h: the tensor stream. All access to streams goes through it; tensor-stream(5) describes the
 * format.
 *
 * A stage reads the table, derives its own from it, creates its output from both, and loops:
 *
 *     struct ts_in *in = ts_open(stage_input(&stage), &stage);
 *     struct toc *toc = plan(ts_toc(in));
 *     struct ts_out *out = ts_create(&stage, in, toc);
 *     while ((tensor = ts_next(in)))
 *         ts_pass(out, in);
 *     ts_finish(out, in, counts);
 *
 * All functions succeed or end the process with a line that says what to do. */
#ifndef TS_H
#define TS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/args.h"
#include "model/model.h"
#include "stream/source.h"
#include "tensor/toc.h"

struct ts_in;
struct ts_out;

/* Bytes of .stream, .counts and .end; parsed, each takes JSON_MEMORY at most. 10,000 shards take 3
 * MB of .stream. */
enum { TS_JSON_MAX = 16 << 20 };

/* ---- reading ---- */

/* Open a stream file (NULL or "-": standard input), a checkpoint's folder, or a .safetensors file,
 * and read everything before the tensors. A terminal as standard input is a usage error. `stage`
 * (may be NULL) says whether to show progress and whether tensors are wanted at all (-n); it must
 * outlive the stream. Unless it has allow_zeros, a shard whose end is zeros, as an incomplete
 * download leaves it (zero_tail.h), ends the process. Files that this process makes from then on
 * have no readers that what was opened has not (readers.h). ts_close() or ts_finish() frees it. */
struct ts_in *ts_open(const char *path, const struct stage *stage);

/* The same for a stream in a file that is open already, and `name` in messages. The stream owns
 * `fd`. */
struct ts_in *ts_open_fd(int fd, const char *name);

/* Open several .safetensors files, or one folder, as one source. */
struct ts_in *ts_open_all(char **path, size_t count, const struct stage *stage);

/* The stream's name for messages: its path, or "<stdin>"; in a pipeline script, of which that is
 * the business alone, the folder of the checkpoint that the stream was made of. */
const char *ts_name(const struct ts_in *in);

/* The incoming table, valid until ts_close() or ts_finish(). */
struct toc *ts_toc(struct ts_in *in);

/* The .stream header, owned by the stream. A stage may change `quant` or `scope` before
 * ts_create(). */
json_t *ts_header(struct ts_in *in);

/* True if the stream is of a whole checkpoint: its scope is "all". Parts of one are what st-read's
 * options, st-grep, and some shards of several leave. */
bool ts_is_whole(const struct ts_in *in);

/* True if it has only the shards that st-read --shards named. */
bool ts_is_of_shards(const struct ts_in *in);

/* The model that the header and config.json describe. Never NULL; owned by the stream. */
const struct model *ts_model(const struct ts_in *in);

/* The files that references point into; owned by the stream. */
struct sources *ts_sources(struct ts_in *in);

/* Side files. ts_files(): their number. ts_file(): the name (without "files/") and size of the
 * i-th. ts_file_find(): the index of a name, or -1. ts_file_read(): all its bytes, NUL-terminated,
 * which the caller frees. ts_file_part(): `size` bytes from `offset` on, which must exist.
 * ts_file_ref(): the location of its bytes if it is by reference; false if it is inline. */
size_t ts_files(const struct ts_in *in);
const char *ts_file(const struct ts_in *in, size_t i, uint64_t *size);
int64_t ts_file_find(const struct ts_in *in, const char *name);
char *ts_file_read(struct ts_in *in, size_t i);
void ts_file_part(struct ts_in *in, size_t i, uint64_t offset, void *data, size_t size);
bool ts_file_ref(const struct ts_in *in, size_t i, size_t *source, uint64_t *offset);

/* Who may read it: its permissions, or 0600, 0640 or 0644, whichever is less. */
unsigned ts_file_mode(const struct ts_in *in, size_t i);

/* The folders of the files that references lead to, each once; the caller owns the array. */
json_t *ts_folders(struct ts_in *in);

/* The side file of that name as a JSON object, which the caller owns; NULL if there is none. */
json_t *ts_file_json(struct ts_in *in, const char *name);

/* The next tensor: its line of the table. Unread bytes of the previous one are skipped. NULL after
 * the last one, once the end of the stream is proven. With stage->plan, or for a plan-only stream,
 * NULL at once, after everything was read. */
const struct tensor *ts_next(struct ts_in *in);

/* The current tensor, which ts_next() returned last. */
const struct tensor *ts_present(const struct ts_in *in);

/* Read the current tensor's next `size` bytes, in order, by reference or inline. */
void ts_read(struct ts_in *in, void *data, size_t size);

/* All bytes of the current tensor, which the caller frees. For scales and scalars: more than 1 GiB
 * ends the process. */
void *ts_read_all(struct ts_in *in);

/* True if the current tensor is by reference; then where its bytes are. */
bool ts_ref(const struct ts_in *in, size_t *source, uint64_t *offset);

/* Keep the current tensor's bytes for reading again, in any order, after ts_next(): as a reference,
 * in memory, or (inline and over the memory budget) in an unlinked file in $TMPDIR. The caller
 * releases it with ts_release() before the stream is closed. */
struct ts_held *ts_hold(struct ts_in *in);
void ts_held_read(struct ts_held *held, uint64_t offset, void *data, size_t size);
const struct tensor *ts_held_tensor(const struct ts_held *held);
bool ts_held_ref(const struct ts_held *held, size_t *source, uint64_t *offset);
void ts_release(struct ts_held *held);

/* Take over progress, for a caller that is not done with a tensor when it is read: a line for
 * `total` bytes, which the caller ends with progress_end(), before the stream; NULL if there is
 * none. The items of progress_add() are the table's lines. */
struct progress *ts_take_progress(struct ts_in *in, uint64_t total);

/* The counts of the earlier stages, from the trailer (.end) of a stream that was read to its end.
 * Owned by the stream; NULL for a checkpoint. */
const json_t *ts_end_counts(const struct ts_in *in);

/* True if a stream that was read to its end has a digest, which held. Streams of early builds have
 * none. */
bool ts_sealed(const struct ts_in *in);

/* What earlier stages counted, by shard (counts.h), as far as it arrived before the current tensor,
 * or by the end, since the last call. The caller owns it; NULL if there is nothing. */
json_t *ts_take_counts(struct ts_in *in);

/* After the end: replace `part` of ts_end_counts(), by stage, by `whole`. False if these do not go
 * together; then it is undefined. */
bool ts_recount(struct ts_in *in, const json_t *part, const json_t *whole);

/* True if there are no tensors to read: the stream is a plan, or this stage only makes one. */
bool ts_plan_only(const struct ts_in *in);

/* For programs without an output stream: read to the end, prove it, check the referenced files,
 * free everything. */
void ts_close(struct ts_in *in);

/* ---- writing ---- */

/* Begin a stream on stage->output (or standard output; a terminal is a usage error): header with
 * the stage's entry added to the history, table, and the side files of `in` (may be NULL). The
 * table must live until ts_finish(). */
struct ts_out *ts_create(const struct stage *stage, struct ts_in *in, const struct toc *toc);

/* For a large file that nobody reads soon, after ts_create(): write it without the page cache
 * (O_DIRECT), where the filesystem can. This is faster, and leaves the cache to others. */
void ts_direct(struct ts_out *out);

/* The next line of the table to write, or NULL. */
const struct tensor *ts_due(const struct ts_out *out);

/* Count for this stage: add `n` (0 if there may be none) to the number `key`, in the object `of`
 * unless that is NULL; or name the first of what a stage counts. It belongs to the shard of the
 * line begun last. ts_counted() returns the number so far. */
void ts_count(struct ts_out *out, const char *of, const char *key, uint64_t n);
void ts_count_first(struct ts_out *out, const char *key, const char *text);
uint64_t ts_counted(const struct ts_out *out, const char *key);

/* Pass on what ts_take_counts() returned, which is taken over. ts_pass() and ts_finish() do it, but
 * ts_pass_reference() does not. Shards that `out` has not are left out. */
void ts_pass_counts(struct ts_out *out, json_t *counts);

/* Write the current tensor's bytes unchanged as the next line: by reference if they came so (but
 * inline with stage->embed), otherwise inline. Name, dtype and shape are that line's; the sizes
 * must be equal. */
void ts_pass(struct ts_out *out, struct ts_in *in);

/* The same for a tensor that came by reference to that location, even if it is no longer the
 * current one. Reads nothing, so that another thread may read from `in` meanwhile. */
void ts_pass_reference(struct ts_out *out, struct ts_in *in, const struct tensor *tensor,
                       size_t source, uint64_t offset);

/* Write the next line, which must be called `name`, inline: begin, then its bytes in pieces,
 * exactly as many as the table says; or all at once. */
void ts_begin(struct ts_out *out, const char *name);
void ts_write(struct ts_out *out, const void *data, size_t size);
void ts_put(struct ts_out *out, const char *name, const void *data, size_t size);

/* Finish both streams: prove the input's end (in may be NULL), check that every planned tensor was
 * written, write .end with the counts of all stages (`counts`, an object or NULL, is this one's
 * besides those of ts_count(); taken over), close and check, rename the output into place. Frees in
 * and out. */
void ts_finish(struct ts_out *out, struct ts_in *in, json_t *counts);

#endif
