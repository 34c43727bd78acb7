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
#include "base/message.h"

/* BEATS: heartbeats per `silence`. ABSENT: how long a peer's connection goes unnoticed. */
enum { BEATS = 6, FAREWELL_SECONDS = 2, ABSENT_MILLISECONDS = 100 };

struct peer_state {
    double heard; /* time of the last byte */
    bool done;    /* it said goodbye, or its connection is no longer read */
    struct signs signs;
};

struct heartbeat {
    const struct rendezvous *rendezvous;
    unsigned silence;
    struct peer_state *state; /* by peer */
    atomic_flag over;         /* a thread is ending the process: others wait */
    int wake;                 /* an event: this process said goodbye and waits for the others' */
    bool leaving;
    pthread_mutex_t mutex; /* guards what follows */
    const char *tensor;    /* the tensor being read, or NULL */
    double begun;
    pthread_t thread;
};

static void tell_all(const struct heartbeat *heartbeat, const char *bytes, size_t count)
{
    for (unsigned i = 0; i < heartbeat->rendezvous->peers; i++)
        (void)!send(heartbeat->rendezvous->peer[i].life, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Closing a connection that has unread bytes would discard what was sent last on the other side,
 * too. So read until the peer closes. */
static void wait_until_read(const struct heartbeat *heartbeat)
{
    double end = monotonic_seconds() + FAREWELL_SECONDS;
    for (unsigned i = 0; i < heartbeat->rendezvous->peers; i++) {
        int fd = heartbeat->rendezvous->peer[i].life;
        char bytes[REASON_MOST];
        if (fd < 0)
            continue;
        shutdown(fd, SHUT_WR);
        for (double left; (left = end - monotonic_seconds()) > 0;) {
            struct pollfd poll_for = {.fd = fd, .events = POLLIN};
            if (poll(&poll_for, 1, (int)(left * 1000) + 1) == 1 &&
                recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) <= 0)
                break;
        }
    }
}

/* Not with exit(): its handlers would free what other threads still use. */
_Noreturn void heartbeat_give_up(struct heartbeat *heartbeat, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    while (atomic_flag_test_and_set(&heartbeat->over))
        pause();
    char message[REASON_MOST] = {BYTE_END};
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

static void check_reading(struct heartbeat *heartbeat)
{
    pthread_mutex_lock(&heartbeat->mutex);
    if (heartbeat->tensor && monotonic_seconds() - heartbeat->begun > heartbeat->silence)
        heartbeat_give_up(heartbeat,
                          "%s: a read of it takes longer than %u seconds; does the disk or "
                          "the network hang? all ranks end",
                          heartbeat->tensor, heartbeat->silence);
    pthread_mutex_unlock(&heartbeat->mutex);
}

/* Read what peer i has sent, or notice that it closed its connection. */
static void listen_to(struct heartbeat *heartbeat, unsigned i)
{
    const struct peer *peer = &heartbeat->rendezvous->peer[i];
    struct peer_state *w = &heartbeat->state[i];
    char bytes[REASON_MOST];
    ssize_t got = recv(peer->life, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    signs_take(&w->signs, bytes, got > 0 ? (size_t)got : 0);
    w->done |= w->signs.done;
    w->heard = monotonic_seconds();
    if (got > 0)
        return;
    if (w->signs.ending)
        heartbeat_give_up(heartbeat, "rank %u says: %s", peer->rank, w->signs.reason);
    if (!w->done && !heartbeat->leaving)
        heartbeat_give_up(heartbeat, "rank %u has ended; its own message says why; all ranks end",
                          peer->rank);
    w->done = true;
}

static void check_all(struct heartbeat *heartbeat, const struct pollfd *polled)
{
    double now = monotonic_seconds();
    for (unsigned i = 0; i < heartbeat->rendezvous->peers; i++) {
        struct peer_state *w = &heartbeat->state[i];
        if (polled[i].revents)
            listen_to(heartbeat, i);
        else if (polled[i].fd < 0) /* it has not connected yet, or is done */
            w->heard = now;
        else if (now - w->heard > heartbeat->silence)
            heartbeat_give_up(heartbeat,
                              "rank %u has been silent for %u seconds (stopped, or its machine "
                              "hangs or is cut off); all ranks end",
                              heartbeat->rendezvous->peer[i].rank, heartbeat->silence);
    }
}

/* If this process was itself stopped for a while, the peers' silence starts again from now. */
static void forgive(struct heartbeat *heartbeat, double since)
{
    double now = monotonic_seconds();
    if (now - since <= heartbeat->silence / 2.0)
        return;
    for (unsigned i = 0; i < heartbeat->rendezvous->peers; i++)
        heartbeat->state[i].heard = now;
    pthread_mutex_lock(&heartbeat->mutex);
    heartbeat->begun = now;
    pthread_mutex_unlock(&heartbeat->mutex);
}

static bool all_done(const struct heartbeat *heartbeat)
{
    unsigned done = 0;
    for (unsigned i = 0; i < heartbeat->rendezvous->peers; i++)
        done += heartbeat->state[i].done;
    return done == heartbeat->rendezvous->peers;
}

/* Wait until a peer has sent something, this process is to leave, or `seconds` have passed; less
 * while one has not connected yet. */
static void wait_for(struct heartbeat *heartbeat, struct pollfd *polled, double seconds)
{
    unsigned peers = heartbeat->rendezvous->peers;
    int most = seconds > 0 ? (int)(seconds * 1000) + 1 : 0;
    for (unsigned i = 0; i < peers; i++) { /* poll() ignores a negative fd */
        int fd = heartbeat->rendezvous->peer[i].life;
        if (fd < 0 && most > ABSENT_MILLISECONDS)
            most = ABSENT_MILLISECONDS;
        polled[i] = (struct pollfd){.fd = heartbeat->state[i].done ? -1 : fd, .events = POLLIN};
    }
    polled[peers] =
        (struct pollfd){.fd = heartbeat->leaving ? -1 : heartbeat->wake, .events = POLLIN};
    poll(polled, peers + 1, most);
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
        check_all(heartbeat, polled);
        check_reading(heartbeat);
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
    heartbeat->state = xalloc(rendezvous->peers, sizeof *heartbeat->state);
    for (unsigned i = 0; i < rendezvous->peers; i++)
        heartbeat->state[i].heard = monotonic_seconds();
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
    free(heartbeat->state);
    free(heartbeat);
}
