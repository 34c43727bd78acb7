#include "model/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/number.h"
#include "base/text.h"
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
static inline bool begins(const char **name, const char *prefix, uint32_t *number)
{
    const char *p = *name;
    if (*p != *prefix) /* so with most prefixes of a table; no prefix begins with a number */
        return false;
    for (; *prefix && *prefix != '#' && *p == *prefix; p++)
        prefix++;
    if (*prefix == '#') {
        uint64_t value;
        if (!number_parse(&p, 999999999, &value) || *p++ != '.')
            return false;
        *number = (uint32_t)value;
    } else if (*prefix && (*p || strcmp(prefix, ".") != 0)) {
        return false;
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

/* If the rest of the name is the matrix or one of its tensors ("w1", "w1.weight"): true, and *rest
 * moves past it. */
static bool is_matrix(const char **rest, const char *matrix)
{
    const char *p = *rest;
    for (; *matrix && *p == *matrix; p++)
        matrix++;
    if (*matrix || (*p && *p != '.'))
        return false;
    *rest = p;
    return true;
}

/* Two sets of names: the checkpoint's, and those in the files of ranks. */
enum spelling { OF_CHECKPOINT, OF_RANKS };

static const char *spelled(enum spelling spelling, const char *name, const char *in_ranks)
{
    return spelling == OF_RANKS && in_ranks ? in_ranks : name;
}

/* A name, taken apart. Numbers are as in the name. */
struct parsed {
    const struct section_name *section;
    uint32_t layer;
    const struct part_name *part; /* in a layer, else NULL */
    uint32_t expert;
    const struct matrix_name *matrix; /* if the part has matrices, else NULL */
    const char *rest;                 /* what follows all these: ".weight", or "weight" */
};

/* Take apart what follows the layer. */
static void parse_part(const struct family *family, enum spelling spelling, struct parsed *parsed)
{
    const struct part_name *part = family->part;
    while (part->prefix &&
           !begins(&parsed->rest, spelled(spelling, part->prefix, part->in_ranks), &parsed->expert))
        part++;
    parsed->part = part;
    const struct matrix_name *matrix = part->matrix;
    while (matrix && matrix->name &&
           !is_matrix(&parsed->rest, spelled(spelling, matrix->name, matrix->in_ranks)))
        matrix++;
    parsed->matrix = matrix;
}

/* False if no section has such names. */
static bool parse(const struct family *family, enum spelling spelling, const char *name,
                  struct parsed *parsed)
{
    const struct section_name *section = family->section;
    *parsed = (struct parsed){.expert = PLACE_NONE, .rest = name};
    while (section->prefix &&
           !begins(&parsed->rest, spelled(spelling, section->prefix, section->in_ranks),
                   &parsed->layer))
        section++;
    parsed->section = section;
    if (section->prefix && strchr(section->prefix, '#'))
        parse_part(family, spelling, parsed);
    return section->prefix;
}

static enum share share_of(const struct family *family, const struct parsed *parsed,
                           const struct place *place)
{
    const struct part_name *part = parsed->part;
    const struct matrix_name *matrix = parsed->matrix;
    if (!family->ranks || (part && !part->prefix) || (matrix && !matrix->name))
        return SHARE_UNKNOWN;
    if (place->section == SECTION_MTP && !family->ranks->mtp)
        return SHARE_NOTHING;
    return matrix ? matrix->share : part ? part->share : parsed->section->share;
}

static struct place place_of(const struct model *model, enum spelling spelling, const char *name)
{
    const struct family *family = model->family;
    struct place place = {.section = SECTION_UNKNOWN, .share = SHARE_UNKNOWN, .expert = PLACE_NONE};
    struct parsed parsed;
    if (!parse(family, spelling, name, &parsed))
        return place;
    const struct part_name *part = parsed.part;
    const struct matrix_name *matrix = parsed.matrix;
    place.section = (uint8_t)parsed.section->section;
    place.layer = parsed.layer;
    place.expert = parsed.expert;
    place.part = part ? (uint32_t)(part - family->part) : parsed.section->part;
    place.matrix = part && matrix ? (uint32_t)(matrix - part->matrix) : 0;
    place.group = matrix ? matrix->group : 0;
    place.use = matrix ? (uint8_t)matrix->use : USE_PRODUCT;
    place.stays = part ? part->stays || (matrix && matrix->stays) : parsed.section->stays;
    if (part && place.section == SECTION_LAYERS && model->layers && place.layer >= model->layers &&
        !has_section(family, SECTION_MTP)) {
        place.section = SECTION_MTP;
        place.layer -= model->layers;
    }
    place.share = (uint8_t)share_of(family, &parsed, &place);
    return place;
}

struct place model_place(const struct model *model, const char *name)
{
    struct place place = place_of(model, OF_CHECKPOINT, name);
    return place.section == SECTION_UNKNOWN && model->family->ranks
               ? place_of(model, OF_RANKS, name)
               : place;
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
    char digits[NUMBER_TEXT] = "";
    const char *mark = strchrnul(prefix, '#'), *after = *mark ? mark + 1 : mark;
    size_t length = strlen(text), before = (size_t)(mark - prefix);
    if (*mark)
        *number_put(digits, number) = 0;
    if (length + before + strlen(digits) + strlen(after) > TENSOR_NAME_MAX)
        return false;
    stpcpy(stpcpy(mempcpy(text + length, prefix, before), digits), after);
    return true;
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
    struct place place = {.section = SECTION_UNKNOWN};
    if (!has_section(model->family, SECTION_MTP))
        place = model_place(model, module);
    if (place.section == SECTION_MTP && layer_prefix(model, &place, name)) {
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

char *model_product_name(const struct model *model, const struct place *place)
{
    char *names = NULL;
    struct place member;
    for (unsigned i = 0; model_group_member(model, place, i, &member); i++) {
        const char *name = model_matrix_name(model, &member);
        char *longer = names ? xprintf("%s+%s", names, name) : xstrdup(name);
        free(names);
        names = longer;
    }
    return names ? names : xstrdup(model_matrix_name(model, place));
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

/* ---- the files of ranks ---- */

/* Append what follows a module, ".weight" or "weight", to the text. */
static bool append_rest(const struct family *family, char *text, const char *rest,
                        enum spelling from)
{
    static const char in_ranks[] = "scale";
    const char *own = family->ranks->scale;
    size_t dot = *rest == '.';
    if (!*rest && ends_with(text, ".")) /* a module's name */
        text[strlen(text) - 1] = 0;
    if (own && !strcmp(rest + dot, from == OF_RANKS ? in_ranks : own))
        return append(text, dot ? "." : "", 0) &&
               append(text, from == OF_RANKS ? own : in_ranks, 0);
    return append(text, rest, 0);
}

static bool respell(const struct model *model, enum spelling from, const char *name, char *renamed)
{
    const struct family *family = model->family;
    enum spelling to = from == OF_RANKS ? OF_CHECKPOINT : OF_RANKS;
    struct parsed parsed;
    renamed[0] = 0;
    if (!family->ranks || !parse(family, from, name, &parsed))
        return false;
    const struct section_name *section = parsed.section;
    const struct part_name *part = parsed.part;
    const struct matrix_name *matrix = parsed.matrix;
    return (!part || part->prefix) && (!matrix || matrix->name) &&
           append(renamed, spelled(to, section->prefix, section->in_ranks), parsed.layer) &&
           (!part || append(renamed, spelled(to, part->prefix, part->in_ranks), parsed.expert)) &&
           (!matrix || append(renamed, spelled(to, matrix->name, matrix->in_ranks), 0)) &&
           append_rest(family, renamed, parsed.rest, from);
}

bool model_to_ranks(const struct model *model, const char *name, char *renamed)
{
    return respell(model, OF_CHECKPOINT, name, renamed);
}

bool model_from_ranks(const struct model *model, const char *name, char *renamed)
{
    return respell(model, OF_RANKS, name, renamed);
}

char *model_ranks_refuse(const struct model *model, uint64_t ranks)
{
    const struct rank_files *files = model->family->ranks;
    if (!*model_type(model))
        return xstrdup("what model is it? config.json is missing, or has an unknown model_type");
    if (!files)
        return xprintf("it is not known how model-parallel ranks share a model of type %s",
                       model_type(model));
    for (const char *const *key = files->divides; *key; key++) {
        uint32_t count = model_count(model, *key);
        if (count % ranks)
            return xprintf("config.json's %s, %" PRIu32 ", is not divisible by %" PRIu64 " ranks",
                           *key, count, ranks);
    }
    return NULL;
}

/* ---- what else depends on the family ---- */

uint32_t model_count(const struct model *model, const char *key)
{
    json_int_t count = key ? json_integer_value(json_object_get(model->config, key)) : 0;
    return count > 0 && count < UINT32_MAX ? (uint32_t)count : 0;
}

bool model_lists_disabled(const struct model *model)
{
    return model->family->unused_quantizer != NULL;
}

bool model_unused_quantizer(const struct model *model, const char *module, unsigned i, char *name)
{
    const struct family *family = model->family;
    const char *last = strrchr(module, '.');
    if (!last || !model_lists_disabled(model) || strcmp(last + 1, family->unused_beside) != 0 ||
        !family->unused_quantizer[i])
        return false;
    model_to_dump(model, module, name);
    char *end = strrchr(name, '.');
    size_t room = TENSOR_NAME_MAX + 1 - (size_t)(end + 1 - name);
    return (size_t)snprintf(end + 1, room, "%s", family->unused_quantizer[i]) < room;
}

const char *model_scale_name(const struct model *model)
{
    const struct rank_files *files = model->family->ranks;
    return files && files->scale ? files->scale : "scale";
}

uint32_t model_experts(const struct model *model, const struct place *place)
{
    const struct family *family = model->family;
    return family->experts_key ? model_count(model, family->experts_key(model, place)) : 0;
}

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

void model_to_dump(const struct model *model, const char *module, char *dumped)
{
    if (!model->family->dumped_as_ranks || !model_to_ranks(model, module, dumped))
        strcpy(dumped, module);
}

void model_from_dump(const struct model *model, const char *dumped, char *module)
{
    if (!model->family->dumped_as_ranks || !model_from_ranks(model, dumped, module))
        strcpy(module, dumped);
}

const char *model_requantized_by(const struct model *model)
{
    return model->family->requantized_by;
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

enum chat_style model_untemplated_chat(const struct model *model)
{
    const char *type = model->family->untemplated_type;
    return type && !strcmp(type, model->type) ? model->family->untemplated_chat : CHAT_UNKNOWN;
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
    if (found && found != *model->family->amax_separator)
        return false;
    if (found)
        model_from_dump(model, name, module);
    struct place place = place_of(model, OF_CHECKPOINT, found ? module : name);
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
