#include "base/hub.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"

static bool is_name(const char *text, size_t length)
{
    static const char characters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    return length && text[0] != '.' && text[0] != '-' && strspn(text, characters) >= length;
}

/* A file's name, which no checkpoint on the hub ends in. */
static bool is_file(const char *name)
{
    static const char *const ends[] = {".ts", ".pt", ".safetensors", ".json", ".jsonl", ".tar"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof ends / sizeof *ends; i++)
        if (!strcmp(dot, ends[i]))
            return true;
    return false;
}

void hub_refuse(const char *path)
{
    int error = errno;
    const char *slash = strchr(path, '/');
    if (error != ENOENT || !slash || !is_name(path, (size_t)(slash - path)) ||
        !is_name(slash + 1, strlen(slash + 1)) || is_file(slash + 1))
        return;
    char *owner = xprintf("%.*s", (int)(slash - path), path);
    bool here = !access(owner, F_OK);
    free(owner);
    if (!here)
        die("%s: there is no such folder here; from the Hugging Face hub, 'hf download %s "
            "--local-dir %s' gets it",
            path, path, slash + 1);
    errno = error;
}
