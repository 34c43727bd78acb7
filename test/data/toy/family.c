/* A family that no checkpoint has: test/bats/family.bats adds it to a copy of the project, by this
 * file and a line in families.def. It has names of its own, groups of three, layers whose last ones
 * are MTP's, dumps that call modules otherwise, and FP8 blocks of a size that no other has. */
#include "model/family.h"

static const struct section_name sections[] = {
    {.prefix = "tok.", .section = SECTION_EMBED, .stays = true},
    {.prefix = "blk.#.", .section = SECTION_LAYERS, .in_ranks = "dump.blk.#."},
    {.prefix = "out.", .section = SECTION_HEAD, .stays = true},
    {0},
};

static const struct matrix_name mix[] = {
    {.name = "q", .group = 1}, {.name = "k", .group = 1}, {.name = "v", .group = 1}, {0}};
static const struct matrix_name bank[] = {{.name = "a", .group = 1},
                                          {.name = "b", .group = 1},
                                          {.name = "c", .group = 1},
                                          {.name = "z"},
                                          {0}};

static const struct part_name parts[] = {
    {.prefix = "mix.", .matrix = mix},
    {.prefix = "router.", .stays = true},
    {.prefix = "bank.#.", .matrix = bank},
    {0},
};

static const char *const divides[] = {NULL};
static const struct rank_files ranks = {.divides = divides};

static const struct fp8_block blocks[] = {{16, 16}, {0}};

const struct family family_toy = {
    .type = "toy",
    .section = sections,
    .part = parts,
    .amax_separator = ".",
    .dumped_as_ranks = true,
    .fp8_block = blocks,
    .ranks = &ranks,
};
