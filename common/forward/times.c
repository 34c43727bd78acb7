#include "forward/times.h"

#include <stdio.h>

#include "base/die.h"
#include "base/progress.h"

struct times times_so_far(double begin, struct prefetch *prefetch, double embedding,
                          struct device *d, struct gather *gather)
{
    struct prefetch_time weights = prefetch_time(prefetch);
    struct times t = {.read = weights.reading + embedding};
    d->spent(d, &t.upload, &t.wait);
    t.wait += weights.waiting + embedding;
    t.all = now() - begin;
    t.exchange = gather ? gather->spent(gather) : 0;
    t.products = d->multiplied ? d->multiplied(d) : 0;
    return t;
}

struct times times_tell(const char *what, struct times now, struct times from)
{
    struct times t = {.all = now.all - from.all,
                      .read = now.read - from.read,
                      .upload = now.upload - from.upload,
                      .wait = now.wait - from.wait,
                      .exchange = now.exchange - from.exchange};
    char exchange[sizeof ", exchange " + 32] = "";
    if (now.exchange > 0)
        snprintf(exchange, sizeof exchange, ", exchange %.3f", t.exchange);
    warn("%s %.3f s: read %.3f, upload %.3f%s, compute %.3f, wait %.3f", what, t.all, t.read,
         t.upload, exchange, t.all - t.wait, t.wait);
    return t;
}

void times_tell_bound(struct times all)
{
    struct times t = times_tell("all:", all, (struct times){0});
    warn("the bottleneck was %s", t.wait < t.all / 2  ? "computing"
                                  : t.read < t.upload ? "the upload to the device"
                                                      : "reading the weights");
    if (all.products > 0)
        warn("matrix products took %.1f%% of the time", 100 * all.products / all.all);
}
