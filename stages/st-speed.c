/* st-speed: how fast a stream arrives and can be written. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "base/die.h"
#include "base/progress.h"
#include "stream/report.h"
#include "stream/ts.h"
#include "write/incoming.h"
#include "write/measure.h"

static const struct program program = {
    .about = "Measure for some seconds how fast a tensor stream can be written in a folder, as "
             "st-write would write it: to a file without a name, of which nothing is left. The "
             "dry runs of v4-experts and the like say by it how long a run will take.",
    .operands = {"folder [stream]"},
    .examples = {"st-read --layers 2-3 DeepSeek-V4 | nvfp4-cast --amax amax.ts | st-speed ."},
    .max_operands = 2,
};

/* How much of the free space it may take for the moment. */
enum { FREE_PART = 4 };

struct options {
    uint64_t seconds;
    bool json;
};

static uint64_t most_bytes(const char *folder)
{
    struct statvfs status;
    if (statvfs(folder, &status))
        die_errno("%s", folder);
    return (uint64_t)status.f_bavail * status.f_frsize / FREE_PART;
}

static void print_measured(const struct measured *m, bool json)
{
    char bytes[BYTES_TEXT], rate[BYTES_TEXT], time[TIME_TEXT];
    double seconds = m->seconds > 0 ? m->seconds : 1e-9;
    if (json)
        report_record(REPORT_JSON, json_pack("{s:I, s:f, s:f}", "bytes", (json_int_t)m->bytes,
                                             "seconds", m->seconds, "waiting", m->waiting));
    else
        printf("%s/s: %s in %s, %.0f%% of which it waited for the stream\n",
               bytes_text((double)m->bytes / seconds, rate), bytes_text((double)m->bytes, bytes),
               time_text(m->seconds, time), 100 * m->waiting / seconds);
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg own[] = {
        {.name = "json", .to = &o->json, .help = "print bytes, seconds and waiting as JSON"},
        {.name = "seconds",
         .kind = ARG_NUMBER,
         .to = &o->seconds,
         .value = "N",
         .help = "measure for about so long (default: 3)"},
        {.name = "plan", .in = NO_FORM},
        {.name = "progress", .in = NO_FORM},
        {.name = "quiet", .in = NO_FORM},
        {.name = "verbose", .in = NO_FORM},
        {0},
    };
    stage_begin(stage, &program, own, argc, argv);
}

int main(int argc, char **argv)
{
    struct options o = {.seconds = 3};
    struct stage stage;
    take_options(&o, &stage, argc, argv);
    if (!stage.operands)
        die_usage("in which folder?");
    struct ts_in *in = ts_open(stage.operands > 1 ? stage.operand[1] : NULL, &stage);
    report_begin(&stage);
    const struct measured measured =
        measure_writing(in, stage.operand[0], (double)o.seconds, most_bytes(stage.operand[0]));
    incoming_refuse_plan(in); /* as its end has said */
    print_measured(&measured, o.json);
    return report_end(&stage);
}
