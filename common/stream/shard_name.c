#include "stream/shard_name.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/names.h"
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

/* A name of a set: the same for all names that differ in the number alone. */
struct member {
    size_t set;
    uint64_t number;
    const char *name;
};

static int by_number(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    if (x->set != y->set)
        return x->set < y->set ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

/* Those of the names that are of sets, by set and number; the caller frees them. */
static struct member *members_of(char *const *name, size_t count, size_t *members)
{
    struct member *member = xalloc(count, sizeof *member);
    struct names *sets = names_new();
    *members = 0;
    for (size_t i = 0; i < count; i++) {
        struct numbered parsed;
        if (!parse(name[i], &parsed))
            continue;
        char *set = xprintf("%.*s/%s", (int)parsed.prefix, name[i], parsed.tail);
        member[(*members)++] = (struct member){names_add(sets, set), parsed.number, name[i]};
        free(set);
    }
    names_free(sets);
    if (*members)
        qsort(member, *members, sizeof *member, by_number);
    return member;
}

/* The first number that one set's members, in their order, lack; the caller frees the name. NULL if
 * they are all. */
static char *missing_of(const struct member *member, size_t count)
{
    struct numbered parsed = {0};
    if (!parse(member->name, &parsed))
        return NULL;
    uint64_t number = parsed.rank || !member->number ? 0 : 1, end = number + parsed.of;
    for (size_t i = 0; i < count && number < end && member[i].number <= number; i++)
        number += member[i].number == number;
    return number == end ? NULL
                         : xprintf("%.*s%0*" PRIu64 "%s", (int)parsed.prefix, member->name,
                                   parsed.digits, number, parsed.tail);
}

char *shard_missing(char *const *name, size_t count)
{
    size_t members;
    struct member *member = members_of(name, count, &members);
    char *missing = NULL;
    for (size_t i = 0, end; i < members && !missing; i = end) {
        for (end = i + 1; end < members && member[end].set == member[i].set; end++)
            continue;
        missing = missing_of(member + i, end - i);
    }
    free(member);
    return missing;
}
