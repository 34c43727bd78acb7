#include "base/checksum.h"

#include <stdlib.h>
#include <xxhash.h>

#include "base/die.h"

struct checksum {
    XXH3_state_t *state;
};

struct checksum *checksum_new(void)
{
    struct checksum *checksum = xalloc(1, sizeof *checksum);
    checksum->state = XXH3_createState();
    if (!checksum->state || XXH3_64bits_reset(checksum->state) != XXH_OK)
        die("out of memory");
    return checksum;
}

void checksum_add(struct checksum *checksum, const void *data, size_t size)
{
    XXH3_64bits_update(checksum->state, data, size);
}

uint64_t checksum_end(struct checksum *checksum)
{
    uint64_t sum = XXH3_64bits_digest(checksum->state);
    XXH3_freeState(checksum->state);
    free(checksum);
    return sum;
}

uint64_t checksum_of_zeros(uint64_t size)
{
    static const char zeros[1 << 16];
    struct checksum *checksum = checksum_new();
    for (uint64_t done = 0, piece; done < size; done += piece) {
        piece = at_most(size - done, sizeof zeros);
        checksum_add(checksum, zeros, (size_t)piece);
    }
    return checksum_end(checksum);
}
