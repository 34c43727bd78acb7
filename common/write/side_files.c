#include "write/side_files.h"

#include <string.h>

#include "base/text.h"
#include "stream/side_name.h"
#include "write/run_record.h"

/* DeepSeek's model.py and kernels, with a config of their own. */
static const char source_code[] = "inference/";

/* They read FP8, and experts in FP8 or MXFP4. */
static bool leaves_code_out(const struct configs *configs)
{
    const uint64_t found = configs->evidence.found;
    const uint64_t unread = FACT(EXPERTS_NVFP4) | FACT(DENSE_NVFP4) | FACT(EXPERTS_PLAIN);
    return configs->converted && (found & unread || !(found & FACT(FP8)));
}

const char *side_file_name(struct ts_in *in, const char *name, const struct configs *configs)
{
    if (side_file_excluded(name) || !strcmp(name, RUN_RECORD) ||
        (!strcmp(name, "config.json") && configs->config) ||
        (!strcmp(name, REPORT_FILE) && configs->converted) ||
        (!strcmp(name, "hf_quant_config.json") && !configs->keep_hf_quant) ||
        (leaves_code_out(configs) && starts_with(name, source_code)))
        return NULL;
    if (!configs->converted || strcmp(name, "README.md") != 0)
        return name;
    /* A checkpoint that was converted before has the card of its source. */
    return ts_file_find(in, SOURCE_CARD) < 0 ? SOURCE_CARD : NULL;
}

const char *side_files_left_out(const struct ts_in *in, const struct configs *configs)
{
    uint64_t size;
    for (size_t i = 0; i < ts_files(in) && leaves_code_out(configs); i++)
        if (starts_with(ts_file(in, i, &size), source_code))
            return source_code;
    return NULL;
}
