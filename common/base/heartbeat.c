#include "base/heartbeat.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/die.h"

enum { BEATS = 6, FAREWELL_SECONDS = 2, TEXT_MOST = 512 }; /* so many beats fit into a silence */

/* The bytes of a connection. Behind BYTE_END comes the text that says why, up to the end. */
enum { BYTE_LIVES = 'l', BYTE_DONE = 'd', BYTE_END = 'e' };

struct watched {
    double heard; /* when last */
    bool done;    /* it said good-bye, or is no longer listened to */
    bool ending;
    char text[TEXT_MOST]; /* why, once it is ending */
    size_t length;
};

struct heartbeat {
    const struct rendezvous *rendezvous;
    unsigned silence;
    struct watched *watched; /* by peer */
    atomic_flag over;        /* a thread is ending the process: others keep still */
    int wake;                /* an event: good-bye is said, and the others' awaited */
    bool leaving;
    pthread_mutex_t mutex; /* guards what follows */
    const char *tensor;    /* what is being read, or NULL */
    double begun;
    pthread_t thread;
};

static void tell_all(const struct heartbeat *heartbeat, const char *bytes, size_t count)
{
    for (unsigned i = 0; i < heartbeat->rendezvous->peers; i++)
        (void)!send(heartbeat->rendezvous->peer[i].life, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Closing a connection that has unread bytes would take from the other side what was sent last:
 * read until they are gone. */
static void wait_until_read(const struct heartbeat *heartbeat)
{
    double end = monotonic_seconds() + FAREWELL_SECONDS;
    for (unsigned i = 0; i < heartbeat->rendezvous->peers; i++) {
        int fd = heartbeat->rendezvous->peer[i].life;
        char bytes[TEXT_MOST];
        shutdown(fd, SHUT_WR);
        for (double left; (left = end - monotonic_seconds()) > 0;) {
            struct pollfd poll_for = {.fd = fd, .events = POLLIN};
            if (poll(&poll_for, 1, (int)(left * 1000) + 1) == 1 &&
                recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) <= 0)
                break;
        }
    }
}

/* Without exit(): other threads are at work, and would be surprised by its clearing up. */
_Noreturn void heartbeat_give_up(struct heartbeat *heartbeat, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    while (atomic_flag_test_and_set(&heartbeat->over))
        pause();
    char message[TEXT_MOST] = {BYTE_END};
    vsnprintf(message + 1, sizeof message - 1, format, args);
    va_end(args);
    warn("%s", message + 1);
    tell_all(heartbeat, message, strlen(message));
    wait_until_read(heartbeat);
    _exit(EXIT_FAILED);
}

_Noreturn void heartbeat_lost(struct heartbeat *heartbeat, unsigned rank)
{
    sleep(FAREWELL_SECONDS);
    heartbeat_give_up(heartbeat, "the connection with rank %u broke; all ranks end", rank);
}

void heartbeat_reading(struct heartbeat *heartbeat, const char *tensor)
{
    pthread_mutex_lock(&heartbeat->mutex);
    heartbeat->tensor = tensor;
    heartbeat->begun = monotonic_seconds();
    pthread_mutex_unlock(&heartbeat->mutex);
}

static void look_at_reading(struct heartbeat *heartbeat)
{
    pthread_mutex_lock(&heartbeat->mutex);
    if (heartbeat->tensor && monotonic_seconds() - heartbeat->begun > heartbeat->silence)
        heartbeat_give_up(heartbeat,
                          "%s: reading some of it takes longer than %u seconds; does the disk or "
                          "the network hang? all ranks end",
                          heartbeat->tensor, heartbeat->silence);
    pthread_mutex_unlock(&heartbeat->mutex);
}

/* What peer i has sent; or that it has ended. */
static void listen_to(struct heartbeat *heartbeat, unsigned i)
{
    const struct peer *peer = &heartbeat->rendezvous->peer[i];
    struct watched *w = &heartbeat->watched[i];
    char bytes[TEXT_MOST];
    ssize_t got = recv(peer->life, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    for (ssize_t j = 0; j < got; j++) {
        if (w->ending && w->length < sizeof w->text - 1)
            w->text[w->length++] = bytes[j];
        w->done |= !w->ending && bytes[j] == BYTE_DONE;
        w->ending |= bytes[j] == BYTE_END;
    }
    w->heard = monotonic_seconds();
    if (got > 0)
        return;
    if (w->ending)
        heartbeat_give_up(heartbeat, "rank %u says: %s", peer->rank, w->text);
    if (!w->done && !heartbeat->leaving)
        heartbeat_give_up(heartbeat, "rank %u has ended, its own message says why; all ranks end",
                          peer->rank);
    w->done = true;
}

static void look_at_all(struct heartbeat *heartbeat, const struct pollfd *polled)
{
    double now = monotonic_seconds();
    for (unsigned i = 0; i < heartbeat->rendezvous->peers; i++) {
        struct watched *w = &heartbeat->watched[i];
        if (polled[i].revents)
            listen_to(heartbeat, i);
        else if (!w->done && now - w->heard > heartbeat->silence)
            heartbeat_give_up(
                heartbeat,
                "rank %u has not been heard of for %u seconds (stopped, or its machine "
                "hangs or is cut off); all ranks end",
                heartbeat->rendezvous->peer[i].rank, heartbeat->silence);
    }
}

/* If this process was itself stopped for a while, the others have to be heard anew. */
static void forgive(struct heartbeat *heartbeat, double since)
{
    double now = monotonic_seconds();
    if (now - since <= heartbeat->silence / 2.0)
        return;
    for (unsigned i = 0; i < heartbeat->rendezvous->peers; i++)
        heartbeat->watched[i].heard = now;
    pthread_mutex_lock(&heartbeat->mutex);
    heartbeat->begun = now;
    pthread_mutex_unlock(&heartbeat->mutex);
}

static bool all_done(const struct heartbeat *heartbeat)
{
    unsigned done = 0;
    for (unsigned i = 0; i < heartbeat->rendezvous->peers; i++)
        done += heartbeat->watched[i].done;
    return done == heartbeat->rendezvous->peers;
}

/* Wait until a peer has something to say, this process is to leave, or `seconds` have passed. */
static void wait_for(struct heartbeat *heartbeat, struct pollfd *polled, double seconds)
{
    unsigned peers = heartbeat->rendezvous->peers;
    for (unsigned i = 0; i < peers; i++) /* poll() leaves a negative one out */
        polled[i] = (struct pollfd){
            .fd = heartbeat->watched[i].done ? -1 : heartbeat->rendezvous->peer[i].life,
            .events = POLLIN};
    polled[peers] =
        (struct pollfd){.fd = heartbeat->leaving ? -1 : heartbeat->wake, .events = POLLIN};
    poll(polled, peers + 1, seconds > 0 ? (int)(seconds * 1000) + 1 : 0);
    heartbeat->leaving |= polled[peers].revents != 0;
}

static void *run(void *context)
{
    struct heartbeat *heartbeat = context;
    struct pollfd *polled = xalloc(heartbeat->rendezvous->peers + 1, sizeof *polled);
    const char lives = BYTE_LIVES;
    double interval = (double)heartbeat->silence / BEATS, next = 0, looked = monotonic_seconds(),
           end = 0;
    while (!heartbeat->leaving || (!all_done(heartbeat) && looked < end)) {
        double now = monotonic_seconds();
        if (now >= next) {
            tell_all(heartbeat, &lives, 1);
            next = now + interval;
        }
        wait_for(heartbeat, polled, next - now);
        forgive(heartbeat, looked);
        look_at_all(heartbeat, polled);
        look_at_reading(heartbeat);
        looked = monotonic_seconds();
        if (heartbeat->leaving && end <= 0)
            end = looked + FAREWELL_SECONDS;
    }
    free(polled);
    return NULL;
}

struct heartbeat *heartbeat_begin(const struct rendezvous *rendezvous, unsigned silence)
{
    struct heartbeat *heartbeat = xalloc(1, sizeof *heartbeat);
    *heartbeat =
        (struct heartbeat){.rendezvous = rendezvous, .silence = silence, .over = ATOMIC_FLAG_INIT};
    heartbeat->watched = xalloc(rendezvous->peers, sizeof *heartbeat->watched);
    for (unsigned i = 0; i < rendezvous->peers; i++)
        heartbeat->watched[i].heard = monotonic_seconds();
    heartbeat->wake = eventfd(0, EFD_CLOEXEC);
    pthread_mutex_init(&heartbeat->mutex, NULL);
    if (heartbeat->wake < 0)
        die_errno("an event");
    if (pthread_create(&heartbeat->thread, NULL, run, heartbeat))
        die("cannot start a thread; are there too many processes?");
    return heartbeat;
}

void heartbeat_end(struct heartbeat *heartbeat)
{
    const char done = BYTE_DONE;
    const uint64_t one = 1;
    tell_all(heartbeat, &done, 1);
    if (write(heartbeat->wake, &one, sizeof one) != (ssize_t)sizeof one)
        die_errno("an event");
    pthread_join(heartbeat->thread, NULL);
    pthread_mutex_destroy(&heartbeat->mutex);
    close(heartbeat->wake);
    free(heartbeat->watched);
    free(heartbeat);
}
