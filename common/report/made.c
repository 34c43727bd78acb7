#include <math.h>

#include "base/progress.h"
#include "report/html.h"
#include "report/sections.h"
#include "tensor/weight.h"
#include "write/matrix_groups.h"

/* ---- formats ---- */

static void put_totals(const struct page *page, const char *side, const json_t *totals)
{
    const char *format, *separator = "";
    json_t *bytes;
    char text[BYTES_TEXT];
    html_print(page->out,
               "<tr><th scope=\"row\">%s</th><td class=\"number\">%.0f</td><td "
               "class=\"number\">%s</td><td>",
               side, member_number(totals, "tensors"),
               bytes_text(member_number(totals, "bytes"), text));
    json_object_foreach(json_object_get(totals, "formats"), format, bytes)
    {
        html_print(page->out, "%s%s %s", separator, format,
                   bytes_text((double)json_integer_value(bytes), text));
        separator = ", ";
    }
    fputs("</td></tr>\n", page->out);
}

void section_formats(const struct page *page)
{
    struct matrix_group group[MATRIX_GROUPS_MAX];
    size_t count = matrix_groups(page->toc, group);
    json_t *output = formats_totals(page->toc);
    section_begin(page, "formats", "What is in it", NULL);
    table_begin(page, "Tensors and bytes", "|>tensors|>bytes|by format", false);
    put_totals(page, "source", page->report->input);
    put_totals(page, "result", output);
    table_end(page, false);
    table_begin(page, "formats of all matrices", "where|matrices|format|>number", true);
    for (size_t i = 0; i < count; i++)
        html_print(page->out,
                   "<tr><td>%s</td><td><code>%s</code></td><td>%s</td><td "
                   "class=\"number\">%zu</td></tr>\n",
                   *group[i].path ? group[i].path : "(top)", group[i].list, group[i].format,
                   group[i].matrices);
    table_end(page, true);
    section_end(page);
    matrix_groups_free(group, count);
    json_decref(output);
}

/* ---- steps ---- */

static void put_step(const struct page *page, const char *name, double seconds, double bytes,
                     double longest)
{
    char time[TIME_TEXT], size[BYTES_TEXT] = "", rate[BYTES_TEXT] = "";
    if (bytes > 0)
        bytes_text(bytes, size);
    if (bytes > 0 && seconds > 0)
        bytes_text(bytes / seconds, rate);
    html_print(page->out,
               "<tr><th scope=\"row\">%s</th><td class=\"number\">%s</td><td class=\"bar\" "
               "style=\"--part:%.1f%%\"></td><td class=\"number\">%s</td><td "
               "class=\"number\">%s%s</td></tr>\n",
               name, time_text(seconds, time), longest > 0 ? 100 * seconds / longest : 0, size,
               rate, *rate ? "/s" : "");
}

/* The last one is that of the process that writes the page, but for what comes after it. */
void section_steps(const struct page *page)
{
    const struct report *report = page->report;
    double longest = report->seconds, all = report->seconds;
    size_t i;
    json_t *line;
    char time[TIME_TEXT];
    if (!report->measured)
        return;
    json_array_foreach((json_t *)report->measured, i, line)
    {
        longest = fmax(longest, member_number(line, "seconds"));
        all += member_number(line, "seconds");
    }
    section_begin(page, "steps", "How long it took", NULL);
    table_begin(page, "Time and bytes of each step", "step|>time||>bytes|>rate", false);
    json_array_foreach((json_t *)report->measured, i, line)
    {
        if (json_is_string(json_object_get(line, "step")))
            put_step(page, member_text(line, "step"), member_number(line, "seconds"),
                     member_number(line, "bytes"), longest);
    }
    put_step(page, report->step, report->seconds, (double)report->bytes, longest);
    html_print(page->out, "<tr><th scope=\"row\">all</th><td class=\"number\">%s</td></tr>\n",
               time_text(all, time));
    table_end(page, false);
    if (report->finished)
        html_print(page->out,
                   "<p>Shards that an earlier run finished, without their time: %zu.</p>\n",
                   (size_t)report->finished);
    section_end(page);
}

/* ---- origin ---- */

void section_origin(const struct page *page)
{
    const json_t *record = page->report->record;
    const char *recipe = member_text(json_object_get(ts_header(page->in), "quant"), "recipe");
    size_t i, j;
    json_t *stage, *option, *source;
    char text[BYTES_TEXT];
    section_begin(page, "origin", "What it was made of", NULL);
    if (*recipe)
        html_print(page->out, "<p>Recipe: <code>%s</code>.</p>\n", recipe);
    fputs("<p>The stages, with the options that count:</p>\n<pre tabindex=\"0\"><code>", page->out);
    json_array_foreach(json_object_get(record, "stages"), i, stage)
    {
        html_print(page->out, "%s%s", i ? " |\n    " : "", member_text(stage, "program"));
        json_array_foreach(json_object_get(stage, "options"), j, option)
            html_print(page->out, " %s", json_is_string(option) ? json_string_value(option) : "");
    }
    fputs("</code></pre>\n", page->out);
    table_begin(page, "files of the source", "file|>bytes|>size|checksum of samples", true);
    json_array_foreach(json_object_get(record, "sources"), i, source)
        html_print(page->out,
                   "<tr><td><code>%s</code></td><td class=\"number\">%.0f</td><td "
                   "class=\"number\">%s</td><td><code>%s</code></td></tr>\n",
                   member_text(source, "file"), member_number(source, "bytes"),
                   bytes_text(member_number(source, "bytes"), text), member_text(source, "sample"));
    table_end(page, true);
    section_end(page);
}
