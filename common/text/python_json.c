#include "text/python_json.h"

#include <stdlib.h>
#include <string.h>

static void put_string(const char *text, size_t length, FILE *out)
{
    static const char special[] = "\"\\\n\r\t\f\b", letter[] = "\"\\nrtfb";
    fputc('"', out);
    for (size_t i = 0; i < length; i++) {
        const char *found = text[i] ? strchr(special, text[i]) : NULL;
        if (found)
            fprintf(out, "\\%c", letter[found - special]);
        else if ((unsigned char)text[i] < 0x20)
            fprintf(out, "\\u%04x", text[i]);
        else
            fputc(text[i], out);
    }
    fputc('"', out);
}

static void put_zeros(int count, FILE *out)
{
    while (count-- > 0)
        fputc('0', out);
}

/* The fewest digits that give the number back; an exponent below -4 and from 16 on. */
static void put_real(double value, FILE *out)
{
    char text[32], *digit = text;
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, value);
        if (strtod(text, NULL) == value)
            break;
    }
    if (*digit == '-')
        fputc(*digit++, out);
    char *e = strchr(digit, 'e');
    int exponent = (int)strtol(e + 1, NULL, 10), count = (int)(e - digit);
    if (exponent < -4 || exponent >= 16) {
        fputs(digit, out); /* %e writes it as Python does */
        return;
    }
    if (count > 1) { /* the digits without their point */
        memmove(digit + 1, digit + 2, (size_t)count - 2);
        count--;
    }
    int whole = exponent < 0 ? 0 : exponent + 1, have = whole < count ? whole : count;
    fprintf(out, "%.*s", have, digit);
    put_zeros(whole ? whole - have : 1, out);
    fputc('.', out);
    put_zeros(-exponent - 1, out);
    fprintf(out, "%.*s", count - have, digit + have);
    put_zeros(count == have, out);
}

static void put_members(const json_t *object, FILE *out)
{
    const char *key, *between = "";
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        fputs(between, out);
        put_string(key, strlen(key), out);
        fputs(": ", out);
        python_json_put(value, out);
        between = ", ";
    }
}

void python_json_put(const json_t *value, FILE *out)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        fputc('{', out);
        put_members(value, out);
        fputc('}', out);
        break;
    case JSON_ARRAY:
        fputc('[', out);
        for (size_t i = 0; i < json_array_size(value); i++) {
            fputs(i ? ", " : "", out);
            python_json_put(json_array_get(value, i), out);
        }
        fputc(']', out);
        break;
    case JSON_STRING:
        put_string(json_string_value(value), json_string_length(value), out);
        break;
    case JSON_INTEGER:
        fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        put_real(json_real_value(value), out);
        break;
    default:
        fputs(json_is_null(value) ? "null" : json_is_true(value) ? "true" : "false", out);
    }
}
