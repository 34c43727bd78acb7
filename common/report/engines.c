#include "engines/engines.h"

#include <stdlib.h>

#include "report/html.h"
#include "report/sections.h"

static void put_verdict(const struct page *page, const struct engine *engine, bool drafts)
{
    static const struct {
        const char *class, *sign;
    } as[] = {[VERDICT_LOADS] = {"good", "✓"},
              [VERDICT_REFUSES] = {"bad", "✗"},
              [VERDICT_WRONG] = {"bad", "‼"},
              [VERDICT_UNKNOWN] = {"unknown", "?"}};
    const struct rule *rule;
    enum verdict verdict = engine_judge(engine, &page->configs->evidence, drafts, &rule);
    html_print(page->out,
               "<td data-label=\"%s speculation\"><span class=\"verdict %s\"><span "
               "aria-hidden=\"true\">%s</span> %s</span>",
               drafts ? "with" : "without", as[verdict].class, as[verdict].sign,
               verdict_name(verdict));
    if (rule) {
        char *why = rule_text(rule, &page->configs->evidence);
        html_print(page->out, "<small>%s</small>", why);
        free(why);
    }
    fputs("</td>", page->out);
}

static void put_commands(const struct page *page)
{
    bool any = false;
    for (const struct engine *engine = engines; engine->name; engine++)
        for (int drafts = 0; drafts < 2; drafts++) {
            char *command = engine_command(engine, &page->configs->evidence, drafts);
            if (!command)
                continue;
            fputs(any ? "" : "<h3>Serve it</h3>\n<p>In this folder:</p>\n", page->out);
            html_print(page->out,
                       "<p class=\"command\">%s%s</p>\n<pre tabindex=\"0\"><code>%s</code></pre>\n",
                       engine->title, drafts ? ", with speculation" : "", command);
            any = true;
            free(command);
        }
}

void section_engines(const struct page *page)
{
    if (!engines_know(&page->configs->evidence))
        return;
    section_begin(page, "engines", "What serving engines make of it",
                  "By the rules of st-verify(1). To speculate is to guess tokens ahead with the "
                  "checkpoint’s drafts.");
    fputs("<div class=\"stack\">\n", page->out);
    table_begin(page, "Engines", "engine|without speculation|with speculation", false);
    for (const struct engine *engine = engines; engine->name; engine++) {
        html_print(page->out, "<tr><th scope=\"row\">%s<small>%s</small></th>", engine->title,
                   engine->version);
        put_verdict(page, engine, false);
        put_verdict(page, engine, true);
        fputs("</tr>\n", page->out);
    }
    table_end(page, false);
    fputs("</div>\n", page->out);
    put_commands(page);
    section_end(page);
}
