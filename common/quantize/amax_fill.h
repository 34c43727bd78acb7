/* amax_fill.h: fill in the input amaxes that a calibration lacks. */
#ifndef AMAX_FILL_H
#define AMAX_FILL_H

#include "quantize/amax_table.h"
#include "stream/ts.h"

struct amax_rules {
    const char *fallback; /* for an expert never reached: "none", "layer-max" or "projection-max" */
    const char *recipe;   /* the name of the table's, for messages */
    float input_scale;    /* of all, without a calibration; 0: not given */
    uint64_t coverage;    /* percent of each layer's experts that must have amaxes of their own */
    bool verbose;         /* name each that is filled in */
};

/* How many were filled in. */
struct amax_filled {
    uint64_t experts; /* never reached */
    uint64_t drafts;  /* of drafts that were not calibrated, from the last layer's */
};

/* After amax_find_largest(): fill in what is missing. `model` is the checkpoint, of which each
 * matrix that the recipe names needs an amax; with NULL, every layer that occurs needs experts 0 to
 * the last one seen. `name` is the calibration's, for messages. A calibration that is not of the
 * checkpoint, or has too little to fill in from, ends the process. */
struct amax_filled amax_fill(struct amax_table *table, const struct amax_rules *rules,
                             struct ts_in *model, const char *name);

#endif
