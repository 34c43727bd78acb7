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

/* Add the label that `note` begins with, up to its tab; returns its number. */
static size_t add_label(struct names *labels, const char *note)
{
    char *label = xprintf("%.*s", (int)strcspn(note, "\t"), note);
    size_t number = names_add(labels, label);
    free(label);
    return number;
}

/* The last note "LABEL CTIME PATH" of each label, in the order of the first ones, and NULL. The
 * caller frees the array. */
static const char **last_notes(const char *notes)
{
    size_t lines = 0;
    for (const char *line = notes; line && *line; line = strchr(line, '\n') + 1)
        lines++;
    const char **last = xalloc(lines + 1, sizeof *last);
    struct names *labels = names_new();
    for (const char *line = notes; line && *line; line = strchr(line, '\n') + 1) {
        const char *note = line + strlen(word);
        if (starts_with(line, word) && note[strcspn(note, "\t\n")] == '\t')
            last[add_label(labels, note)] = note;
    }
    names_free(labels);
    return last;
}

struct names *touched_labels(const char *notes)
{
    struct names *labels = names_new();
    const char **last = last_notes(notes);
    for (const char **note = last; *note; note++) {
        const char *rest = *note + strcspn(*note, "\t") + 1;
        if (is_touched(rest, strcspn(rest, "\n")))
            add_label(labels, *note);
    }
    free(last);
    return labels;
}
