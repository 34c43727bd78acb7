#include "write/source_card.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/text.h"

/* The next line, without its end, which the caller frees; NULL after the last. */
static char *next_line(const char **text)
{
    if (!*text || !**text)
        return NULL;
    size_t length = strcspn(*text, "\n");
    char *line = xprintf("%.*s", (int)length, *text);
    *text += length + ((*text)[length] == '\n');
    line[strcspn(line, "\r")] = 0;
    return line;
}

/* True for a scalar of YAML on one line, plain or in quotes. Hubs refuse cards that are no YAML. */
static bool is_scalar(const char *value)
{
    size_t length = strlen(value);
    if (length > 1 && strchr("'\"", *value)) {
        size_t inside = strcspn(value + 1, (char[]){*value, '\\', 0});
        return inside == length - 2 && value[length - 1] == *value;
    }
    return isalnum((unsigned char)*value) && !strstr(value, ": ") && value[length - 1] != ':';
}

static const char *const license_keys[] = {"license: ", "license_name: ", "license_link: "};
enum { LICENSE_KEYS = sizeof license_keys / sizeof *license_keys };

/* Print a line that has one of the keys, unless one had it before. */
static void put_license(const char *line, bool seen[LICENSE_KEYS], FILE *out)
{
    for (size_t i = 0; i < LICENSE_KEYS; i++) {
        const char *key = license_keys[i];
        if (!starts_with(line, key) || seen[i] || !text_is_line(line) ||
            !is_scalar(line + strlen(key)))
            continue;
        fprintf(out, "%s\n", line);
        seen[i] = true;
    }
}

void source_card_license(const char *card, FILE *out)
{
    if (!card || !starts_with(card, "---"))
        return;
    bool seen[LICENSE_KEYS] = {0};
    free(next_line(&card));
    for (char *line; (line = next_line(&card)); free(line)) {
        if (!strcmp(line, "---")) {
            free(line);
            return;
        }
        put_license(line, seen, out);
    }
}

static bool is_name(const char *text)
{
    enum { NAME_MAX_BYTES = 80 };
    size_t length = strlen(text);
    for (const char *c = text; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr(" .-_", *c))
            return false;
    return length && length <= NAME_MAX_BYTES;
}

char *source_card_name(const char *card)
{
    char *name = NULL;
    for (char *line; !name && (line = next_line(&card)); free(line))
        if (starts_with(line, "# ") && is_name(line + 2))
            name = xstrdup(line + 2);
    return name;
}
