#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/die.h"
#include "base/progress.h"
#include "report/html.h"
#include "report/sections.h"
#include "tensor/weight.h"
#include "write/matrix_groups.h"

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* ---- formats ---- */

static void put_totals(const struct page *page, const char *side, const json_t *totals)
{
    const char *format, *separator = "";
    json_t *bytes;
    char text[BYTES_TEXT];
    if (!totals)
        return;
    fprintf(page->out,
            "<tr><th scope=\"row\">%s</th><td class=\"number\">%" PRId64
            "</td><td class=\"number\">%s</td><td>",
            side, (int64_t)json_integer_value(json_object_get(totals, "tensors")),
            bytes_text((double)json_integer_value(json_object_get(totals, "bytes")), text));
    json_object_foreach(json_object_get(totals, "formats"), format, bytes)
    {
        html_print(page->out, "%s%s %s", separator, format,
                   bytes_text((double)json_integer_value(bytes), text));
        separator = ", ";
    }
    fputs("</td></tr>\n", page->out);
}

static void put_groups(const struct page *page)
{
    struct matrix_group group[MATRIX_GROUPS_MAX];
    size_t count = matrix_groups(page->toc, group);
    table_begin(page, "Matrices", "where|matrices|format|>number", "Formats of all matrices");
    for (size_t i = 0; i < count; i++) {
        fputs("<tr><td>", page->out);
        html_print(page->out, *group[i].path ? "%s" : "(top)", group[i].path);
        fputs("</td><td><code>", page->out);
        html_text(page->out, group[i].list);
        fprintf(page->out, "</code></td><td>%s</td><td class=\"number\">%zu</td></tr>\n",
                group[i].format, group[i].matrices);
    }
    table_end(page, "");
    matrix_groups_free(group, count);
}

void section_formats(const struct page *page)
{
    json_t *output = formats_totals(page->toc);
    section_begin(page, "formats", "What is in it", NULL);
    table_begin(page, "Tensors and bytes", "|>tensors|>bytes|by format", NULL);
    put_totals(page, "source", page->report->input);
    put_totals(page, "result", output);
    table_end(page, NULL);
    put_groups(page);
    json_decref(output);
    section_end(page);
}

/* ---- steps ---- */

static void put_step(const struct page *page, const char *name, double seconds, double bytes,
                     double longest)
{
    char time[TIME_TEXT], size[BYTES_TEXT], rate[BYTES_TEXT];
    fputs("<tr><th scope=\"row\">", page->out);
    html_text(page->out, name);
    fprintf(page->out,
            "</th><td class=\"number\">%s</td><td class=\"bar\" style=\"--part:%.1f%%\"></td>"
            "<td class=\"number\">%s</td><td class=\"number\">%s%s</td></tr>\n",
            time_text(seconds, time), longest > 0 ? 100 * seconds / longest : 0,
            bytes > 0 ? bytes_text(bytes, size) : "",
            bytes > 0 && seconds > 0 ? bytes_text(bytes / seconds, rate) : "",
            bytes > 0 && seconds > 0 ? "/s" : "");
}

/* At least 0, and finite. */
static double number_of(const json_t *object, const char *key)
{
    double number = json_number_value(json_object_get(object, key));
    return isfinite(number) && number > 0 ? number : 0;
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
        longest = fmax(longest, number_of(line, "seconds"));
        all += number_of(line, "seconds");
    }
    section_begin(page, "steps", "How long it took", NULL);
    table_begin(page, "Time and bytes of each step", "step|>time||>bytes|>rate", NULL);
    json_array_foreach((json_t *)report->measured, i, line)
    {
        if (json_is_string(json_object_get(line, "step")))
            put_step(page, text_of(line, "step"), number_of(line, "seconds"),
                     number_of(line, "bytes"), longest);
    }
    put_step(page, report->step, report->seconds, (double)report->bytes, longest);
    fprintf(page->out,
            "<tr><th scope=\"row\">all</th><td class=\"number\">%s</td><td></td><td></td>"
            "<td></td></tr>\n",
            time_text(all, time));
    table_end(page, NULL);
    if (report->finished)
        fprintf(page->out,
                "<p>Shards that an earlier run finished, without their time: %" PRIu64 ".</p>\n",
                report->finished);
    section_end(page);
}

/* ---- origin ---- */

static void put_stages(const struct page *page)
{
    size_t i, j;
    json_t *stage, *option;
    fputs("<pre tabindex=\"0\"><code>", page->out);
    json_array_foreach(json_object_get(page->report->record, "stages"), i, stage)
    {
        fputs(i ? " |\n    " : "", page->out);
        html_text(page->out, text_of(stage, "program"));
        json_array_foreach(json_object_get(stage, "options"), j, option)
            html_print(page->out, " %s", json_is_string(option) ? json_string_value(option) : "");
    }
    fputs("</code></pre>\n", page->out);
}

static void put_sources(const struct page *page)
{
    size_t i;
    json_t *source;
    char text[BYTES_TEXT];
    table_begin(page, "Files of the source", "file|>bytes|>size|checksum of samples",
                "Files of the source");
    json_array_foreach(json_object_get(page->report->record, "sources"), i, source)
    {
        json_int_t bytes = json_integer_value(json_object_get(source, "bytes"));
        fputs("<tr><td><code>", page->out);
        html_text(page->out, text_of(source, "file"));
        fprintf(page->out,
                "</code></td><td class=\"number\">%" PRId64
                "</td><td class=\"number\">%s</td><td><code>",
                (int64_t)bytes, bytes_text((double)bytes, text));
        html_text(page->out, text_of(source, "sample"));
        fputs("</code></td></tr>\n", page->out);
    }
    table_end(page, "");
}

void section_origin(const struct page *page)
{
    const char *recipe = text_of(json_object_get(ts_header(page->in), "quant"), "recipe");
    section_begin(page, "origin", "What it was made of", NULL);
    if (*recipe) {
        fputs("<p>Recipe: <code>", page->out);
        html_text(page->out, recipe);
        fputs("</code>. The stages, with the options that count:</p>\n", page->out);
    }
    put_stages(page);
    put_sources(page);
    section_end(page);
}
