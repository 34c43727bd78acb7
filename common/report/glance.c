#include <inttypes.h>
#include <stdlib.h>

#include "base/die.h"
#include "base/progress.h"
#include "engines/engines.h"
#include "report/html.h"
#include "report/sections.h"
#include "tensor/weight.h"

/* A figure and what it is; ends `value`. */
static void put_tile(const struct page *page, const char *what, char *value, const char *detail)
{
    fprintf(page->out, "<li><span>%s</span><strong>", what);
    html_text(page->out, value);
    fputs("</strong>", page->out);
    if (detail) {
        fputs("<small>", page->out);
        html_text(page->out, detail);
        fputs("</small>", page->out);
    }
    fputs("</li>\n", page->out);
    free(value);
}

static void put_size(const struct page *page)
{
    char before[BYTES_TEXT], after[BYTES_TEXT];
    json_t *totals = formats_totals(page->toc);
    double out = (double)json_integer_value(json_object_get(totals, "bytes"));
    double in = (double)json_integer_value(json_object_get(page->report->input, "bytes"));
    char *from =
        in > 0 ? xprintf("from %s (%+.1f %%)", bytes_text(in, before), 100 * (out / in - 1)) : NULL;
    put_tile(page, "Size", xprintf("%s", bytes_text(out, after)), from);
    free(from);
    json_decref(totals);
}

static void put_evaluation(const struct page *page)
{
    const json_t *e = json_object_get(report_evaluation(page->report), "evaluation");
    const json_t *runs = json_object_get(e, "runs");
    double before = json_number_value(json_object_get(json_array_get(runs, 0), "perplexity"));
    double after = json_number_value(json_object_get(json_array_get(runs, 1), "perplexity"));
    if (!e)
        return;
    if (before > 0) {
        char *from = xprintf("from %.2f (%+.1f %%)", before, 100 * (after / before - 1));
        put_tile(page, "Perplexity", xprintf("%.2f", after), from);
        free(from);
    }
    put_tile(page, "KL divergence",
             xprintf("%.4f", json_number_value(json_object_get(e, "kl_divergence"))),
             "nats a token");
    put_tile(page, "Same best token",
             xprintf("%.1f %%", 100 * json_number_value(json_object_get(e, "top1_agreement"))),
             "as the source");
}

static void put_experts(const struct page *page)
{
    const struct maps *maps = page->report->maps;
    if (!maps || !maps->expert_count)
        return;
    char *of = xprintf("of %zu", maps->expert_count);
    put_tile(page, "Experts never reached", xprintf("%zu", maps->cold_count), of);
    free(of);
}

static void put_blocks(const struct page *page)
{
    size_t i;
    json_t *stage;
    json_array_foreach((json_t *)page->report->counts, i, stage)
    {
        json_int_t blocks, lossy;
        if (json_unpack(stage, "{s:I, s:I}", "blocks", &blocks, "lossy", &lossy) || blocks <= 0)
            continue;
        char *of = xprintf("%" PRId64 " of %" PRId64 " blocks keep their values",
                           (int64_t)(blocks - lossy), (int64_t)blocks);
        /* 100 % only if it is all of them */
        double part = 100.0 * (double)(blocks - lossy) / (double)blocks;
        put_tile(page, "Weights without loss",
                 lossy && part > 99.9999 ? xstrdup("99.9999 %")
                                         : xprintf(lossy ? "%.4f %%" : "%.0f %%", part),
                 of);
        free(of);
    }
}

static void put_engines(const struct page *page)
{
    const struct evidence *evidence = &page->configs->evidence;
    const struct rule *rule;
    unsigned loads = 0, all = 0;
    if (!engines_know(evidence))
        return;
    char *names = xstrdup("");
    for (const struct engine *engine = engines; engine->name; engine++, all++) {
        if (engine_judge(engine, evidence, false, &rule) != VERDICT_LOADS)
            continue;
        char *longer = xprintf("%s%s%s", names, loads++ ? ", " : "", engine->title);
        free(names);
        names = longer;
    }
    put_tile(page, "Engines that load it", xprintf("%u of %u", loads, all), names);
    free(names);
}

void section_glance(const struct page *page)
{
    section_begin(page, "glance", "At a glance", NULL);
    fputs("<ul class=\"tiles\">\n", page->out);
    put_evaluation(page);
    put_blocks(page);
    put_experts(page);
    put_engines(page);
    put_size(page);
    fputs("</ul>\n", page->out);
    section_end(page);
}
