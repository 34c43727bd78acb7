/* fit.h: check that amaxes belong to a checkpoint: a calibration of another model may have routed
 * experts that the checkpoint lacks. */
#ifndef FIT_H
#define FIT_H

#include "stream/ts.h"

struct fit;

/* Begin a comparison with a checkpoint's table of contents; no tensor is read. A stream with a part
 * of a checkpoint accepts any amaxes. The stream must live until fit_end(), which frees the
 * comparison. */
struct fit *fit_begin(struct ts_in *checkpoint);

/* Add a module that has an amax. */
void fit_add(struct fit *fit, const char *module);

/* End the process, with both counts, if the checkpoint lacks routed experts that were added. `name`
 * is the amax stream's, for that message. */
void fit_end(struct fit *fit, const char *name);

#endif
