#include "base/placeholder.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* True if the text begins with one of these, in upper or lower case. */
static bool begins_with_one(const char *text, size_t size, const char *const *word, size_t words)
{
    for (size_t i = 0; i < words; i++)
        if (size >= strlen(word[i]) && !strncasecmp(text, word[i], strlen(word[i])))
            return true;
    return false;
}

const char *placeholder(const char *head, size_t size)
{
    static const char lfs[] = "version https://git-lfs", bom[] = "\xef\xbb\xbf";
    static const char *const page[] = {"<!doctype html", "<html", "<?xml"};
    /* Hugging Face's words, ModelScope's, and those of servers at large. */
    static const char *const answer[] = {"Entry not found",
                                         "Repository not found",
                                         "Invalid username",
                                         "Access to model",
                                         "Access denied",
                                         "Not Found",
                                         "404",
                                         "Unauthorized",
                                         "Forbidden",
                                         "{\"error\"",
                                         "{\"detail\"",
                                         "{\"Code\""};
    if (!size)
        return "is empty; download it again";
    if (size >= sizeof lfs - 1 && !memcmp(head, lfs, sizeof lfs - 1))
        return "is a Git LFS pointer, not the file itself; run git lfs pull in its folder";
    const char *at = head, *end = head + size;
    while (at < end && !*at)
        at++;
    if (at == end)
        return "begins with zeros only: a download made room for it, and did not fill it; "
               "download it again";
    at = head;
    if (size > 3 && !memcmp(at, bom, 3))
        at += 3;
    while (at < end && strchr(" \t\r\n", *at) && *at)
        at++;
    size_t rest = (size_t)(end - at);
    if (begins_with_one(at, rest, page, sizeof page / sizeof *page))
        return "is a web page (an error or a login), not the file itself; download it again";
    if (begins_with_one(at, rest, answer, sizeof answer / sizeof *answer))
        return "is a server's error message, not the file itself (is the name right, and are you "
               "logged in?); download it again";
    return NULL;
}
