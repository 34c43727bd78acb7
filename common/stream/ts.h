/* ts.h: the tensor stream, the only door to it (tensor-stream(5) is its page).
 *
 * A stage reads the table, makes its own from it, creates its output from both, and loops:
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

/* ---- reading ---- */

/* Open a stream file (NULL or "-": standard input), a checkpoint's folder, or a .safetensors file,
 * and read everything that comes before the tensors. A terminal as standard input is a usage error.
 * `stage` (may be NULL) says whether progress is shown and tensors are wanted at all (-n). */
struct ts_in *ts_open(const char *path, const struct stage *stage);

/* Several .safetensors files, or one folder, as one source. */
struct ts_in *ts_open_all(char **path, size_t count, const struct stage *stage);

/* What the stream is called in messages: its path or "<stdin>". */
const char *ts_name(const struct ts_in *in);

/* The incoming table, valid until ts_close()/ts_finish(). */
struct toc *ts_toc(struct ts_in *in);

/* The .stream header; a stage may change `quant` or `scope` before ts_create(). Borrowed. */
json_t *ts_header(struct ts_in *in);

/* The family named by the header's model_type. Never NULL. */
const struct model *ts_model(const struct ts_in *in);

/* Files that references point into. */
struct sources *ts_sources(struct ts_in *in);

/* Side files: their number; name (without "files/") and size of one; which has a name, or -1; all
 * its bytes, in memory that the caller frees, with a 0 after them; `size` bytes from `offset` on,
 * which must be there. ts_file_ref() says where the bytes lie if the side file is by reference;
 * false if it is inline. */
size_t ts_files(const struct ts_in *in);
const char *ts_file(const struct ts_in *in, size_t i, uint64_t *size);
int64_t ts_file_find(const struct ts_in *in, const char *name);
char *ts_file_read(struct ts_in *in, size_t i);
void ts_file_part(struct ts_in *in, size_t i, uint64_t offset, void *data, size_t size);
bool ts_file_ref(const struct ts_in *in, size_t i, size_t *source, uint64_t *offset);

/* The side file of that name as a JSON object that the caller owns, or NULL if there is none. */
json_t *ts_file_json(struct ts_in *in, const char *name);

/* The next tensor: its line of the table; NULL after the last one, when the end is proven. What of
 * the one before was not read is skipped. With stage->plan, or for a plan-only stream, NULL at
 * once, after everything was read. */
const struct tensor *ts_next(struct ts_in *in);

/* The present tensor, the one that ts_next() gave last. */
const struct tensor *ts_present(const struct ts_in *in);

/* Read the present tensor's next `size` bytes, in order, wherever they lie. */
void ts_read(struct ts_in *in, void *data, size_t size);

/* All of the present tensor in memory that the caller frees. For scales and scalars: at most 1 GiB,
 * else the process ends. */
void *ts_read_all(struct ts_in *in);

/* True if the present tensor comes by reference; then where its bytes lie. */
bool ts_ref(const struct ts_in *in, size_t *source, uint64_t *offset);

/* A tensor's bytes kept for reading again, in any order, after ts_next(): a reference, memory, or
 * (inline and over the memory budget) an unlinked file in $TMPDIR. Belongs to the stream; give it
 * back with ts_release(). */
struct ts_held *ts_hold(struct ts_in *in);
void ts_held_read(struct ts_held *held, uint64_t offset, void *data, size_t size);
const struct tensor *ts_held_tensor(const struct ts_held *held);
bool ts_held_ref(const struct ts_held *held, size_t *source, uint64_t *offset);
void ts_release(struct ts_held *held);

/* Leave progress to the caller, for whom a tensor is not done when it is read: a line for `total`
 * bytes, to be ended with progress_end(); NULL if none is wanted. */
struct progress *ts_take_progress(struct ts_in *in, uint64_t total);

/* The trailer (.end) of a stream that was read to its end: counts of the stages before. Borrowed;
 * NULL for a checkpoint. */
const json_t *ts_end_counts(const struct ts_in *in);

/* True if no tensors come: the stream is a plan, or this stage only makes one. */
bool ts_plan_only(const struct ts_in *in);

/* For programs without an output stream: read on to the end, prove it, check the files referred
 * to, free everything. */
void ts_close(struct ts_in *in);

/* ---- writing ---- */

/* Begin a stream on stage->output (or standard output; a terminal is a usage error): header with
 * the stage's entry added to the history, table, and the side files of `in` (may be NULL for a
 * stream that has none). The table must live until ts_finish(). */
struct ts_out *ts_create(const struct stage *stage, struct ts_in *in, const struct toc *toc);

/* The line of the table that comes next, or NULL. */
const struct tensor *ts_due(const struct ts_out *out);

/* Emit the present tensor's bytes unchanged as the line that is due, by reference if they came so
 * (inline all the same with stage->embed). Name, dtype and shape are the due line's; sizes must be
 * equal. */
void ts_pass(struct ts_out *out, struct ts_in *in);

/* The same for a tensor that came by reference to that place, whichever is present by now. Reads
 * nothing, so that another thread may read from `in` meanwhile. */
void ts_pass_reference(struct ts_out *out, struct ts_in *in, const struct tensor *tensor,
                       size_t source, uint64_t offset);

/* Emit the line that is due, which must be called `name`, inline: begin, its bytes in pieces, as
 * many as the table says; or all at once. */
void ts_begin(struct ts_out *out, const char *name);
void ts_write(struct ts_out *out, const void *data, size_t size);
void ts_put(struct ts_out *out, const char *name, const void *data, size_t size);

/* Prove the input's end (in may be NULL), see that every planned tensor was written, write .end
 * with the counts of all stages (`counts`, an object or NULL, is this one's; taken over), close and
 * check, rename -o's file into place. Frees in and out. */
void ts_finish(struct ts_out *out, struct ts_in *in, json_t *counts);

#endif
