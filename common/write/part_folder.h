/* part_folder.h: where the stream of a part (st-read --part) is written: a folder of its own in
 * DST.partial (parts.h). What is in its way ends the process. */
#ifndef PART_FOLDER_H
#define PART_FOLDER_H

#include "stream/ts.h"
#include "write/output_dir.h"

/* Let `output` be the folder of the stream's part instead of the whole's. False if that part is
 * already complete, as all are when a --join was killed. Then the stream was compared with what the
 * part was written from. */
bool part_folder_enter(struct output_dir *output, struct ts_in *in, const struct stage *stage);

/* What it would refuse of what other runs left, for a plan, which changes nothing. Of a stream that
 * is no part, the number of parts does not matter. `identity`: incoming_identity(). */
void part_folder_plan(struct output_dir *output, struct ts_in *in, const char *identity);

/* For a run in one piece, which would leave its shards beside parts: refuse them. */
void part_folder_refuse(const struct output_dir *output);

#endif
