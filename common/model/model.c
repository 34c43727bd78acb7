#include "model/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/number.h"
#include "model/family.h"

#define FAMILY(name) &family_##name,
static const struct family *const families[] = {
#include "model/families.def"
};
#undef FAMILY
enum { FAMILIES = sizeof families / sizeof *families };

/* ---- opening ---- */

/* The family's own copy of a model_type; NULL if it is another family's. */
static const char *type_of(const struct family *family, const char *type)
{
    if (!strcmp(family->type, type))
        return family->type;
    for (const char *const *other = family->other_types; other && *other; other++)
        if (!strcmp(*other, type))
            return *other;
    return NULL;
}

static void set_family(struct model *model, const char *type)
{
    model->family = &family_generic;
    model->type = family_generic.type;
    for (size_t i = 0; type && i < FAMILIES; i++) {
        const char *own = type_of(families[i], type);
        if (own) {
            model->family = families[i];
            model->type = own;
        }
    }
}

/* The object of config.json that has the key: config.json itself or its nested text_config; NULL if
 * neither. */
static json_t *config_with(const json_t *config, const char *key)
{
    json_t *text = json_object_get(config, "text_config");
    return json_object_get(text, key)     ? text
           : json_object_get(config, key) ? (json_t *)config
                                          : NULL;
}

static struct fp8_block block_size(const json_t *config)
{
    json_t *quantization =
        json_object_get(config_with(config, "quantization_config"), "quantization_config");
    json_t *size = json_object_get(quantization, "weight_block_size");
    json_int_t rows = json_integer_value(json_array_get(size, 0));
    json_int_t cols = json_integer_value(json_array_get(size, 1));
    bool known = json_array_size(size) == 2 && rows > 0 && cols > 0;
    return known ? (struct fp8_block){(uint64_t)rows, (uint64_t)cols} : (struct fp8_block){0};
}

struct model *model_open(const char *type, const json_t *config)
{
    static const char layers_key[] = "num_hidden_layers";
    struct model *model = xalloc(1, sizeof *model);
    json_t *own = config_with(config, layers_key);
    json_int_t layers = json_integer_value(json_object_get(own, layers_key));
    *model = (struct model){.config = json_incref(own ? own : (json_t *)config),
                            .layers = layers > 0 && layers < UINT32_MAX ? (uint32_t)layers : 0,
                            .fp8_block = block_size(config)};
    set_family(model, type);
    return model;
}

void model_close(struct model *model)
{
    if (model)
        json_decref(model->config);
    free(model);
}

const char *model_type(const struct model *model)
{
    return model->family->type;
}

const char *model_own_type(const struct model *model)
{
    return model->type;
}

const json_t *model_config(const struct model *model)
{
    return model->config;
}

/* ---- names ---- */

/* True if the text at *name begins with the prefix: *name moves past it, and *number gets the
 * number at '#'. The name of a module may end where the prefix has its final '.'. */
static bool begins(const char **name, const char *prefix, uint32_t *number)
{
    size_t length = strcspn(prefix, "#");
    if (!prefix[length] && !strncmp(*name, prefix, length - 1) && prefix[length - 1] == '.' &&
        !(*name)[length - 1]) {
        *name += length - 1;
        return true;
    }
    if (strncmp(*name, prefix, length) != 0)
        return false;
    const char *p = *name + length;
    if (prefix[length]) {
        uint64_t value;
        if (!number_parse(&p, 999999999, &value) || *p++ != '.')
            return false;
        *number = (uint32_t)value;
    }
    *name = p;
    return true;
}

static bool has_section(const struct family *family, enum section section)
{
    for (const struct section_name *s = family->section; s->prefix; s++)
        if (s->section == section)
            return true;
    return false;
}

/* True if the rest of the name is the matrix or one of its tensors: "w1", "w1.weight". */
static bool is_matrix(const char *rest, const char *matrix)
{
    size_t length = strlen(matrix);
    return !strncmp(rest, matrix, length) && (!rest[length] || rest[length] == '.');
}

static void place_in_layer(const struct family *family, struct place *place, const char *rest)
{
    const struct part_name *part = family->part;
    while (part->prefix && !begins(&rest, part->prefix, &place->expert)) {
        part++;
        place->part++;
    }
    place->stays = part->stays;
    if (!part->matrix)
        return;
    const struct matrix_name *matrix = part->matrix;
    while (matrix->name && !is_matrix(rest, matrix->name))
        matrix++;
    place->matrix = (uint32_t)(matrix - part->matrix);
    place->group = matrix->group;
    place->stays |= matrix->stays;
}

struct place model_place(const struct model *model, const char *name)
{
    const struct family *family = model->family;
    struct place place = {.section = SECTION_UNKNOWN, .expert = PLACE_NONE};
    const struct section_name *section = family->section;
    while (section->prefix && !begins(&name, section->prefix, &place.layer))
        section++;
    if (!section->prefix)
        return place;
    place.section = (uint8_t)section->section;
    place.part = section->part;
    place.stays = section->stays;
    bool is_layer = strchr(section->prefix, '#');
    if (is_layer && place.section == SECTION_LAYERS && model->layers &&
        place.layer >= model->layers && !has_section(family, SECTION_MTP)) {
        place.section = SECTION_MTP;
        place.layer -= model->layers;
    }
    if (is_layer)
        place_in_layer(family, &place, name);
    return place;
}

/* The part at a place in a layer; NULL if the family has no name for it. */
static const struct part_name *part_of(const struct family *family, const struct place *place)
{
    const struct part_name *part = family->part;
    if (place->section != SECTION_LAYERS && place->section != SECTION_MTP)
        return NULL;
    for (uint32_t i = 0; part->prefix && i < place->part; i++)
        part++;
    return part->prefix ? part : NULL;
}

/* Append `prefix` to the text, with `number` for '#'. False if it does not fit. */
static bool append(char *text, const char *prefix, uint32_t number)
{
    size_t length = strlen(text), room = TENSOR_NAME_MAX + 1 - length;
    size_t before = strcspn(prefix, "#");
    int written = prefix[before] ? snprintf(text + length, room, "%.*s%u%s", (int)before, prefix,
                                            number, prefix + before + 1)
                                 : snprintf(text + length, room, "%s", prefix);
    return written >= 0 && (size_t)written < room;
}

/* The name of the layer at a place, including its final '.'. */
static bool layer_prefix(const struct model *model, const struct place *place, char *path)
{
    const struct family *family = model->family;
    bool own = has_section(family, (enum section)place->section);
    uint32_t section = own ? place->section : SECTION_LAYERS;
    uint32_t layer = own ? place->layer : place->layer + model->layers;
    const struct section_name *s = family->section;
    while (s->prefix && s->section != section)
        s++;
    path[0] = 0;
    return s->prefix && append(path, s->prefix, layer);
}

/* The name of the part at a place, including its final '.'. */
static bool part_path(const struct model *model, const struct place *place, char *path)
{
    const struct part_name *part = part_of(model->family, place);
    return layer_prefix(model, place, path) && part && append(path, part->prefix, place->expert);
}

char *model_pattern_name(const struct model *model, const char *module, char *name)
{
    struct place place = model_place(model, module);
    bool numbered =
        place.section == SECTION_MTP && !has_section(model->family, (enum section)place.section);
    if (numbered && layer_prefix(model, &place, name)) {
        char *rest = xstrdup(module + strlen(name));
        int written = snprintf(name, TENSOR_NAME_MAX + 1, "mtp.%" PRIu32 ".%s", place.layer, rest);
        free(rest);
        if (written >= 0 && written <= TENSOR_NAME_MAX)
            return name;
    }
    strcpy(name, module);
    return name;
}

char *model_layer_path(const struct model *model, const struct place *place, char *path)
{
    bool is_layer = place->section == SECTION_LAYERS || place->section == SECTION_MTP;
    if (is_layer && layer_prefix(model, place, path))
        path[strlen(path) - 1] = 0;
    else
        path[0] = 0;
    return path;
}

const char *model_matrix_name(const struct model *model, const struct place *place)
{
    const struct part_name *part = part_of(model->family, place);
    if (!part || !part->matrix)
        return "";
    const struct matrix_name *matrix = part->matrix;
    for (uint32_t i = 0; matrix->name && i < place->matrix; i++)
        matrix++;
    return matrix->name ? matrix->name : "";
}

bool model_module(const struct model *model, const struct place *place, char *module)
{
    const char *matrix = model_matrix_name(model, place);
    return part_path(model, place, module) && *matrix && append(module, matrix, 0);
}

bool model_group_member(const struct model *model, const struct place *place, unsigned i,
                        struct place *member)
{
    const struct part_name *part = part_of(model->family, place);
    if (!place->group || !part || !part->matrix)
        return false;
    for (uint32_t j = 0; part->matrix[j].name; j++)
        if (part->matrix[j].group == place->group && i-- == 0) {
            *member = *place;
            member->matrix = j;
            return true;
        }
    return false;
}

bool model_is_last_matrix(const struct model *model, const struct place *place)
{
    struct place next = *place;
    next.matrix++;
    return *model_matrix_name(model, place) && !*model_matrix_name(model, &next);
}

char *model_expert_path(const struct model *model, const struct place *place, char *path)
{
    if (part_path(model, place, path))
        path[strlen(path) - 1] = 0;
    return path;
}

char *model_experts_path(const struct model *model, const struct place *place, char *path)
{
    *strrchr(model_expert_path(model, place, path), '.') = 0;
    return path;
}

/* ---- what else depends on the family ---- */

bool model_has_dspark(const struct model *model, struct toc *toc)
{
    if (!model->family->dspark)
        return false;
    char *name = xprintf("%s.weight", model->family->dspark);
    bool found = toc_find(toc, name) >= 0;
    free(name);
    return found;
}

const struct expert_class *model_classes(const struct model *model)
{
    static const struct expert_class one[] = {{"routed", "routed"}, {0}};
    return model->family->classes ? model->family->classes : one;
}

unsigned model_expert_class(const struct model *model, const struct place *place)
{
    return model->family->expert_class ? model->family->expert_class(model, place) : 0;
}

bool model_fp8_block(const struct model *model, unsigned i, struct fp8_block *block)
{
    static const struct fp8_block in_use[] = {{128, 128}, {32, 32}, {1, 32}, {0}};
    const struct fp8_block configured[] = {model->fp8_block, {0}};
    const struct fp8_block *const list[] = {model->fp8_block.rows ? configured : in_use,
                                            model->family->fp8_block};
    for (size_t j = 0; j < sizeof list / sizeof *list; j++)
        for (const struct fp8_block *b = list[j]; b && b->rows; b++)
            if (i-- == 0) {
                *block = *b;
                return true;
            }
    return false;
}

bool model_to_dump(const struct model *model, const char *module, char *dumped)
{
    if (model->family->to_dump)
        return model->family->to_dump(module, dumped);
    strcpy(dumped, module);
    return true;
}

bool model_from_dump(const struct model *model, const char *dumped, char *module)
{
    if (model->family->from_dump)
        return model->family->from_dump(model, dumped, module);
    strcpy(module, dumped);
    return true;
}

bool model_weighs_early(const struct model *model)
{
    return model->family->weighs_early;
}

const char *model_amax_separator(const struct model *model)
{
    return model->family->amax_separator;
}

enum chat_style model_chat_style(const struct model *model)
{
    return model->family->chat;
}

/* The separator in the name of a dumped amax; 0 for another name. */
static char separator(const char *name)
{
    static const char *const quantizer[] = {"input_quantizer.", "weight_quantizer."};
    for (size_t i = 0; i < sizeof quantizer / sizeof *quantizer; i++) {
        const char *found = strstr(name, quantizer[i]);
        if (found && found > name)
            return found[-1];
    }
    return 0;
}

/* True if the family has a part of that name; of an amax, also its separator. */
static bool knows(const struct model *model, const char *name)
{
    char module[TENSOR_NAME_MAX + 1];
    char found = separator(name);
    if (found && (found != *model->family->amax_separator || !model_from_dump(model, name, module)))
        return false;
    struct place place = model_place(model, found ? module : name);
    return part_of(model->family, &place) != NULL;
}

const char *model_guess(const struct toc *toc)
{
    const char *best = "";
    size_t most = 0;
    for (size_t i = 0; i < FAMILIES; i++) {
        const struct model model = {.family = families[i]};
        size_t known = 0;
        for (size_t j = 0; j < toc->count; j++)
            known += knows(&model, toc->tensor[j].name);
        if (known > most) {
            most = known;
            best = families[i]->type;
        }
    }
    return best;
}
