#include "write/touched.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/die.h"
#include "base/mtime.h"
#include "base/text.h"

static const char word[] = "source\t";

char *touched_notes(const struct sources *sources)
{
    char *text;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        die_errno("out of memory");
    for (size_t i = 0; i < sources->count; i++) {
        const struct source *file = &sources->file[i];
        if (file->ctime_ns)
            fprintf(out, "%s%s\t%" PRId64 "\t%s\n", word, file->label, file->ctime_ns, file->path);
    }
    if (fclose(out))
        die("out of memory");
    return text;
}

/* True if a later line notes the label that `line` begins with, of `length` bytes with the word. */
static bool is_renewed(const char *line, size_t length)
{
    for (const char *next = line; (next = strchr(next, '\n')) && *++next;)
        if (!strncmp(next, line, length))
            return true;
    return false;
}

/* True if the file has another ctime than the text "CTIME PATH" of `length` bytes says. */
static bool is_touched(const char *text, size_t length)
{
    struct stat status;
    const char *tab = memchr(text, '\t', length);
    if (!tab)
        return false;
    char *path = xprintf("%.*s", (int)(length - (size_t)(tab + 1 - text)), tab + 1);
    char *own = NULL;
    if (!stat(path, &status))
        own = xprintf("%" PRId64 "\t", ctime_ns(&status));
    bool touched = own && strncmp(own, text, (size_t)(tab + 1 - text)) != 0;
    free(own);
    free(path);
    return touched;
}

struct names *touched_labels(const char *notes)
{
    struct names *labels = names_new();
    for (const char *line = notes; line && *line; line = strchr(line, '\n') + 1) {
        if (!starts_with(line, word))
            continue;
        const char *label = line + strlen(word);
        size_t length = strcspn(label, "\t\n");
        if (label[length] != '\t' || is_renewed(line, strlen(word) + length + 1))
            continue;
        const char *rest = label + length + 1;
        if (is_touched(rest, strcspn(rest, "\n"))) {
            char *name = xprintf("%.*s", (int)length, label);
            names_add(labels, name);
            free(name);
        }
    }
    return labels;
}
