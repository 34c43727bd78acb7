#include "base/placeholder.h"

#include <string.h>
#include <strings.h>

const char *placeholder(const char *head, size_t size)
{
    static const char lfs[] = "version https://git-lfs", bom[] = "\xef\xbb\xbf";
    static const char *const page[] = {"<!doctype html", "<html", "<?xml"};
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
    for (size_t i = 0; i < sizeof page / sizeof *page; i++)
        if ((size_t)(end - at) >= strlen(page[i]) && !strncasecmp(at, page[i], strlen(page[i])))
            return "is a web page (an error or a login), not the file itself; download it again";
    return NULL;
}
