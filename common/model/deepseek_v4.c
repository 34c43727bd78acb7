/* DeepSeek-V4 (Pro, Flash) under its release's own tensor names:
 *
 *   embed.weight
 *   layers.N.{hc_attn_*, attn_norm, attn.*, hc_ffn_*, ffn_norm, ffn.gate.*, ffn.shared_experts.*,
 *             ffn.experts.E.{w1,w3,w2}}
 *   norm.weight, hc_head_*, head.weight
 *   mtp.N.{as a layer, and e_proj, h_proj, enorm, hnorm, norm, hc_head_*}
 *
 * Source: DeepSeek's V4-Flash release, inference/model.py. */
#include <stdio.h>
#include <string.h>

#include "model/model.h"

enum { SECTION_EMBED, SECTION_LAYERS, SECTION_NORM, SECTION_HEAD, SECTION_MTP, SECTION_UNKNOWN };

/* The parts of a layer in execution order; MTP's projections come before its attention. */
static const char *const parts[] = {
    "enorm.",
    "hnorm.",
    "e_proj.",
    "h_proj.",
    "hc_attn_",
    "attn_norm.",
    "attn.",
    "hc_ffn_",
    "ffn_norm.",
    "ffn.gate.",
    "ffn.shared_experts.",
    "ffn.experts.",
};
enum { PARTS = sizeof parts / sizeof *parts, PART_SHARED = PARTS - 2, PART_EXPERTS = PARTS - 1 };

static bool starts(const char *name, const char *prefix)
{
    return !strncmp(name, prefix, strlen(prefix));
}

/* w1 (gate), w3 (up), w2 (down): the order of use. */
static uint32_t matrix_rank(const char *name)
{
    static const char *const order[] = {"w1.", "w3.", "w2."};
    for (uint32_t i = 0; i < 3; i++)
        if (starts(name, order[i]))
            return i;
    return 3;
}

static struct model_order order(const char *name)
{
    struct model_order place = {.section = SECTION_UNKNOWN};
    if (starts(name, "embed."))
        place.section = SECTION_EMBED;
    else if (starts(name, "norm."))
        place.section = SECTION_NORM;
    else if (starts(name, "hc_head_") || starts(name, "head."))
        place.section = SECTION_HEAD;
    else if (name_number(&name, "layers.", &place.layer))
        place.section = SECTION_LAYERS;
    else if (name_number(&name, "mtp.", &place.layer))
        place.section = SECTION_MTP;
    if (place.section == SECTION_HEAD)
        place.part = starts(name, "head.");
    if (place.section != SECTION_LAYERS && place.section != SECTION_MTP)
        return place;
    while (place.part < PARTS && !starts(name, parts[place.part]))
        place.part++;
    if (place.part == PART_SHARED)
        place.matrix = matrix_rank(name + strlen(parts[PART_SHARED]));
    else if (place.part == PART_EXPERTS && name_number(&name, parts[PART_EXPERTS], &place.expert))
        place.matrix = matrix_rank(name);
    return place;
}

static bool fused(const char *module, char *partner)
{
    size_t length = strlen(module);
    if (!strstr(module, ".ffn.") || length < 3 || length > TENSOR_NAME_MAX)
        return false;
    const char *matrix = module + length - 3;
    if (strcmp(matrix, ".w1") != 0 && strcmp(matrix, ".w3") != 0)
        return false;
    strcpy(partner, module);
    partner[length - 1] = matrix[2] == '1' ? '3' : '1';
    return true;
}

static bool expert(const char *module, char *experts, char *projection, uint32_t *layer,
                   uint32_t *number, bool *mtp)
{
    const char *p = module;
    *mtp = starts(module, "mtp.");
    if (strlen(module) > TENSOR_NAME_MAX || !name_number(&p, *mtp ? "mtp." : "layers.", layer))
        return false;
    const char *inner = p;
    if (!name_number(&p, parts[PART_EXPERTS], number) || strlen(p) != 2 || p[0] != 'w' ||
        p[1] < '1' || p[1] > '3')
        return false;
    int length = (int)(inner - module) + (int)strlen(parts[PART_EXPERTS]) - 1;
    sprintf(experts, "%.*s", length, module);
    strcpy(projection, p);
    return true;
}

const struct model model_deepseek_v4 = {
    .type = "deepseek_v4",
    .order = order,
    .fused = fused,
    .expert = expert,
    .hash_layers_key = "num_hash_layers",
};
