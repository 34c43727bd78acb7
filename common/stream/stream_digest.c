#include "stream/stream_digest.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static const char key[] = "digest", zeros[] = "0000000000000000";
enum { DIGITS = sizeof zeros - 1 };

void stream_digest_entry(struct checksum *sum, const char *name, const char *link)
{
    checksum_add(sum, name, strlen(name) + 1);
    if (link)
        checksum_add(sum, link, strlen(link) + 1);
}

/* End the checksum with .end, in which the digits are zeros: the digest's digits. */
static void end_with(struct checksum *sum, const char *data, size_t size, char digits[DIGITS + 1])
{
    stream_digest_entry(sum, ".end", NULL);
    checksum_add(sum, data, size);
    snprintf(digits, DIGITS + 1, "%016" PRIx64, checksum_end(sum));
}

char *stream_digest_seal(struct checksum *sum, json_t *end)
{
    char digits[DIGITS + 1];
    json_object_set_new(end, key, json_string(zeros));
    char *text = json_text(end, true, false);
    end_with(sum, text, strlen(text), digits);
    free(text);
    json_object_set_new(end, key, json_string(digits));
    return json_text(end, true, false);
}

bool stream_digest_holds(struct checksum *sum, const json_t *end, char *data, size_t size)
{
    char digits[DIGITS + 1];
    const json_t *member = json_object_get(end, key);
    const char *found = json_string_value(member);
    bool hex = found && strlen(found) == DIGITS && strspn(found, "0123456789abcdef") == DIGITS;
    char *at = hex ? strstr(data, found) : NULL;
    if (at)
        memcpy(at, zeros, DIGITS);
    end_with(sum, data, size, digits);
    return member ? at && !strcmp(found, digits) : true;
}
