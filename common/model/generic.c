/* A model of an unknown family: names in natural order. */
#include "model/family.h"

static const struct section_name sections[] = {{0}};
static const struct part_name parts[] = {{0}};

const struct family family_generic = {
    .type = "", .section = sections, .part = parts, .amax_separator = "_"};
