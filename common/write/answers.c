#include "write/answers.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/die.h"
#include "write/output_dir.h"
#include "write/parts.h"
#include "write/shards.h"

void answer_state(const char *path)
{
    static const char *const names[] = {[OUTPUT_DIR_ABSENT] = "absent",
                                        [OUTPUT_DIR_PARTIAL] = "partial",
                                        [OUTPUT_DIR_COMPLETE] = "complete",
                                        [OUTPUT_DIR_OTHER] = "other"};
    struct output_dir output;
    output_dir_name(&output, path);
    puts(names[output_dir_state(&output)]);
    output_dir_free(&output);
}

void answer_todo(const char *path)
{
    struct output_dir output;
    output_dir_name(&output, path);
    if (!output_dir_in_place(&output)) {
        if (!output_dir_resume(&output, NULL, NULL))
            die("%s: is not there: no run is to be continued; begin one without --todo",
                output.partial);
        struct shards *shards = shards_list(output.journal.toc);
        shards_resume(shards, &output);
        bool replaced =
            journal_find(&output.journal, "replaced"); /* by a checkpoint already in place */
        struct shard_file file;
        for (size_t i = 0; i < shards_count(shards) && !replaced; i++)
            if (shards_file(shards, i, &file) && !file.finished)
                puts(file.name);
        shards_free(shards);
    }
    output_dir_free(&output);
}

/* A complete part has nothing left to do. */
void answer_todo_part(const char *path, const struct arg_pair *part)
{
    struct output_dir output;
    bool complete;
    output_dir_name(&output, path);
    char *folder = parts_present(output.partial, part->a, part->b, &complete);
    if (!folder)
        die("%s: no run of part %s is to be continued; begin one without --todo-part",
            output.partial, part->text);
    if (!complete)
        answer_todo(folder);
    free(folder);
    output_dir_free(&output);
}
