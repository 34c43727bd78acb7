#include "write/output_names.h"

#include <stdlib.h>

#include "base/die.h"
#include "base/folded_name.h"
#include "base/names.h"
#include "stream/checkpoint.h"
#include "write/run_record.h"
#include "write/side_files.h"

struct list {
    struct names *folded;
    const char **name; /* as given, by number in `folded` */
    size_t count;
};

static void add(struct list *list, const char *name)
{
    char *folded = folded_name(name);
    size_t i = names_add(list->folded, folded);
    free(folded);
    if (i < list->count)
        die("%s and %s: are one file where case or Unicode normalization does not count, nor dots "
            "at the end; rename or remove one of them in the source",
            list->name[i], name);
    list->name = xgrow(list->name, list->count + 1, sizeof *list->name);
    list->name[list->count++] = name;
}

void output_names_check(const struct shards *shards, struct ts_in *in,
                        const struct configs *configs)
{
    struct list list = {.folded = names_new()};
    struct shard_file file;
    uint64_t size;
    for (size_t i = 0; i < shards_count(shards); i++)
        if (shards_file(shards, i, &file))
            add(&list, file.name);
    for (size_t i = 0; i < ts_files(in); i++) {
        const char *name = side_file_name(in, ts_file(in, i, &size), configs);
        if (name)
            add(&list, name);
    }
    add(&list, CHECKPOINT_INDEX);
    add(&list, RUN_RECORD);
    if (configs->config)
        add(&list, "config.json");
    if (configs->hf_quant)
        add(&list, "hf_quant_config.json");
    if (configs->converted) {
        add(&list, "README.md");
        add(&list, REPORT_FILE);
    }
    names_free(list.folded);
    free(list.name);
}
