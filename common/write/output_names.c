#include "write/output_names.h"

#include <stdlib.h>
#include <utf8proc.h>

#include "base/die.h"
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
    utf8proc_uint8_t *folded;
    utf8proc_ssize_t length =
        utf8proc_map((const utf8proc_uint8_t *)name, 0, &folded,
                     UTF8PROC_NULLTERM | UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD);
    /* what is not UTF-8 has neither case nor normal forms */
    size_t i = names_add(list->folded, length < 0 ? name : (const char *)folded);
    if (length >= 0)
        free(folded);
    if (i < list->count)
        die("%s and %s: are one file where case or Unicode normalization does not count; rename or "
            "remove one of them in the source",
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
    if (configs->converted)
        add(&list, "README.md");
    names_free(list.folded);
    free(list.name);
}
