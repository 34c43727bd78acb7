/* zero_tail.h: shards of which a part never arrived: download tools give a file its full size
 * first, so that header and size are right and the rest is zeros. */
#ifndef ZERO_TAIL_H
#define ZERO_TAIL_H

#include "stream/checkpoint.h"

enum { ZERO_TAIL = 1 << 20, ZERO_DATA = 4096 };

/* End the process if the last ZERO_TAIL bytes of a shard are zeros, or all of its data where that
 * is less but at least ZERO_DATA: more than a zero bias or an unused scale. Shards that end in
 * integers, such as token ids with padding, may do so. The same for a hole of ZERO_TAIL bytes
 * anywhere in its data, where the filesystem tells. Of a shard that is whole, it reads a few KiB.
 */
void zero_tail_refuse(struct checkpoint *checkpoint);

#endif
