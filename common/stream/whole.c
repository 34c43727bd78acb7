#include "stream/whole.h"

#include "base/die.h"
#include "model/complete.h"
#include "model/shapes.h"
#include "stream/shard_name.h"

void whole_check_table(struct ts_in *in, struct toc *toc)
{
    if (!json_object_get(ts_header(in), "source"))
        return;
    for (size_t i = 0; i < toc->shards; i++)
        if (shard_is_rank(toc->shard[i]))
            return;
    char *wrong = model_incomplete(ts_model(in), toc);
    if (wrong)
        die("%s: %s; is the download complete? (st-read --layers and --part take a part)",
            ts_name(in), wrong);
    wrong = model_misshapen(ts_model(in), toc);
    if (wrong)
        die("%s: %s, and engines size by it; get the config.json of this checkpoint", ts_name(in),
            wrong);
}

void whole_check(struct ts_in *in)
{
    if (ts_is_whole(in))
        whole_check_table(in, ts_toc(in));
}
