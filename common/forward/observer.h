/* observer.h: checks what was observed of a layer's linears over the samples of all ranks, and
 * reports it through the run's callbacks. */
#ifndef OBSERVER_H
#define OBSERVER_H

#include "forward/experts.h"

/* Ask run->records what to record of each loaded linear, before anything goes through it. */
void observe_begin(const struct forward *run, struct layer *layer, struct experts *experts);

/* Call run->linear for each loaded linear of a layer or of its experts, and run->routed for each
 * expert. NaN or infinity in any ends the process. Waits for the device. */
void observe_layer(const struct forward *run, const struct layer *layer);
void observe_experts(const struct forward *run, const struct experts *experts);

#endif
