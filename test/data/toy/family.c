/* A family that no checkpoint has: test/bats/family.bats adds it to a copy of the project, by this
 * file and a line in families.def. It has names of its own, groups of three, layers whose last ones
 * are MTP's, dumps that call modules otherwise, and FP8 blocks of a size that no other has. */
#include <stdio.h>
#include <string.h>

#include "model/family.h"

static const struct section_name sections[] = {
    {.prefix = "tok.", .section = SECTION_EMBED, .stays = true},
    {.prefix = "blk.#.", .section = SECTION_LAYERS},
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

/* "blk.3.bank.7.a" is dumped as "dump.blk.3.bank.7.a". */
static bool to_dump(const char *module, char *dumped)
{
    return snprintf(dumped, TENSOR_NAME_MAX + 1, "dump.%s", module) <= TENSOR_NAME_MAX;
}

static bool from_dump(const struct model *model, const char *dumped, char *module)
{
    (void)model;
    if (strncmp(dumped, "dump.", 5) != 0)
        return false;
    strcpy(module, dumped + 5);
    return true;
}

static const struct fp8_block blocks[] = {{16, 16}, {0}};

const struct family family_toy = {
    .type = "toy",
    .section = sections,
    .part = parts,
    .amax_separator = ".",
    .to_dump = to_dump,
    .from_dump = from_dump,
    .fp8_block = blocks,
};
