#include "base/hello.h"

#include <arpa/inet.h>
#include <string.h>

static const char magic[8] = "seekrnk2";

/* ---- rank 0 ---- */

void *hello_room(struct heard *heard, size_t *room)
{
    const size_t first = sizeof heard->seen.hello, all = first + sizeof heard->proof;
    bool greets = heard->size < first;
    *room = (greets ? first : all) - heard->size;
    return greets ? (char *)&heard->seen.hello + heard->size
                  : (char *)heard->proof + (heard->size - first);
}

enum hello_state hello_take(struct heard *heard, size_t size)
{
    const size_t first = sizeof heard->seen.hello, all = first + sizeof heard->proof;
    bool greets = heard->size < first;
    heard->size += size;
    if (!greets)
        return heard->size < all ? HELLO_PART : HELLO_ALL;
    if (heard->size < first)
        return HELLO_PART;
    return memcmp(heard->seen.hello.magic, magic, sizeof magic) ? HELLO_STRANGER : HELLO_WHOLE;
}

void hello_answer(struct heard *heard, struct answer *answer)
{
    proof_nonce(answer->nonce);
    memcpy(heard->seen.nonce, answer->nonce, sizeof answer->nonce);
    proof_make('0', &heard->seen, sizeof heard->seen, answer->proof);
}

bool hello_is_proven(const struct heard *heard)
{
    unsigned char proof[PROOF_SIZE];
    proof_make('1', &heard->seen, sizeof heard->seen, proof);
    return proof_equal(proof, heard->proof);
}

bool hello_is_of(const struct hello *hello, unsigned count, unsigned *rank, enum channel *channel)
{
    uint32_t which = ntohl(hello->channel);
    *rank = ntohl(hello->rank);
    *channel = which == CHANNEL_LIFE ? CHANNEL_LIFE : CHANNEL_DATA;
    return ntohl(hello->count) == count && *rank && *rank < count && which <= CHANNEL_DATA;
}

/* ---- the others ---- */

void hello_make(struct hello *hello, unsigned count, unsigned rank, enum channel channel)
{
    *hello = (struct hello){
        .count = htonl(count), .rank = htonl(rank), .channel = htonl((uint32_t)channel)};
    memcpy(hello->magic, magic, sizeof magic);
    proof_nonce(hello->nonce);
}

bool hello_is_answered(const struct hello *hello, const struct answer *answer,
                       unsigned char proof[PROOF_SIZE])
{
    struct seen seen = {.hello = *hello};
    memcpy(seen.nonce, answer->nonce, sizeof answer->nonce);
    proof_make('0', &seen, sizeof seen, proof);
    if (!proof_equal(proof, answer->proof))
        return false;
    proof_make('1', &seen, sizeof seen, proof);
    return true;
}
