#include <stdlib.h>

#include "base/die.h"
#include "base/progress.h"
#include "engines/engines.h"
#include "report/html.h"
#include "report/sections.h"
#include "tensor/weight.h"

/* A figure, what it is, and more about it; frees the last two. */
static void put_tile(const struct page *page, const char *what, char *value, char *more)
{
    html_print(page->out, "<li><span>%s</span><strong>%s</strong><small>%s</small></li>\n", what,
               value, more);
    free(value);
    free(more);
}

static void put_evaluation(const struct page *page)
{
    const json_t *e = json_object_get(report_evaluation(page->report), "evaluation");
    const json_t *runs = json_object_get(e, "runs");
    double before = member_number(json_array_get(runs, 0), "perplexity");
    double after = member_number(json_array_get(runs, 1), "perplexity");
    if (!e)
        return;
    if (before > 0)
        put_tile(page, "Perplexity", xprintf("%.2f", after),
                 xprintf("from %.2f (%+.1f %%)", before, 100 * (after / before - 1)));
    put_tile(page, "KL divergence", xprintf("%.4f", member_number(e, "kl_divergence")),
             xstrdup("nats per token"));
    put_tile(page, "Same best token", xprintf("%.1f %%", 100 * member_number(e, "top1_agreement")),
             xstrdup("as the source"));
}

static void put_blocks(const struct page *page)
{
    size_t i;
    json_t *stage;
    json_array_foreach((json_t *)page->report->counts, i, stage)
    {
        double blocks = member_number(stage, "blocks"),
               kept = blocks - member_number(stage, "lossy");
        if (blocks > 0) /* 100 % are all of them */
            put_tile(page, "Lossless weights",
                     kept < blocks && kept / blocks > 0.999999
                         ? xstrdup("over 99.9999 %")
                         : xprintf(kept < blocks ? "%.4f %%" : "%.0f %%", 100 * kept / blocks),
                     xprintf("%.0f of %.0f blocks keep their values", kept, blocks));
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
}

static void put_size(const struct page *page)
{
    char before[BYTES_TEXT], after[BYTES_TEXT];
    json_t *totals = formats_totals(page->toc);
    double out = member_number(totals, "bytes"), in = member_number(page->report->input, "bytes");
    put_tile(page, "Size", xprintf("%s", bytes_text(out, after)),
             in > 0 ? xprintf("from %s (%+.1f %%)", bytes_text(in, before), 100 * (out / in - 1))
                    : xstrdup(""));
    json_decref(totals);
}

void section_glance(const struct page *page)
{
    const struct maps *maps = page->report->maps;
    section_begin(page, "glance", "At a glance", NULL);
    fputs("<ul class=\"tiles\">\n", page->out);
    put_evaluation(page);
    put_blocks(page);
    if (maps && maps->expert_count)
        put_tile(page, "Experts never reached", xprintf("%zu", maps->cold_count),
                 xprintf("of %zu", maps->expert_count));
    put_engines(page);
    put_size(page);
    fputs("</ul>\n", page->out);
    section_end(page);
}
