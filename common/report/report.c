#include "report/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/json.h"
#include "base/text.h"
#include "base/version.h"
#include "report/html.h"
#include "report/sections.h"
#include "write/card.h"
#include "write/run_record.h"

/* ---- what was measured ---- */

json_t *report_measured(const char *path)
{
    enum { MOST = 1 << 20 };
    size_t size;
    char *text = text_of_file(path, MOST, &size);
    json_t *all = json_array();
    if (size > MOST)
        die("%s: is larger than 1 MiB", path);
    for (size_t at = 0, length, line = 1; at < size; at += length + 1, line++) {
        const char *end = memchr(text + at, '\n', size - at);
        length = end ? (size_t)(end - text) - at : size - at;
        json_error_t error;
        json_t *object = json_load_within(text + at, length, 0, JSON_MEMORY, &error);
        if (!json_is_object(object))
            die("%s: line %zu: wanted an object in JSON: %s", path, line,
                object ? "it is something else" : error.text);
        json_array_append_new(all, object);
    }
    free(text);
    return all;
}

/* ---- sections ---- */

const char *member_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

double member_number(const json_t *object, const char *key)
{
    double number = json_number_value(json_object_get(object, key));
    return isfinite(number) && number > 0 ? number : 0;
}

void section_begin(const struct page *page, const char *id, const char *heading, const char *about)
{
    html_print(page->out, "<section aria-labelledby=\"%s\">\n<h2 id=\"%s\">%s</h2>\n", id, id,
               heading);
    if (about)
        html_print(page->out, "<p>%s</p>\n", about);
}

void section_end(const struct page *page)
{
    fputs("</section>\n", page->out);
}

void table_begin(const struct page *page, const char *caption, const char *columns, bool folded)
{
    if (folded)
        html_print(page->out, "<details>\n<summary>Table: %s</summary>\n", caption);
    html_print(page->out,
               "<div class=\"scroll\" role=\"group\" tabindex=\"0\" aria-label=\"%s\">\n<table>\n"
               "<caption>%s</caption>\n<thead>\n<tr>",
               caption, caption);
    while (*columns) {
        size_t length = strcspn(columns, "|");
        bool number = *columns == '>';
        fprintf(page->out, "<th scope=\"col\"%s>", number ? " class=\"number\"" : "");
        html_text(page->out, columns + number, length - number);
        fputs("</th>", page->out);
        columns += length + (columns[length] == '|');
    }
    fputs("</tr>\n</thead>\n<tbody>\n", page->out);
}

void table_end(const struct page *page, bool folded)
{
    fputs(folded ? "</tbody>\n</table>\n</div>\n</details>\n" : "</tbody>\n</table>\n</div>\n",
          page->out);
}

/* ---- the page ---- */

/* Nothing is loaded and no script runs, whatever got into the page. */
static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<meta name=\"color-scheme\" content=\"light dark\">\n"
    "<meta name=\"generator\" content=\"seekpipe " SEEKPIPE_VERSION "\">\n<style>\n";
static const char foot[] =
    "</main>\n<footer>\n<p>st-write(1) says how this page is made. <code>README.md</code> is the "
    "model card, <code>" RUN_RECORD "</code> the record for programs.</p>\n</footer>\n</body>\n"
    "</html>\n";

static void put_head(const struct page *page)
{
    char *title = card_title(page->in, page->configs);
    fputs(head, page->out);
    fputs(report_style, page->out);
    html_print(page->out,
               "</style>\n<title>%s</title>\n</head>\n<body>\n<header>\n<h1>%s</h1>\n<p>How this "
               "checkpoint was made, and how well it came out. Made by seekpipe %s.</p>\n"
               "</header>\n<main>\n",
               title, title, SEEKPIPE_VERSION);
    free(title);
}

char *report_page(const struct report *report, struct ts_in *in, const struct toc *toc,
                  const struct configs *configs)
{
    static void (*const sections[])(const struct page *page) = {
        section_glance, section_losses,  section_texts,   section_engines, section_calibration,
        section_scales, section_weights, section_formats, section_steps,   section_origin};
    char *text = NULL;
    size_t size;
    struct page page = {open_memstream(&text, &size), report, in, toc, configs};
    if (!page.out)
        die("out of memory");
    put_head(&page);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        sections[i](&page);
    fputs(foot, page.out);
    if (fclose(page.out))
        die("out of memory");
    return text;
}
