/* run_record.h: what a checkpoint was made of, and by which stages.
 *
 * In a checkpoint it is quant-run.json, an object:
 *
 *     stages    of the pipeline, in order: program, version, options that can change the result,
 * and digests of what they read besides the stream (amax, recipe) sources   the source's files:
 * file, bytes, and sample, a checksum (XXH3-64) of some pages of a shard, or of a whole side file
 *
 * Equal runs give equal bytes: it has no time and no path but those in options. */
#ifndef RUN_RECORD_H
#define RUN_RECORD_H

#include "base/digest.h"
#include "stream/ts.h"

#define RUN_RECORD "quant-run.json"

/* The identity of a run that may be continued: the files that were read, with path and modification
 * time, and what the stages did with them, in DIGEST_TEXT bytes. Which shards a run takes does not
 * matter. Returns hex; NULL of a plan whose stages have not been given the amaxes, without which it
 * is not known. */
const char *run_identity(struct ts_in *in, char *hex);

/* The record of a stream that `stage` (st-write) writes; the caller owns it. A source that is not
 * there, as that of an inline stream may be, has no sample. */
json_t *run_record_of(struct ts_in *in, const struct stage *stage);

/* The record in a checkpoint's folder, which the caller owns; NULL if there is none. */
json_t *run_record_read(const char *folder);

/* How a checkpoint's record differs from a stream's: the first difference as a clause, which the
 * caller frees, or NULL. A plan does not know amaxes that its stages will only be given later. */
char *run_record_difference(const json_t *record, const json_t *stream, bool plan);

#endif
