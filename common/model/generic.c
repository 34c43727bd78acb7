/* A model that nothing is known of: natural order of names. */
#include "model/family.h"

static const struct section_name sections[] = {{0}};
static const struct part_name parts[] = {{0}};

const struct family family_generic = {
    .type = "", .section = sections, .part = parts, .amax_separator = "_"};
