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

static bool is_of_license(const char *line)
{
    static const char *const key[] = {"license: ", "license_name: ", "license_link: "};
    for (size_t i = 0; i < sizeof key / sizeof *key; i++)
        if (starts_with(line, key[i]))
            return text_is_line(line);
    return false;
}

void source_card_license(const char *card, FILE *out)
{
    if (!card || !starts_with(card, "---"))
        return;
    free(next_line(&card));
    for (char *line; (line = next_line(&card)); free(line)) {
        if (!strcmp(line, "---")) {
            free(line);
            return;
        }
        if (is_of_license(line))
            fprintf(out, "%s\n", line);
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
