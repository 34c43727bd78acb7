/* observer.h: what a layer's linears saw, over the samples of all ranks, is checked and told to
 * whoever runs the model. */
#ifndef OBSERVER_H
#define OBSERVER_H

#include "forward/experts.h"

/* Tell run->linear of each of a layer's linears that were loaded, and of those of its experts, and
 * run->routed of each expert. NaN or infinity in any ends the process. Waits for the device. */
void observe_layer(const struct forward *run, const struct layer *layer);
void observe_experts(const struct forward *run, const struct experts *experts);

#endif
