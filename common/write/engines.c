#include "write/engines.h"

#include <string.h>

#include "tensor/weight.h"

/* The formats in a table, as far as engines differ over them. */
struct found {
    bool experts[FORMAT_COUNT + 1]; /* of the layers' routed experts */
    bool drafts[FORMAT_COUNT + 1];  /* of the drafts' */
    bool dense;                     /* NVFP4 outside of routed experts */
    bool f32_scales;                /* X.scale in F32, as Base releases have */
};

static struct found look(const struct model *model, const struct toc *toc)
{
    struct found found = {0};
    for (size_t i = 0; i < toc->count; i++) {
        const struct tensor *tensor = &toc->tensor[i];
        struct place place = model_place(model, tensor->name);
        found.f32_scales |= tensor->dtype == DTYPE_F32 && tensor_has_suffix(tensor, ".scale");
        found.dense |= !place_is_routed(&place) && format_of(tensor) == FORMAT_NVFP4;
        if (place_is_routed(&place) && place.section == SECTION_MTP)
            found.drafts[format_of(tensor)] = true;
        else if (place_is_routed(&place))
            found.experts[format_of(tensor)] = true;
    }
    return found;
}

/* NULL if there are no drafts. vLLM reads config.json's `ignore`, which names drafts that stayed,
 * for V4.1 only (see verify/engines.c). */
static const char *about_drafts(const struct model *model, const bool *format)
{
    if (format[FORMAT_NVFP4])
        return "the drafts are NVFP4: vLLM speculates with them; SGLang needs MXFP4 ones (--drafts "
               "keep)";
    if (format[FORMAT_MXFP4] && !strcmp(model_type(model), "deepseek_v41"))
        return "the drafts are MXFP4: SGLang speculates with them, and so does vLLM (0.33), "
               "according to its code for V4.1";
    if (format[FORMAT_MXFP4])
        return "the drafts are MXFP4: SGLang speculates with them; vLLM (0.33) loads them wrong "
               "without a word and needs NVFP4 ones (--drafts cast)";
    if (format[FORMAT_FP8] || format[FORMAT_PLAIN])
        return "the drafts are neither NVFP4 nor MXFP4: no engine is known to speculate with them "
               "(--drafts cast makes them NVFP4)";
    return NULL;
}

json_t *engines_notes(const struct model *model, const struct toc *toc)
{
    struct found found = look(model, toc);
    json_t *notes = json_array();
    const char *drafts = about_drafts(model, found.drafts);
    if (!strcmp(model_type(model), "deepseek_v3")) /* engines load Model Optimizer's as they are */
        return notes;
    if (found.dense) {
        json_array_append_new(notes, json_string("NVFP4 is not only in routed experts: no engine "
                                                 "is known to serve that (vLLM 0.33 and SGLang "
                                                 "0.5 refuse it)"));
        return notes;
    }
    if (!found.experts[FORMAT_NVFP4])
        return notes;
    if (drafts)
        json_array_append_new(notes, json_string(drafts));
    if (found.f32_scales)
        json_array_append_new(notes, json_string("FP8 weights with F32 scales (X.scale) stand "
                                                 "beside NVFP4 experts: no engine is known to "
                                                 "serve that"));
    return notes;
}
