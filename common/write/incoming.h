/* incoming.h: whether a stream is one that can be written. What is not ends the process. */
#ifndef INCOMING_H
#define INCOMING_H

#include "base/digest.h"
#include "stream/ts.h"

/* The identity of the stream's run (run_record.h), in `hex` of DIGEST_TEXT bytes; NULL if only a
 * plan is to be made, and it is not known. */
const char *incoming_identity(struct ts_in *in, const struct stage *stage, char *hex);

/* Refuse a stream without tensors. To be called after its end, which says whether it is one. */
void incoming_refuse_plan(const struct ts_in *in);

/* Refuse a stream that has nothing to write, or that is not of a whole checkpoint: that is the
 * `part` of a run of several, or `partial` by intent. A part may be empty. A `continued` run was
 * already checked, and may lack only the last step. */
void incoming_check(struct ts_in *in, bool part, bool partial, bool continued);

#endif
