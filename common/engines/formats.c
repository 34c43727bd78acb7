#include "engines/formats.h"

#include "base/glob.h"
#include "tensor/weight.h"

#define ANY_NVFP4 (FACT(EXPERTS_NVFP4) | FACT(DENSE_NVFP4))

const json_t *quantization_of(const json_t *config)
{
    const json_t *own = json_object_get(config, "quantization_config");
    return own ? own
               : json_object_get(json_object_get(config, "text_config"), "quantization_config");
}

const char *matching_pattern(const json_t *patterns, const char *module)
{
    size_t i;
    const json_t *pattern;
    json_array_foreach(patterns, i, pattern)
    {
        const char *text = json_string_value(pattern);
        if (text && glob_matches(text, module))
            return text;
    }
    return NULL;
}

static uint64_t of_layer(enum format format)
{
    return format == FORMAT_NVFP4   ? FACT(EXPERTS_NVFP4)
           : format == FORMAT_PLAIN ? FACT(EXPERTS_PLAIN)
                                    : 0;
}

static uint64_t of_draft(enum format format)
{
    return format == FORMAT_NVFP4   ? FACT(DRAFTS_NVFP4)
           : format == FORMAT_MXFP4 ? FACT(DRAFTS_MXFP4)
                                    : FACT(DRAFTS_OTHER);
}

/* The format of the matrix that a tensor says something of: a second-level scale says NVFP4,
 * whatever the weight is. FORMAT_COUNT if it says nothing. */
static enum format told_format(const struct tensor *tensor)
{
    return tensor_has_suffix(tensor, ".weight_scale_2") ? FORMAT_NVFP4 : format_of(tensor);
}

/* A quantized matrix, by what engines do with it. */
static uint64_t of_use(enum use use, enum format format)
{
    return use == USE_ABSORBED                           ? FACT(ABSORBED)
           : use == USE_INDEXER                          ? FACT(INDEXER)
           : use == USE_LATENT && format == FORMAT_NVFP4 ? FACT(LATENT_NVFP4)
                                                         : 0;
}

static uint64_t of_tensor(const struct model *model, const struct tensor *tensor,
                          const json_t *ignore)
{
    char path[TENSOR_NAME_MAX + 1];
    struct place place = model_place(model, tensor->name);
    bool draft = place.section == SECTION_MTP, routed = place_is_routed(&place);
    enum format format = told_format(tensor);
    uint64_t found = draft ? FACT(DRAFTS) | (place.layer ? FACT(DRAFTS_MANY) : 0) : 0;
    if (tensor->dtype == DTYPE_F32 && tensor_has_suffix(tensor, ".scale"))
        found |= FACT(F32_SCALES);
    if (format == FORMAT_COUNT)
        return found;
    found |= format == FORMAT_MXFP4 ? FACT(MXFP4) : 0;
    if (!routed && format == FORMAT_NVFP4)
        found |= FACT(DENSE_NVFP4);
    if (!draft && format != FORMAT_PLAIN)
        found |= of_use(place.use, format);
    if (routed)
        found |= draft ? of_draft(format) : of_layer(format);
    if (routed && draft && format != FORMAT_NVFP4 &&
        !matching_pattern(ignore, model_experts_path(model, &place, path)))
        found |= FACT(DRAFTS_NOT_IGNORED);
    return found;
}

/* FP8 weights with one scale each, and others. */
static uint64_t of_fp8(const struct toc *toc)
{
    size_t weights = 0, per_tensor = 0;
    for (size_t i = 0; i < toc->count; i++) {
        const struct tensor *tensor = &toc->tensor[i];
        weights += !tensor->context && format_of(tensor) == FORMAT_FP8;
        per_tensor += !tensor->context && tensor->dtype == DTYPE_F32 &&
                      tensor->size == sizeof(float) && tensor_has_suffix(tensor, ".weight_scale");
    }
    return (per_tensor ? FACT(PER_TENSOR) : 0) | (weights > per_tensor ? FACT(FP8) : 0);
}

uint64_t formats_found(const struct model *model, const struct toc *toc, const json_t *config)
{
    const json_t *ignore = json_object_get(quantization_of(config), "ignore");
    uint64_t found = of_fp8(toc);
    for (size_t i = 0; i < toc->count; i++)
        if (!toc->tensor[i].context)
            found |= of_tensor(model, &toc->tensor[i], ignore);
    if (!(found & ANY_NVFP4)) /* these are of checkpoints with NVFP4 */
        found &= ~(FACT(F32_SCALES) | FACT(DRAFTS_OTHER) | FACT(DRAFTS_NOT_IGNORED));
    if (found & FACT(EXPERTS_NVFP4) && found & FACT(FP8) && !(found & FACT(DENSE_NVFP4)))
        found |= FACT(EXPERTS_ONLY);
    if (found & FACT(EXPERTS_NVFP4) && found & (FACT(FP8) | FACT(MXFP4)))
        found |= FACT(EXPERTS_BESIDE);
    if (!(found & ANY_NVFP4) && found & (FACT(FP8) | FACT(PER_TENSOR) | FACT(MXFP4)))
        found |= FACT(NO_NVFP4);
    return found;
}
