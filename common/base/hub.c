#include "base/hub.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"

/* ---- names ---- */

static bool is_part(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)text[i]) && !strchr("-_.", text[i]))
            return false;
    return length && !strchr("-.", text[0]) && !strchr("-.", text[length - 1]);
}

bool hub_is_name(const char *text)
{
    const char *slash = strchr(text, '/');
    return slash && is_part(text, (size_t)(slash - text)) &&
           is_part(slash + 1, strlen(slash + 1)) && !strstr(text, "--") && !strstr(text, "..");
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

/* ---- the cache ---- */

/* The variable's value; NULL if it is not set or empty. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static const char *home(void)
{
    const char *home = variable("HOME");
    const struct passwd *user = home ? NULL : getpwuid(getuid());
    return home ? home : user ? user->pw_dir : "/";
}

/* A folder that a variable names, with the user's own for a leading "~", as the hub's library reads
 * it; NULL if the variable is not set or empty. The caller frees it. */
static char *folder_in(const char *name)
{
    const char *value = variable(name);
    if (!value)
        return NULL;
    bool is_home = *value == '~' && (!value[1] || value[1] == '/');
    return is_home ? xprintf("%s%s", home(), value + 1) : xstrdup(value);
}

/* The cache's folder, which may not be there; the caller frees it. */
static char *cache_folder(void)
{
    static const struct {
        const char *variable, *inside;
    } each[] = {{"HF_HUB_CACHE", ""},
                {"HUGGINGFACE_HUB_CACHE", ""},
                {"HF_HOME", "/hub"},
                {"XDG_CACHE_HOME", "/huggingface/hub"}};
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        char *found = folder_in(each[i].variable);
        char *cache = found ? xprintf("%s%s", found, each[i].inside) : NULL;
        free(found);
        if (cache)
            return cache;
    }
    return xprintf("%s/.cache/huggingface/hub", home());
}

enum { COMMIT = 40 /* hexadecimal digits */ };

/* Read what refs/main holds. False if there is no such file. */
static bool read_commit(const char *path, const char *name, char commit[COMMIT + 1])
{
    struct stat status;
    char text[COMMIT + 1] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return false;
    if (fd < 0 || fstat(fd, &status))
        die_errno("%s", path);
    bool is_commit = S_ISREG(status.st_mode) && pread(fd, text, sizeof text, 0) == COMMIT &&
                     strspn(text, "0123456789abcdef") == COMMIT;
    close(fd);
    if (!is_commit)
        die("%s: is not the %d digits of a commit; the cache is damaged: remove this file, and "
            "'hf download %s' makes it again",
            path, COMMIT, name);
    memcpy(commit, text, sizeof text);
    return true;
}

/* The snapshot of main, which the caller frees; NULL if there is none. */
static char *snapshot(const char *cache, const char *name)
{
    int owner = (int)strcspn(name, "/");
    char *repository = xprintf("%s/models--%.*s--%s", cache, owner, name, name + owner + 1);
    char *ref = xprintf("%s/refs/main", repository), commit[COMMIT + 1], *folder = NULL;
    struct stat status;
    if (read_commit(ref, name, commit)) {
        char *path = xprintf("%s/snapshots/%s", repository, commit);
        if (!stat(path, &status) && S_ISDIR(status.st_mode) && !(folder = realpath(path, NULL)))
            die_errno("%s", path);
        free(path);
    }
    free(ref);
    free(repository);
    return folder;
}

char *hub_folder(const char *path)
{
    struct stat status;
    if (!lstat(path, &status) || errno != ENOENT || !hub_is_name(path) || is_file(path))
        return xstrdup(path);
    const char *slash = strchr(path, '/');
    char *owner = xprintf("%.*s", (int)(slash - path), path), *cache = cache_folder();
    char *folder = snapshot(cache, path);
    if (!folder && !access(owner, F_OK))
        folder = xstrdup(path);
    if (!folder)
        die("%s: there is no such folder here, and no snapshot of it in %s; from the Hugging Face "
            "hub, 'hf download %s --local-dir %s' gets it",
            path, cache, path, slash + 1);
    free(owner);
    free(cache);
    return folder;
}

char *hub_label(const char *folder)
{
    static const char models[] = "/models--", snapshots[] = "/snapshots/";
    const char *last = folder ? strrchr(folder, '/') : NULL, *next, *owner, *name = NULL;
    if (!last || !last[1])
        return NULL;
    for (owner = folder; (next = strstr(owner, models)); owner = next + strlen(models))
        continue;
    const char *end = strstr(owner, snapshots);
    if (owner != folder && end && strchr(end + 1, '/') == last)
        name = strstr(owner, "--");
    return name && name < end
               ? xprintf("%.*s/%.*s", (int)(name - owner), owner, (int)(end - name - 2), name + 2)
               : xstrdup(last + 1);
}
