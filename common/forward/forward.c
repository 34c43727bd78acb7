#include "forward/forward.h"

#include <string.h>

#include "base/die.h"

/* A family's forward pass, and config.json's names of what has to be known before it begins. */
struct family {
    const char *type; /* config.json's model_type */
    const char *vocabulary, *layers;
    void (*forward)(const struct forward *run);
};

static const struct family families[] = {
    {"deepseek_v4", "vocab_size", "num_hidden_layers", deepseek_v4_forward},
};

static const struct family *family_of(struct ts_in *in)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i].type, model_type(ts_model(in))))
            return &families[i];
    const char *type = json_string_value(json_object_get(ts_header(in), "model_type"));
    die("%s: wanted a model of type deepseek_v4, got %s; no other has a forward pass here",
        ts_name(in), type ? type : "one without model_type in its config.json");
}

static uint64_t size_in_config(struct ts_in *in, const char *key)
{
    json_t *config = ts_file_json(in, "config.json");
    if (!config)
        die("%s: no config.json in it; its dimensions are needed", ts_name(in));
    json_int_t size = json_integer_value(json_object_get(config, key));
    json_decref(config);
    if (size < 1)
        die("%s: config.json: %s: wanted a number above 0", ts_name(in), key);
    return (uint64_t)size;
}

uint64_t forward_layers(struct ts_in *in)
{
    return size_in_config(in, family_of(in)->layers);
}

uint64_t forward_vocabulary(struct ts_in *in)
{
    return size_in_config(in, family_of(in)->vocabulary);
}

void forward_run(const struct forward *run)
{
    family_of(run->in)->forward(run);
}
