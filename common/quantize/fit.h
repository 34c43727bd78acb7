/* fit.h: whether amaxes are those of a checkpoint: a calibration of another model has routed
 * experts that this one lacks. */
#ifndef FIT_H
#define FIT_H

#include "stream/ts.h"

struct fit;

/* Compare with a checkpoint, of which nothing need be read yet. Streams with a part of one show
 * nothing: with them, all passes. Both must live as long. fit_end() frees it. */
struct fit *fit_begin(struct ts_in *checkpoint);

/* A module that has an amax. */
void fit_add(struct fit *fit, const char *module);

/* End the process if routed experts were among them that the checkpoint lacks, with both counts;
 * `name` is the amaxes', for that message. */
void fit_end(struct fit *fit, const char *name);

#endif
