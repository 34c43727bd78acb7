/* numpy's default_rng(): a seed is spread over a pool (SeedSequence), which starts a PCG64; numbers
 * below a bound come of Lemire's method. Sources: numpy's random/bit_generator.pyx, pcg64.h and
 * distributions.c. */
#include "forward/deepseek_v41/hash.h"

enum { POOL = 4, SHIFT = 16 };

/* ---- the seed ---- */

/* Mix a word with a running constant. */
static uint32_t mix_in(uint32_t word, uint32_t *constant, uint32_t factor)
{
    word ^= *constant;
    *constant *= factor;
    word *= *constant;
    return word ^ word >> SHIFT;
}

static void fill_pool(uint32_t *pool, uint64_t seed)
{
    uint32_t constant = 0x43b0d7e5;
    const uint32_t factor = 0x931e8875;
    for (unsigned i = 0; i < POOL; i++)
        pool[i] = mix_in(i < 2 ? (uint32_t)(seed >> 32 * i) : 0, &constant, factor);
    for (unsigned from = 0; from < POOL; from++)
        for (unsigned to = 0; to < POOL; to++) {
            if (from == to)
                continue;
            uint32_t mixed =
                0xca01f9ddU * pool[to] - 0x4973f715U * mix_in(pool[from], &constant, factor);
            pool[to] = mixed ^ mixed >> SHIFT;
        }
}

/* ---- the generator ---- */

struct pcg {
    unsigned __int128 state, increment;
};

static uint64_t next_number(struct pcg *pcg)
{
    const unsigned __int128 factor =
        (unsigned __int128)0x2360ed051fc65da4 << 64 | 0x4385df649fccf645;
    pcg->state = pcg->state * factor + pcg->increment;
    uint64_t word = (uint64_t)(pcg->state >> 64) ^ (uint64_t)pcg->state;
    unsigned turn = (unsigned)(pcg->state >> 122);
    return word >> turn | word << (-turn & 63);
}

static void start(struct pcg *pcg, uint64_t seed)
{
    uint32_t pool[POOL], constant = 0x8b51f9dd;
    uint64_t word[4] = {0};
    fill_pool(pool, seed);
    for (unsigned i = 0; i < 8; i++)
        word[i / 2] |= (uint64_t)mix_in(pool[i % POOL], &constant, 0x58f38ded) << 32 * (i % 2);
    unsigned __int128 state = (unsigned __int128)word[0] << 64 | word[1];
    *pcg = (struct pcg){0, ((unsigned __int128)word[2] << 64 | word[3]) << 1 | 1};
    next_number(pcg);
    pcg->state += state;
    next_number(pcg);
}

void engram_random(uint64_t seed, uint64_t bound, uint64_t *number, uint64_t count)
{
    struct pcg pcg;
    start(&pcg, seed);
    for (uint64_t i = 0; i < count; i++) {
        unsigned __int128 product;
        do
            product = (unsigned __int128)next_number(&pcg) * bound;
        while ((uint64_t)product < -bound % bound);
        number[i] = (uint64_t)(product >> 64);
    }
}
