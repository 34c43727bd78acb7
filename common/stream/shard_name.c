#include "stream/shard_name.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/number.h"

enum { SHARDS_MAX = 999999999 };

/* A name, taken apart: PREFIX, number, -of- or -mp, of how many. */
struct numbered {
    size_t prefix;    /* its length */
    int digits;       /* of the number, with zeros before it */
    const char *tail; /* from the number's end */
    bool rank;
    uint64_t number, of;
};

/* Where the text occurs last, or NULL. */
static const char *last_of(const char *name, const char *text)
{
    const char *last = NULL;
    for (const char *found = name; (found = strstr(found, text)); found++)
        last = found;
    return last;
}

/* False for a name that is of no set. */
static bool parse(const char *name, struct numbered *parsed)
{
    static const char *const infix[] = {"-of-", "-mp"};
    for (int rank = 0; rank < 2; rank++) {
        const char *tail = last_of(name, infix[rank]);
        size_t prefix = tail ? (size_t)(tail - name) : 0;
        while (prefix && name[prefix - 1] >= '0' && name[prefix - 1] <= '9')
            prefix--;
        if (!tail)
            continue;
        const char *number = name + prefix, *of = tail + strlen(infix[rank]);
        *parsed = (struct numbered){
            .prefix = prefix, .digits = (int)(tail - number), .tail = tail, .rank = rank};
        if (number_parse(&number, SHARDS_MAX, &parsed->number) && number == tail &&
            number_parse(&of, SHARDS_MAX, &parsed->of) && !strcmp(of, ".safetensors"))
            return true;
    }
    return false;
}

bool shard_is_rank(const char *name)
{
    struct numbered parsed;
    return parse(name, &parsed) && parsed.rank;
}

char *shard_of_rank(uint64_t rank, uint64_t ranks)
{
    return xprintf("model%" PRIu64 "-mp%" PRIu64 ".safetensors", rank, ranks);
}

bool shard_rank(const char *name, uint64_t *rank, uint64_t *ranks)
{
    struct numbered parsed;
    if (!parse(name, &parsed) || !parsed.rank)
        return false;
    *rank = parsed.number;
    *ranks = parsed.of;
    char *exact = shard_of_rank(*rank, *ranks);
    bool same = !strcmp(name, exact);
    free(exact);
    return same && *rank < *ranks;
}

char *shard_of_release(uint64_t number, uint64_t count)
{
    return xprintf("model-%05" PRIu64 "-of-%05" PRIu64 ".safetensors", number, count);
}

/* True if one of the names is of the set that `one`, parsed, is of, and has that number. */
static bool is_there(char *const *name, size_t count, const char *one,
                     const struct numbered *parsed, const uint64_t *number)
{
    for (size_t i = 0; i < count; i++) {
        struct numbered other;
        if (parse(name[i], &other) && other.prefix == parsed->prefix &&
            !strncmp(name[i], one, parsed->prefix) && !strcmp(other.tail, parsed->tail) &&
            (!number || other.number == *number))
            return true;
    }
    return false;
}

char *shard_missing(char *const *name, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct numbered parsed;
        uint64_t zero = 0;
        if (!parse(name[i], &parsed) || is_there(name, i, name[i], &parsed, NULL))
            continue; /* of no set, or of one that was looked at */
        uint64_t first = parsed.rank || is_there(name, count, name[i], &parsed, &zero) ? 0 : 1;
        for (uint64_t number = first; number < first + parsed.of; number++)
            if (!is_there(name, count, name[i], &parsed, &number))
                return xprintf("%.*s%0*" PRIu64 "%s", (int)parsed.prefix, name[i], parsed.digits,
                               number, parsed.tail);
    }
    return NULL;
}
