/* whole.h: whether a stream that says it is of a whole checkpoint is. */
#ifndef WHOLE_H
#define WHOLE_H

#include "stream/ts.h"

/* End the process, naming what is missing, if the stream's scope is "all" but its table is not as
 * whole_check_table() wants it. */
void whole_check(struct ts_in *in);

/* The same of any table that came with the header of `in`, whatever the scope: a checkpoint that
 * was a folder must have all layers, experts and matrices that config.json counts and the family
 * knows (model/complete.h), and the shapes that it says (model/shapes.h). The files of ranks, and
 * files given by themselves, are not looked at.
 */
void whole_check_table(struct ts_in *in, struct toc *toc);

#endif
