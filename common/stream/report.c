#include "stream/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/json.h"
#include "base/output.h"
#include "base/text.h"

enum report report_form(bool tsv, bool json)
{
    if (tsv && json)
        die_usage("--tsv and --json exclude each other");
    return tsv ? REPORT_TSV : json ? REPORT_JSON : REPORT_TEXT;
}

void report_begin(struct stage *stage)
{
    if (!stage->output)
        return;
    stage->report = xalloc(1, sizeof *stage->report);
    output_open(stage->report, stage->output);
    if (dup2(stage->report->fd, STDOUT_FILENO) < 0)
        die_errno("%s", stage->output);
}

int report_end(struct stage *stage)
{
    int code = stage_end(stage);
    if (stage->report)
        output_finish(stage->report);
    free(stage->report);
    return code;
}

static void write_field(FILE *out, const json_t *value)
{
    char text[NUMBER_TEXT];
    if (json_is_string(value)) {
        char *line = printable(xstrdup(json_string_value(value)));
        fputs(line, out);
        free(line);
    } else if (json_is_real(value)) {
        fputs(number_text(json_real_value(value), text), out);
    } else if (json_is_null(value)) {
        fputc('-', out);
    } else {
        json_print(out, value, false);
    }
}

void report_record(enum report form, json_t *record)
{
    report_record_to(stdout, form, record);
}

void report_record_to(FILE *out, enum report form, json_t *record)
{
    if (!record)
        die("out of memory");
    if (form == REPORT_JSON) {
        json_print(out, record, false);
    } else {
        const char *key, *tab = "";
        json_t *value;
        json_object_foreach(record, key, value)
        {
            fputs(tab, out);
            write_field(out, value);
            tab = "\t";
        }
    }
    fputc('\n', out);
    json_decref(record);
}

json_t *report_shape(const struct tensor *tensor)
{
    json_t *shape = json_array();
    for (unsigned i = 0; i < tensor->rank; i++) /* JSON's integers are signed; a real is near */
        json_array_append_new(shape, tensor->dim[i] <= INT64_MAX
                                         ? json_integer((json_int_t)tensor->dim[i])
                                         : json_real((double)tensor->dim[i]));
    return shape;
}

json_t *report_number(double number)
{
    char text[NUMBER_TEXT];
    return isfinite(number) ? json_real(number) : json_string(number_text(number, text));
}

char *number_text(double number, char *text)
{
    if (isnan(number))
        return strcpy(text, "nan"); /* without the sign that printf may print */
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, NUMBER_TEXT, "%.*g", digits, number);
        if (strtod(text, NULL) == number)
            break;
    }
    return text;
}
