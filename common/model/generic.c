/* A model that nothing is known of: natural order of names. */
#include "model/model.h"

static struct model_order order(const char *name)
{
    (void)name;
    return (struct model_order){0};
}

static bool fused(const char *module, char *partner)
{
    (void)module;
    (void)partner;
    return false;
}

static bool expert(const char *module, char *experts, char *projection, uint32_t *layer,
                   uint32_t *number, bool *mtp)
{
    (void)module;
    (void)experts;
    (void)projection;
    (void)layer;
    (void)number;
    (void)mtp;
    return false;
}

const struct model model_generic = {.type = "", .order = order, .fused = fused, .expert = expert};
