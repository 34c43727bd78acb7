/* amax_summary.h: a table of amaxes for people: a line for each quantizer, and a digest of each
 * layer. */
#ifndef AMAX_SUMMARY_H
#define AMAX_SUMMARY_H

#include "base/output.h"
#include "quantize/amax_table.h"
#include "stream/report.h"

/* Write it to `path`, as text or records. It is put in place by output_finish(file). */
void amax_summary_write(struct output *file, const char *path, enum report form,
                        const struct amax_table *table);

#endif
