#include "watch.h"

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

#include "die.h"

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

struct watch {
    const struct meeting *meeting;
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

static void tell_all(const struct watch *watch, const char *bytes, size_t count)
{
    for (unsigned i = 0; i < watch->meeting->peers; i++)
        (void)!send(watch->meeting->peer[i].life, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Closing a connection that has unread bytes would take from the other side what was sent last:
 * read until they are gone. */
static void wait_until_read(const struct watch *watch)
{
    double end = meet_clock() + FAREWELL_SECONDS;
    for (unsigned i = 0; i < watch->meeting->peers; i++) {
        int fd = watch->meeting->peer[i].life;
        char bytes[TEXT_MOST];
        shutdown(fd, SHUT_WR);
        for (double left; (left = end - meet_clock()) > 0;) {
            struct pollfd poll_for = {.fd = fd, .events = POLLIN};
            if (poll(&poll_for, 1, (int)(left * 1000) + 1) == 1 &&
                recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) <= 0)
                break;
        }
    }
}

/* Without exit(): other threads are at work, and would be surprised by its clearing up. */
_Noreturn void watch_give_up(struct watch *watch, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    while (atomic_flag_test_and_set(&watch->over))
        pause();
    char message[TEXT_MOST] = {BYTE_END};
    vsnprintf(message + 1, sizeof message - 1, format, args);
    va_end(args);
    warn("%s", message + 1);
    tell_all(watch, message, strlen(message));
    wait_until_read(watch);
    _exit(EXIT_FAILED);
}

_Noreturn void watch_lost(struct watch *watch, unsigned rank)
{
    sleep(FAREWELL_SECONDS);
    watch_give_up(watch, "the connection with rank %u broke; all ranks end", rank);
}

void watch_reading(struct watch *watch, const char *tensor)
{
    pthread_mutex_lock(&watch->mutex);
    watch->tensor = tensor;
    watch->begun = meet_clock();
    pthread_mutex_unlock(&watch->mutex);
}

static void look_at_reading(struct watch *watch)
{
    pthread_mutex_lock(&watch->mutex);
    if (watch->tensor && meet_clock() - watch->begun > watch->silence)
        watch_give_up(watch,
                      "%s: reading some of it takes longer than %u seconds; does the disk or "
                      "the network hang? all ranks end",
                      watch->tensor, watch->silence);
    pthread_mutex_unlock(&watch->mutex);
}

/* What peer i has sent; or that it has ended. */
static void listen_to(struct watch *watch, unsigned i)
{
    const struct peer *peer = &watch->meeting->peer[i];
    struct watched *w = &watch->watched[i];
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
    w->heard = meet_clock();
    if (got > 0)
        return;
    if (w->ending)
        watch_give_up(watch, "rank %u says: %s", peer->rank, w->text);
    if (!w->done && !watch->leaving)
        watch_give_up(watch, "rank %u has ended, its own message says why; all ranks end",
                      peer->rank);
    w->done = true;
}

static void look_at_all(struct watch *watch, const struct pollfd *polled)
{
    double now = meet_clock();
    for (unsigned i = 0; i < watch->meeting->peers; i++) {
        struct watched *w = &watch->watched[i];
        if (polled[i].revents)
            listen_to(watch, i);
        else if (!w->done && now - w->heard > watch->silence)
            watch_give_up(watch,
                          "rank %u has not been heard of for %u seconds (stopped, or its machine "
                          "hangs or is cut off); all ranks end",
                          watch->meeting->peer[i].rank, watch->silence);
    }
}

/* If this process was itself stopped for a while, the others have to be heard anew. */
static void forgive(struct watch *watch, double since)
{
    double now = meet_clock();
    if (now - since <= watch->silence / 2.0)
        return;
    for (unsigned i = 0; i < watch->meeting->peers; i++)
        watch->watched[i].heard = now;
    pthread_mutex_lock(&watch->mutex);
    watch->begun = now;
    pthread_mutex_unlock(&watch->mutex);
}

static bool all_done(const struct watch *watch)
{
    unsigned done = 0;
    for (unsigned i = 0; i < watch->meeting->peers; i++)
        done += watch->watched[i].done;
    return done == watch->meeting->peers;
}

/* Wait until a peer has something to say, this process is to leave, or `seconds` have passed. */
static void wait_for(struct watch *watch, struct pollfd *polled, double seconds)
{
    unsigned peers = watch->meeting->peers;
    for (unsigned i = 0; i < peers; i++) /* poll() leaves a negative one out */
        polled[i] = (struct pollfd){
            .fd = watch->watched[i].done ? -1 : watch->meeting->peer[i].life, .events = POLLIN};
    polled[peers] = (struct pollfd){.fd = watch->leaving ? -1 : watch->wake, .events = POLLIN};
    poll(polled, peers + 1, seconds > 0 ? (int)(seconds * 1000) + 1 : 0);
    watch->leaving |= polled[peers].revents != 0;
}

static void *run(void *context)
{
    struct watch *watch = context;
    struct pollfd *polled = xalloc(watch->meeting->peers + 1, sizeof *polled);
    const char lives = BYTE_LIVES;
    double interval = (double)watch->silence / BEATS, next = 0, looked = meet_clock(), end = 0;
    while (!watch->leaving || (!all_done(watch) && looked < end)) {
        double now = meet_clock();
        if (now >= next) {
            tell_all(watch, &lives, 1);
            next = now + interval;
        }
        wait_for(watch, polled, next - now);
        forgive(watch, looked);
        look_at_all(watch, polled);
        look_at_reading(watch);
        looked = meet_clock();
        if (watch->leaving && end <= 0)
            end = looked + FAREWELL_SECONDS;
    }
    free(polled);
    return NULL;
}

struct watch *watch_begin(const struct meeting *meeting, unsigned silence)
{
    struct watch *watch = xalloc(1, sizeof *watch);
    *watch = (struct watch){.meeting = meeting, .silence = silence, .over = ATOMIC_FLAG_INIT};
    watch->watched = xalloc(meeting->peers, sizeof *watch->watched);
    for (unsigned i = 0; i < meeting->peers; i++)
        watch->watched[i].heard = meet_clock();
    watch->wake = eventfd(0, EFD_CLOEXEC);
    pthread_mutex_init(&watch->mutex, NULL);
    if (watch->wake < 0)
        die_errno("an event");
    if (pthread_create(&watch->thread, NULL, run, watch))
        die("cannot start a thread; are there too many processes?");
    return watch;
}

void watch_end(struct watch *watch)
{
    const char done = BYTE_DONE;
    const uint64_t one = 1;
    tell_all(watch, &done, 1);
    if (write(watch->wake, &one, sizeof one) != (ssize_t)sizeof one)
        die_errno("an event");
    pthread_join(watch->thread, NULL);
    pthread_mutex_destroy(&watch->mutex);
    close(watch->wake);
    free(watch->watched);
    free(watch);
}
