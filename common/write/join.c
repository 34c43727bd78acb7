#include "write/join.h"

#include "base/die.h"
#include "stream/whole.h"
#include "write/last_look.h"
#include "write/output_names.h"

void join_begin(struct join *join, const struct output_dir *output)
{
    *join = (struct join){0};
    struct parts *parts = &join->parts;
    parts_gather(parts, output->partial);
    join->shards = shards_plan(parts->toc, parts->in, &join->copier);
    configs_derive(&join->configs, parts->in, parts->toc);
    output_names_check(join->shards, parts->in, &join->configs);
    shards_take_notes(join->shards, parts->notes);
}

void join_check(struct join *join, struct output_dir *output, bool read, json_t **counts)
{
    const struct parts *parts = &join->parts;
    last_look_at_parts(join->shards, output->partial, parts->in, read, counts);
    whole_check_table(parts->in, parts->toc);
    if (output->journal.fd < 0)
        output_dir_begin(output, parts->identity, parts->toc);
    else if (!journal_is_of(&output->journal, parts->identity, parts->toc))
        die("%s: its parts are not of the run that its journal is of; remove it (rm -r) to start "
            "again",
            output->partial);
}

void join_end(struct join *join, struct output_dir *output)
{
    configs_free(&join->configs);
    shards_free(join->shards);
    parts_free(&join->parts);
    output_dir_refuse_foreign(output, parts_own);
    journal_note(&output->journal, "joined\n");
}
