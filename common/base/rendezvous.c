#include "base/rendezvous.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/die.h"
#include "base/hello.h"
#include "base/proof.h"

/* CALLERS: that are heard at a time; of more, the one that called first is dropped. */
enum { HELLO_SECONDS = 5, RETRY_MICROSECONDS = 100000, CALLERS = 64 };

double monotonic_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Timeout of sending (and connecting) and of receiving; 0: none. */
static void set_timeout(int fd, unsigned seconds)
{
    const struct timeval timeout = {.tv_sec = seconds};
    int yes = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes))
        die_errno("a connection between ranks");
}

/* The addresses of a host, or (NULL) those to listen on; freeaddrinfo() frees them. */
static struct addrinfo *addresses(const char *host, const char *port)
{
    const struct addrinfo hints = {.ai_family = host ? AF_UNSPEC : AF_INET6,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = host ? 0 : AI_PASSIVE};
    struct addrinfo *found;
    int error = getaddrinfo(host, port, &hints, &found);
    if (error && !host) { /* a machine without IPv6 */
        const struct addrinfo old = {
            .ai_family = AF_INET, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
        error = getaddrinfo(host, port, &old, &found);
    }
    if (error)
        die("MASTER_ADDR %s, port %s: %s", host ? host : "(any)", port, gai_strerror(error));
    return found;
}

/* ---- rank 0 ---- */

static int open_listener(const struct addrinfo *address)
{
    int yes = 1, no = 0;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (address->ai_family == AF_INET6) /* IPv4 too */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    if (!bind(fd, address->ai_addr, address->ai_addrlen) && !listen(fd, SOMAXCONN))
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* True if a host is this machine wherever it is looked up: localhost, or an address of loopback.
 * Other names are not, even where they resolve to one: Debian's /etc/hosts gives a machine's own
 * name 127.0.1.1, and others know it by another address. */
static bool is_loopback(const char *host)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST};
    struct addrinfo *found;
    if (!strcasecmp(host, "localhost"))
        return true;
    if (getaddrinfo(host, NULL, &hints, &found))
        return false;
    const struct in_addr *v4 = &((const struct sockaddr_in *)found->ai_addr)->sin_addr;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)found->ai_addr)->sin6_addr;
    bool is = found->ai_family == AF_INET ? ntohl(v4->s_addr) >> 24 == IN_LOOPBACKNET
                                          : IN6_IS_ADDR_LOOPBACK(v6);
    freeaddrinfo(found);
    return is;
}

/* With all ranks on this machine, other machines cannot connect. */
static bool is_local(const struct launch *launch)
{
    return launch->together || !launch->host || is_loopback(launch->host);
}

/* The host's name may resolve to another address on the host itself, so it listens on all
 * addresses. */
static int listen_for(const struct launch *launch)
{
    struct addrinfo *address = addresses(is_local(launch) ? "127.0.0.1" : NULL, launch->port);
    int fd = open_listener(address);
    freeaddrinfo(address);
    if (fd < 0)
        die_errno("cannot listen on port %s, where the other ranks connect; does another "
                  "run use it? set $MASTER_PORT for all",
                  launch->port);
    return fd;
}

/* One that connected, and what it has sent so far. */
struct caller {
    int fd; /* -1: none */
    double until;
    struct heard heard;
};

struct listener {
    int fd;
    struct caller caller[CALLERS];
    unsigned strangers; /* that were dropped */
};

static void drop(struct listener *listener, struct caller *caller)
{
    close(caller->fd);
    caller->fd = -1;
    listener->strangers++;
}

static void accept_one(struct listener *listener)
{
    struct caller *place = listener->caller;
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    for (unsigned i = 0; i < CALLERS && place->fd >= 0; i++) {
        struct caller *other = &listener->caller[i];
        if (other->fd < 0 || other->until < place->until)
            place = other;
    }
    if (place->fd >= 0)
        drop(listener, place);
    *place = (struct caller){.fd = fd, .until = monotonic_seconds() + HELLO_SECONDS};
}

/* Answer a hello. False if the other end is another user's. */
static bool answer(struct caller *caller)
{
    struct answer answer;
    if (!proof_has_secret() && !proof_same_user(caller->fd))
        return false;
    hello_answer(&caller->heard, &answer);
    return send(caller->fd, &answer, sizeof answer, MSG_NOSIGNAL) == (ssize_t)sizeof answer;
}

/* Hear more of a caller, without waiting. */
static enum hello_state hear(struct caller *caller)
{
    size_t room;
    void *to = hello_room(&caller->heard, &room);
    ssize_t got = recv(caller->fd, to, room, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return HELLO_PART;
    if (got <= 0)
        return HELLO_STRANGER;
    enum hello_state state = hello_take(&caller->heard, (size_t)got);
    return state == HELLO_WHOLE && !answer(caller) ? HELLO_STRANGER : state;
}

/* The peer that a caller is, which has proven it, and in *channel which of its connections this is.
 * If its rank or run is none of this, that is a mistake, which ends the run. */
static struct peer *peer_of(struct rendezvous *rendezvous, const struct launch *launch,
                            const struct hello *hello, enum channel *channel)
{
    unsigned rank;
    if (!hello_is_of(hello, launch->count, &rank, channel))
        die("rank %u of %u connected, but this is a run of %u; if another uses port %s too, set "
            "$MASTER_PORT",
            rank, ntohl(hello->count), launch->count, launch->port);
    struct peer *peer = &rendezvous->peer[rank - 1];
    if ((*channel == CHANNEL_LIFE ? peer->life : peer->data) >= 0)
        die("two processes say that they are rank %u; if another run uses port %s too, set "
            "$MASTER_PORT",
            rank, launch->port);
    return peer;
}

/* A caller has sent all: true if it is one of this run's. */
static bool admit(struct rendezvous *rendezvous, struct listener *listener, struct caller *caller,
                  const struct launch *launch)
{
    const struct heard *heard = &caller->heard;
    enum channel channel;
    if (!hello_is_proven(heard)) {
        drop(listener, caller);
        return false;
    }
    struct peer *peer = peer_of(rendezvous, launch, &heard->seen.hello, &channel);
    fcntl(caller->fd, F_SETFL, 0); /* blocking again */
    set_timeout(caller->fd, 0);
    if (channel == CHANNEL_LIFE)
        peer->life = caller->fd;
    else
        peer->data = caller->fd;
    caller->fd = -1;
    return true;
}

_Noreturn static void die_missing(const struct rendezvous *rendezvous,
                                  const struct listener *listener, unsigned seconds)
{
    unsigned missing = 0, first = 0;
    for (unsigned i = rendezvous->peers; i-- > 0;)
        if (rendezvous->peer[i].life < 0 || rendezvous->peer[i].data < 0) {
            missing++;
            first = rendezvous->peer[i].rank;
        }
    char *strangers = listener->strangers
                          ? xprintf(" (dropped connections of other users, or without the same "
                                    "$SEEKPIPE_RANKS_SECRET: %u)",
                                    listener->strangers)
                          : xstrdup("");
    die("rank %u%s did not connect within %u seconds%s; did it start, with the same MASTER_ADDR "
        "and MASTER_PORT?",
        first, missing > 1 ? " (and others)" : "", seconds, strangers);
}

/* Wait until a caller, or a new one, has something to say, for at most `seconds`; then hear them.
 * Returns how many were admitted. */
static unsigned serve(struct rendezvous *rendezvous, struct listener *listener,
                      const struct launch *launch, double seconds)
{
    struct pollfd poll_for[CALLERS + 1];
    unsigned admitted = 0;
    double now = monotonic_seconds();
    for (unsigned i = 0; i < CALLERS; i++) {
        struct caller *caller = &listener->caller[i];
        if (caller->fd >= 0 && caller->until < now)
            drop(listener, caller);
        if (caller->fd >= 0 && caller->until - now < seconds)
            seconds = caller->until - now;
        poll_for[i] = (struct pollfd){.fd = caller->fd, .events = POLLIN};
    }
    poll_for[CALLERS] = (struct pollfd){.fd = listener->fd, .events = POLLIN};
    if (poll(poll_for, CALLERS + 1, (int)(seconds * 1000) + 1) <= 0)
        return 0;
    for (unsigned i = 0; i < CALLERS; i++) {
        struct caller *caller = &listener->caller[i];
        if (caller->fd < 0 || !poll_for[i].revents)
            continue;
        enum hello_state state = hear(caller);
        if (state == HELLO_STRANGER)
            drop(listener, caller);
        else if (state == HELLO_ALL)
            admitted += admit(rendezvous, listener, caller, launch);
    }
    if (poll_for[CALLERS].revents)
        accept_one(listener);
    return admitted;
}

/* Wait for all, then tell them that all are connected. Returns one whose connection broke, or NULL.
 */
static const struct peer *gather(struct rendezvous *rendezvous, const struct launch *launch,
                                 unsigned seconds)
{
    struct listener listener = {.fd = listen_for(launch)};
    double end = monotonic_seconds() + seconds, left;
    for (unsigned i = 0; i < CALLERS; i++)
        listener.caller[i].fd = -1;
    if (!is_local(launch) && !proof_has_secret()) {
        char secret[PROOF_SECRET_TEXT];
        proof_new_secret(secret);
        warn("waiting for ranks that prove to be of this run; start the others with "
             "SEEKPIPE_RANKS_SECRET=%s, or all with a secret of your own",
             secret);
    }
    for (unsigned wanted = 2 * rendezvous->peers; wanted;) {
        if ((left = end - monotonic_seconds()) < 0)
            die_missing(rendezvous, &listener, seconds);
        wanted -= serve(rendezvous, &listener, launch, left);
    }
    for (unsigned i = 0; i < CALLERS; i++)
        if (listener.caller[i].fd >= 0)
            drop(&listener, &listener.caller[i]);
    close(listener.fd);
    if (listener.strangers)
        warn("%u connections of strangers were dropped", listener.strangers);
    for (unsigned i = 0; i < rendezvous->peers; i++)
        if (send(rendezvous->peer[i].data, "", 1, MSG_NOSIGNAL) != 1)
            return &rendezvous->peer[i];
    return NULL;
}

/* ---- the others ---- */

static int try_addresses(const struct addrinfo *address)
{
    for (; address; address = address->ai_next) {
        int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            continue;
        set_timeout(fd, HELLO_SECONDS);
        if (!connect(fd, address->ai_addr, address->ai_addrlen))
            return fd;
        int error = errno;
        close(fd);
        errno = error;
    }
    return -1;
}

/* Say who this is, and prove it once rank 0 has proven itself. False if it did not answer; errno is
 * EAGAIN if it did not hang up either. */
static bool greet(int fd, const struct launch *launch, enum channel channel)
{
    struct hello hello;
    struct answer answer;
    unsigned char proof[PROOF_SIZE];
    if (!proof_has_secret() && !proof_same_user(fd)) {
        if (channel == CHANNEL_DATA) /* rank 0 has proven itself already, but may end just now */
            return false;
        die("port %s of this machine is another user's, or of a run with another $MASTER_ADDR; set "
            "both to the same for all ranks of a run",
            launch->port);
    }
    hello_make(&hello, launch->count, launch->rank, channel);
    (void)!send(fd, &hello, sizeof hello, MSG_NOSIGNAL);
    ssize_t got = recv(fd, &answer, sizeof answer, MSG_WAITALL);
    if (got != (ssize_t)sizeof answer) {
        errno = got < 0 ? errno : ECONNRESET;
        return false;
    }
    if (!hello_is_answered(&hello, &answer, proof))
        die("port %s is not of this run: what answers has another $SEEKPIPE_RANKS_SECRET%s",
            launch->port,
            proof_has_secret() ? "" : "; set it to what rank 0 has, which prints one that it made");
    return send(fd, proof, sizeof proof, MSG_NOSIGNAL) == (ssize_t)sizeof proof;
}

/* True if rank 0 hung up on the channel `life`; -1: there is none yet. */
static bool has_ended(int life)
{
    char byte;
    ssize_t got = life >= 0 ? recv(life, &byte, 1, MSG_PEEK | MSG_DONTWAIT) : 1;
    return !got || (got < 0 && errno != EAGAIN && errno != EINTR);
}

/* Connect to rank 0, retrying until the time `end`, as it may not listen yet, or be busy with
 * others, or for `silence` seconds if it listens but is silent; -1 if it does not answer, or ended
 * after `life` was connected. */
static int call(const struct launch *launch, const struct addrinfo *address, enum channel channel,
                int life, double end, unsigned silence)
{
    double heard = monotonic_seconds();
    for (;;) {
        int fd = try_addresses(address);
        if (fd >= 0 && greet(fd, launch, channel))
            return fd;
        int error = fd >= 0 && errno == EAGAIN ? ETIMEDOUT : errno;
        double now = monotonic_seconds();
        if (fd < 0 || error != ETIMEDOUT)
            heard = now;
        if (fd >= 0)
            close(fd);
        errno = error;
        if (now >= end || now - heard > silence || has_ended(life))
            return -1;
        usleep(RETRY_MICROSECONDS);
    }
}

/* Returns rank 0 if its connection broke before all were connected, or NULL. */
static const struct peer *join(struct peer *peer, const struct launch *launch, unsigned seconds,
                               unsigned silence)
{
    if (!is_local(launch) && !proof_has_secret())
        die("rank 0 is at %s, perhaps another machine, and must see a proof that this is of its "
            "run; "
            "set $SEEKPIPE_RANKS_SECRET: to what rank 0 prints, or for all ranks to a secret of "
            "your own",
            launch->host);
    const char *host = is_local(launch) ? "127.0.0.1" : launch->host;
    struct addrinfo *address = addresses(host, launch->port);
    char all_here;
    double end = monotonic_seconds() + seconds;
    int life = call(launch, address, CHANNEL_LIFE, -1, end, silence);
    if (life < 0)
        die_errno("rank 0 does not answer at %s, port %s; did it start?", host, launch->port);
    peer->life = life;
    peer->data = call(launch, address, CHANNEL_DATA, life, end, silence);
    freeaddrinfo(address);
    if (peer->data >= 0) /* rank 0 itself waits no longer than it should, and says who is missing */
        set_timeout(peer->data, 0);
    return peer->data >= 0 && recv(peer->data, &all_here, 1, 0) == 1 ? NULL : peer;
}

/* ---- both ---- */

void rendezvous_begin(struct rendezvous *rendezvous, const struct launch *launch)
{
    rendezvous->peers = launch->rank ? 1 : launch->count - 1;
    rendezvous->peer = xalloc(rendezvous->peers, sizeof *rendezvous->peer);
    for (unsigned i = 0; i < rendezvous->peers; i++)
        rendezvous->peer[i] =
            (struct peer){.rank = launch->rank ? 0 : i + 1, .life = -1, .data = -1};
}

const struct peer *rendezvous_meet(struct rendezvous *rendezvous, const struct launch *launch,
                                   unsigned seconds, unsigned silence)
{
    return launch->rank ? join(rendezvous->peer, launch, seconds, silence)
                        : gather(rendezvous, launch, seconds);
}

void rendezvous_close(struct rendezvous *rendezvous)
{
    for (unsigned i = 0; i < rendezvous->peers; i++) {
        close(rendezvous->peer[i].life);
        close(rendezvous->peer[i].data);
    }
    free(rendezvous->peer);
}
