#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/utf8.h"
#include "report/html.h"
#include "report/sections.h"

/* ---- losses ---- */

static void put_run(const struct page *page, const char *name, const json_t *run)
{
    fprintf(page->out,
            "<tr><th scope=\"row\">%s</th><td class=\"number\">%.4f</td><td class=\"number\">%.4f"
            "</td><td class=\"number\">%" PRId64 "</td></tr>\n",
            name, json_number_value(json_object_get(run, "mean_nll")),
            json_number_value(json_object_get(run, "perplexity")),
            (int64_t)json_integer_value(json_object_get(run, "tokens")));
}

void section_losses(const struct page *page)
{
    const json_t *line = report_evaluation(page->report);
    const json_t *e = json_object_get(line, "evaluation"), *runs = json_object_get(e, "runs");
    const char *text = json_string_value(json_object_get(line, "text"));
    if (!e)
        return;
    section_begin(
        page, "losses", "How well it predicts",
        "Source and result read the same text, each with the arithmetic that it is served "
        "with. Perplexity is how many next tokens a model is, so to speak, in doubt "
        "between.");
    if (text) {
        fputs("<p>Text: <code>", page->out);
        html_text(page->out, text);
        fputs("</code></p>\n", page->out);
    }
    if (json_array_size(runs) == 2) {
        table_begin(page, "Losses", "|>mean loss, nats|>perplexity|>tokens", NULL);
        put_run(page, "source", json_array_get(runs, 0));
        put_run(page, "result", json_array_get(runs, 1));
        table_end(page, NULL);
    }
    fprintf(
        page->out,
        "<p>The result’s predictions are %.4f nats from the source’s (KL divergence). In %.2f %% "
        "of places both think the same token most likely.</p>\n",
        json_number_value(json_object_get(e, "kl_divergence")),
        100 * json_number_value(json_object_get(e, "top1_agreement")));
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

static void put_text(const struct page *page, const char *name, const char *text, size_t prompt,
                     size_t same)
{
    fprintf(page->out, "<div><h3>%s</h3><p class=\"text\"><b>", name);
    html_write(page->out, text, prompt);
    fputs("</b>", page->out);
    html_write(page->out, text + prompt, same - prompt);
    if (text[same]) {
        fputs("<mark>", page->out);
        html_text(page->out, text + same);
        fputs("</mark>", page->out);
    }
    fputs("</p></div>\n", page->out);
}

static const char *generated(const json_t *line, const char *by)
{
    return json_string_value(json_object_get(json_object_get(line, by), "text"));
}

static void put_pair(const struct page *page, const json_t *line)
{
    const char *prompt = json_string_value(json_object_get(line, "prompt"));
    const char *before = generated(line, "source"), *after = generated(line, "result");
    size_t same = common_length(before, after);
    size_t given = prompt ? common_length(prompt, before) : 0;
    if (given > same)
        given = same;
    fputs("<div class=\"pair\">\n", page->out);
    put_text(page, "Source", before, given, same);
    put_text(page, "Result", after, given, same);
    fputs("</div>\n", page->out);
}

void section_texts(const struct page *page)
{
    size_t i;
    json_t *line;
    bool any = false;
    json_array_foreach((json_t *)page->report->measured, i, line)
    {
        if (!generated(line, "source") || !generated(line, "result"))
            continue;
        if (!any)
            section_begin(page, "texts", "What it writes",
                          "Both continue the text in bold, each time with the most likely token. "
                          "What differs is marked: after one other token, all that follows may "
                          "differ.");
        any = true;
        put_pair(page, line);
    }
    if (any)
        section_end(page);
}
