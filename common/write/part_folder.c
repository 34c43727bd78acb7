#include "write/part_folder.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/die.h"
#include "write/incoming.h"
#include "write/parts.h"
#include "write/shards.h"

/* Check that the stream brings what a complete part was written from. */
static void compare_part(const char *folder, struct ts_in *in)
{
    struct copier copier = {0};
    const struct toc *toc = ts_toc(in);
    struct shards *shards = shards_plan(ts_toc(in), in, &copier);
    char *notes = parts_notes(folder);
    shards_take_notes(shards, notes);
    for (const struct tensor *tensor; (tensor = ts_next(in));)
        if (!tensor->context)
            shards_check(shards, folder, in, (size_t)(tensor - toc->tensor));
    shards_free(shards);
    free(notes);
}

bool part_folder_enter(struct output_dir *output, struct ts_in *in, const struct stage *stage)
{
    const char *scope = json_string_value(json_object_get(ts_header(in), "scope"));
    char hex[DIGEST_TEXT];
    const char *identity = incoming_identity(in, stage, hex);
    if (output_dir_is_joined(output, identity))
        return false;
    /* of another run: --join would take it for this one's */
    if (output_dir_in_place(output) || output_dir_was_replaced(output))
        output_dir_was_done(output, identity, NULL);
    char *folder = parts_folder(output->partial, scope, identity);
    if (!folder)
        die("%s: is no part of a checkpoint (%s); st-read --part makes one", ts_name(in), scope);
    output_dir_free(output);
    output_dir_name(output, folder);
    free(folder);
    if (!access(output->path, F_OK) && !output_dir_in_place(output)) {
        compare_part(output->path, in);
        return false;
    }
    output_dir_check(output, false, NULL, ts_sources(in));
    return true;
}

void part_folder_plan(struct output_dir *output, struct ts_in *in, const char *identity)
{
    const char *scope = json_string_value(json_object_get(ts_header(in), "scope"));
    if (!output_dir_is_joined(output, identity) && !output_dir_was_replaced(output))
        parts_check(output->partial, scope, identity);
}

void part_folder_refuse(const struct output_dir *output)
{
    uint64_t of = parts_begun(output->partial);
    if (of)
        die("%s: holds parts of a run in %" PRIu64 " (--part), which the others and --join "
            "complete, as -j %" PRIu64 " does; or remove it (rm -r) to start again",
            output->partial, of, of);
}
