#include "write/incoming.h"

#include <string.h>

#include "base/die.h"
#include "stream/whole.h"
#include "write/run_record.h"

_Noreturn static void die_of_plan(const struct ts_in *in)
{
    die("%s: is a plan, without tensors; run its stages without -n", ts_name(in));
}

void incoming_refuse_plan(const struct ts_in *in)
{
    if (ts_plan_only(in))
        die_of_plan(in);
}

const char *incoming_identity(struct ts_in *in, const struct stage *stage, char *hex)
{
    const char *identity = run_identity(in, hex);
    if (!identity && !stage->plan)
        die_of_plan(in);
    return identity;
}

void incoming_check(struct ts_in *in, bool part, bool partial, bool continued)
{
    const char *scope = json_string_value(json_object_get(ts_header(in), "scope"));
    bool data = continued || part;
    for (size_t i = 0; i < ts_toc(in)->count; i++)
        data |= !ts_toc(in)->tensor[i].context;
    if (part && !continued && strchr(scope, ','))
        die("%s: brings some shards only (%s), but no run of that part is to be continued; read "
            "the part without --shards",
            ts_name(in), scope);
    if (!data)
        die("%s: holds no tensor to write; is it the right stream?", ts_name(in));
    if (!ts_is_whole(in) && !partial && !part && !continued)
        die("%s: is only a part of a checkpoint (%s); --part writes it as one of several, "
            "--partial all the same; a whole one is read from its folder",
            ts_name(in), scope);
    if (!partial && !part && !continued)
        whole_check(in);
}
