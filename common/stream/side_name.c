#include "stream/side_name.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/folded_name.h"
#include "base/text.h"
#include "base/utf8.h"
#include "stream/checkpoint.h"
#include "tensor/toc.h"

/* libarchive composes the names that it reads from pax headers, so another name would come out of a
 * stream than went in. */
static bool is_composed(const char *name)
{
    utf8proc_uint8_t *composed = utf8proc_NFC((const utf8proc_uint8_t *)name);
    bool is = composed && !strcmp((const char *)composed, name);
    free(composed);
    return is;
}

bool side_file_name_valid(const char *name)
{
    unsigned depth = 0;
    if (strlen(name) > TENSOR_NAME_MAX)
        return false;
    for (const char *component = name;; depth++) {
        size_t length = strcspn(component, "/");
        if (length == 0 || (length <= 2 && !strncmp(component, "..", length)))
            return false;
        if (!component[length])
            break;
        component += length + 1;
    }
    /* tar has names in UTF-8, or none */
    return depth <= SIDE_FILE_DEPTH_MAX && text_is_line(name) &&
           utf8_valid(name, strlen(name)) == strlen(name) && is_composed(name);
}

static bool component_excluded(const char *component)
{
    static const char *const pattern[] = {
        /* a checkpoint's own, and what st-write would take for its own */
        "*.safetensors", CHECKPOINT_INDEX, ".*",
        /* with objects/, refs/ and config beside it, a repository to git */
        "HEAD",
        /* of downloads and editors */
        "*.incomplete", "*.aria2", "*.lock", "*.part", "*.partial", "*.crdownload", "*.download",
        "*.tmp", "*.temp", "*~", "lost+found", "__pycache__",
        /* other formats of the weights */
        "*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.pth", "pytorch_model*.bin",
        "pytorch_model*.bin.index.json",
        /* of training */
        "optimizer*.pt", "optimizer*.bin", "scheduler.pt", "scaler.pt", "rng_state*",
        "trainer_state.json", "training_args.bin", "*_states.pt", "global_step*"};
    for (size_t i = 0; i < sizeof pattern / sizeof *pattern; i++)
        if (!fnmatch(pattern[i], component, FNM_CASEFOLD))
            return true;
    return false;
}

bool side_file_excluded(const char *name)
{
    char *folded = folded_name(name), *end;
    bool excluded = false;
    for (char *component = folded; component && !excluded; component = end) {
        end = strchr(component, '/');
        if (end)
            *end++ = 0;
        excluded = component_excluded(component);
    }
    free(folded);
    return excluded;
}
