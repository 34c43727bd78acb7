#include "base/ranks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/heartbeat.h"
#include "base/message.h"
#include "base/number.h"
#include "base/rendezvous.h"

enum { SILENCE = 30, SILENCE_MOST = 86400, PATIENCE = 10 };

struct ranks {
    struct launch launch;
    struct rendezvous rendezvous;
    struct heartbeat *heartbeat;
};

static unsigned silence(void)
{
    const char *text = getenv("SEEKPIPE_RANK_TIMEOUT"), *end = text;
    uint64_t seconds = SILENCE;
    if (text && (!number_parse(&end, SILENCE_MOST, &seconds) || *end || !seconds))
        die("$SEEKPIPE_RANK_TIMEOUT is '%s', wanted a number of seconds", text);
    return (unsigned)seconds;
}

struct ranks *ranks_open(const struct launch *launch)
{
    struct ranks *ranks = xalloc(1, sizeof *ranks);
    ranks->launch = *launch;
    program_invocation_short_name = xprintf("%s[%u]", program_invocation_short_name, launch->rank);
    rendezvous_begin(&ranks->rendezvous, launch);
    ranks->heartbeat = heartbeat_begin(&ranks->rendezvous, silence());
    const struct peer *lost =
        rendezvous_meet(&ranks->rendezvous, launch, PATIENCE * silence(), silence());
    if (lost)
        heartbeat_lost(ranks->heartbeat, lost->rank);
    return ranks;
}

unsigned ranks_count(const struct ranks *ranks)
{
    return ranks ? ranks->launch.count : 1;
}

unsigned ranks_rank(const struct ranks *ranks)
{
    return ranks ? ranks->launch.rank : 0;
}

unsigned ranks_local(const struct ranks *ranks)
{
    return ranks ? ranks->launch.local : 0;
}

void ranks_share(const struct ranks *ranks, uint64_t total, uint64_t *first, uint64_t *count)
{
    uint64_t all = ranks_count(ranks), rank = ranks_rank(ranks);
    uint64_t each = total / all, more = total % all; /* the first ranks have one more */
    *first = rank * each + (rank < more ? rank : more);
    *count = each + (rank < more);
}

/* ---- messages ---- */

static void send_message(struct ranks *ranks, const struct peer *peer, const void *data,
                         size_t size)
{
    if (!message_send(peer->data, data, size))
        heartbeat_lost(ranks->heartbeat, peer->rank);
}

_Noreturn static void give_up(struct ranks *ranks, const struct peer *peer)
{
    heartbeat_give_up(ranks->heartbeat,
                      "rank %u is at a different step; do all run the same program on the same "
                      "model?",
                      peer->rank);
}

static void receive_message(struct ranks *ranks, const struct peer *peer, void *data, size_t size)
{
    enum message message = message_receive(peer->data, data, size);
    if (message == MESSAGE_OTHER)
        give_up(ranks, peer);
    if (message == MESSAGE_LOST)
        heartbeat_lost(ranks->heartbeat, peer->rank);
}

/* A message of any size, which the caller frees. */
static void *receive_any(struct ranks *ranks, const struct peer *peer, size_t *size)
{
    void *data = message_receive_any(peer->data, size);
    if (!data)
        heartbeat_lost(ranks->heartbeat, peer->rank);
    return data;
}

/* ---- collective operations ---- */

void ranks_broadcast(struct ranks *ranks, void *data, size_t size)
{
    for (unsigned i = 0; ranks && i < ranks->rendezvous.peers; i++)
        if (ranks->launch.rank)
            receive_message(ranks, &ranks->rendezvous.peer[i], data, size);
        else
            send_message(ranks, &ranks->rendezvous.peer[i], data, size);
}

/* Rank 0 combines its values with the others', in the order of ranks, and sends the result to all.
 */
static void reduce(struct ranks *ranks, void *values, size_t count, size_t size,
                   void (*combine)(void *values, const void *others, size_t count))
{
    if (!ranks)
        return;
    if (ranks->launch.rank) {
        send_message(ranks, ranks->rendezvous.peer, values, count * size);
    } else {
        void *others = xalloc(count, size);
        for (unsigned i = 0; i < ranks->rendezvous.peers; i++) {
            receive_message(ranks, &ranks->rendezvous.peer[i], others, count * size);
            combine(values, others, count);
        }
        free(others);
    }
    ranks_broadcast(ranks, values, count * size);
}

/* Compared as bits: NaN is above infinity, infinity above all numbers. */
static void larger(void *values, const void *others, size_t count)
{
    uint32_t *value = values;
    const uint32_t *other = others;
    for (size_t i = 0; i < count; i++)
        value[i] = other[i] > value[i] ? other[i] : value[i];
}

static void sum(void *values, const void *others, size_t count)
{
    uint64_t *value = values;
    const uint64_t *other = others;
    for (size_t i = 0; i < count; i++)
        value[i] += other[i];
}

void ranks_max(struct ranks *ranks, float *value, size_t count)
{
    reduce(ranks, value, count, sizeof *value, larger);
}

void ranks_sum(struct ranks *ranks, uint64_t *value, size_t count)
{
    reduce(ranks, value, count, sizeof *value, sum);
}

void ranks_gather(struct ranks *ranks, const void *data, size_t size,
                  bool (*receive)(void *context, const void *data, size_t size), void *context)
{
    for (unsigned i = 0; ranks && i < ranks->rendezvous.peers; i++) {
        const struct peer *peer = &ranks->rendezvous.peer[i];
        if (ranks->launch.rank) {
            send_message(ranks, peer, data, size);
            continue;
        }
        size_t other_size;
        void *other = receive_any(ranks, peer, &other_size);
        if (!receive(context, other, other_size))
            give_up(ranks, peer);
        free(other);
    }
}

void ranks_agree(struct ranks *ranks, const char *what, const char *text)
{
    size_t length = strlen(text), other_length;
    char agreed = 1;
    for (unsigned i = 0; ranks && i < ranks->rendezvous.peers; i++) {
        const struct peer *peer = &ranks->rendezvous.peer[i];
        if (ranks->launch.rank) {
            send_message(ranks, peer, text, length);
            continue;
        }
        void *other = receive_any(ranks, peer, &other_length);
        if (other_length != length || memcmp(other, text, length) != 0)
            heartbeat_give_up(ranks->heartbeat, "rank %u has %s than rank 0; all need the same",
                              peer->rank, what);
        free(other);
    }
    ranks_broadcast(ranks, &agreed, 1); /* no rank continues before all agree */
}

void ranks_reading(struct ranks *ranks, const char *tensor)
{
    if (ranks)
        heartbeat_reading(ranks->heartbeat, tensor);
}

void ranks_close(struct ranks *ranks)
{
    uint64_t done = 1;
    if (!ranks)
        return;
    ranks_sum(ranks, &done, 1);
    heartbeat_end(ranks->heartbeat);
    rendezvous_close(&ranks->rendezvous);
    free(ranks);
}
