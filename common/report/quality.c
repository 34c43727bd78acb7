#include <string.h>

#include "report/html.h"
#include "report/sections.h"

/* ---- losses ---- */

const json_t *report_evaluation(const struct report *report)
{
    size_t i;
    json_t *line;
    json_array_foreach((json_t *)report->measured, i, line)
    {
        if (json_is_object(json_object_get(line, "evaluation")))
            return line;
    }
    return NULL;
}

void section_losses(const struct page *page)
{
    static const char *const names[] = {"source", "result"};
    const json_t *line = report_evaluation(page->report), *e = json_object_get(line, "evaluation");
    if (!e)
        return;
    section_begin(
        page, "losses", "How well it predicts",
        "Source and result read the same text, each with the arithmetic that it is served "
        "with. Perplexity says how unsure a model is of the next token: as if it chose among "
        "this many.");
    if (*member_text(line, "text"))
        html_print(page->out, "<p>Text: <code>%s</code></p>\n", member_text(line, "text"));
    table_begin(page, "Losses", "|>mean loss, nats|>perplexity|>tokens", false);
    for (size_t i = 0; i < 2; i++) {
        const json_t *run = json_array_get(json_object_get(e, "runs"), i);
        html_print(page->out,
                   "<tr><th scope=\"row\">%s</th><td class=\"number\">%.4f</td><td "
                   "class=\"number\">%.4f</td><td class=\"number\">%.0f</td></tr>\n",
                   names[i], member_number(run, "mean_nll"), member_number(run, "perplexity"),
                   member_number(run, "tokens"));
    }
    table_end(page, false);
    html_print(page->out,
               "<p>The result’s predictions are %.4f nats from the source’s (KL divergence). In "
               "%.2f %% of places both think the same token most likely.</p>\n",
               member_number(e, "kl_divergence"), 100 * member_number(e, "top1_agreement"));
    section_end(page);
}

/* ---- texts ---- */

/* How many bytes two texts begin with in common, whole characters. */
static size_t common_length(const char *a, const char *b)
{
    size_t length = 0;
    while (a[length] && a[length] == b[length])
        length++;
    while (length && ((unsigned char)a[length] & 0xc0) == 0x80)
        length--;
    return length;
}

/* A text of which so much was given, and so much is as in the other one. */
static void put_text(const struct page *page, const char *name, const char *text, size_t given,
                     size_t same)
{
    html_print(page->out, "<div><h3>%s</h3><p class=\"text\"><b>", name);
    html_text(page->out, text, given);
    fputs("</b>", page->out);
    html_text(page->out, text + given, same - given);
    html_print(page->out, text[same] ? "<mark>%s</mark></p></div>\n" : "%s</p></div>\n",
               text + same);
}

void section_texts(const struct page *page)
{
    size_t i;
    json_t *line;
    bool any = false;
    json_array_foreach((json_t *)page->report->measured, i, line)
    {
        const char *before = member_text(json_object_get(line, "source"), "text");
        const char *after = member_text(json_object_get(line, "result"), "text");
        if (!*before || !*after)
            continue;
        if (!any)
            section_begin(page, "texts", "What it writes",
                          "Both continue the text in bold, each time with the most likely token. "
                          "What differs is marked: after one other token, all that follows may "
                          "differ.");
        any = true;
        size_t same = common_length(before, after);
        size_t given = common_length(member_text(line, "prompt"), before);
        given = given < same ? given : same;
        fputs("<div class=\"pair\">\n", page->out);
        put_text(page, "Source", before, given, same);
        put_text(page, "Result", after, given, same);
        fputs("</div>\n", page->out);
    }
    if (any)
        section_end(page);
}
