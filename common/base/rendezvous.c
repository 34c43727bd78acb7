#include "base/rendezvous.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/die.h"

enum { HELLO_SECONDS = 5, RETRY_MICROSECONDS = 100000 };

/* What a rank sends first on each of its connections; numbers in network byte order. */
enum channel { CHANNEL_LIFE, CHANNEL_DATA };
static const char magic[8] = "seekrank";
struct hello {
    char magic[sizeof magic];
    uint32_t count, rank, channel;
};

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

/* With MASTER_ADDR on this machine, other machines cannot connect. */
static bool is_local(const char *host)
{
    return !host || !strcmp(host, "localhost") || !strcmp(host, "127.0.0.1");
}

/* The host's name may resolve to another address on the host itself, so it listens on all
 * addresses. */
static int listen_for(const struct launch *launch)
{
    struct addrinfo *address = addresses(is_local(launch->host) ? "127.0.0.1" : NULL, launch->port);
    int fd = open_listener(address);
    freeaddrinfo(address);
    if (fd < 0)
        die_errno("cannot listen on port %s, where the other ranks connect; does another "
                  "run use it? set $MASTER_PORT for all",
                  launch->port);
    return fd;
}

/* Read a peer's hello; false if it is not one. */
static bool receive_hello(int fd, struct hello *hello)
{
    set_timeout(fd, HELLO_SECONDS);
    bool all = recv(fd, hello, sizeof *hello, MSG_WAITALL) == (ssize_t)sizeof *hello;
    hello->count = ntohl(hello->count);
    hello->rank = ntohl(hello->rank);
    hello->channel = ntohl(hello->channel);
    return all && !memcmp(hello->magic, magic, sizeof magic) && hello->channel <= CHANNEL_DATA;
}

/* Accept a connection: true if it is one of this run's. */
static bool admit(struct rendezvous *rendezvous, int fd, const struct launch *launch)
{
    struct hello hello;
    if (!receive_hello(fd, &hello)) {
        close(fd);
        return false;
    }
    if (hello.count != launch->count || !hello.rank || hello.rank >= launch->count)
        die("rank %u of %u connected, but this is a run of %u; if another uses port %s too, set "
            "$MASTER_PORT",
            hello.rank, hello.count, launch->count, launch->port);
    struct peer *peer = &rendezvous->peer[hello.rank - 1];
    int *place = hello.channel == CHANNEL_LIFE ? &peer->life : &peer->data;
    if (*place >= 0)
        die("two processes say that they are rank %u; if another run uses port %s too, set "
            "$MASTER_PORT",
            hello.rank, launch->port);
    *place = fd;
    return true;
}

_Noreturn static void die_missing(const struct rendezvous *rendezvous, unsigned seconds)
{
    unsigned missing = 0, first = 0;
    for (unsigned i = rendezvous->peers; i-- > 0;)
        if (rendezvous->peer[i].life < 0 || rendezvous->peer[i].data < 0) {
            missing++;
            first = rendezvous->peer[i].rank;
        }
    die("rank %u%s did not connect within %u seconds; did it start, with the same MASTER_ADDR and "
        "MASTER_PORT?",
        first, missing > 1 ? " (and others)" : "", seconds);
}

/* Wait for all, then tell them that all are connected. */
static void gather(struct rendezvous *rendezvous, const struct launch *launch, unsigned seconds)
{
    int listener = listen_for(launch);
    double end = monotonic_seconds() + seconds;
    for (unsigned wanted = 2 * rendezvous->peers; wanted;) {
        double left = end - monotonic_seconds();
        struct pollfd poll_for = {.fd = listener, .events = POLLIN};
        if (left < 0)
            die_missing(rendezvous, seconds);
        if (poll(&poll_for, 1, (int)(left * 1000) + 1) <= 0)
            continue;
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            wanted -= admit(rendezvous, fd, launch);
    }
    close(listener);
    for (unsigned i = 0; i < rendezvous->peers; i++)
        if (send(rendezvous->peer[i].data, "", 1, MSG_NOSIGNAL) != 1)
            die("rank %u has ended already; its own message says why", rendezvous->peer[i].rank);
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

/* Connect to rank 0, retrying until the time `end`; -1 if it does not answer. */
static int call(const struct launch *launch, const struct addrinfo *address, enum channel channel,
                double end)
{
    int fd;
    while ((fd = try_addresses(address)) < 0 && monotonic_seconds() < end)
        usleep(RETRY_MICROSECONDS);
    struct hello hello = {
        .count = htonl(launch->count), .rank = htonl(launch->rank), .channel = htonl(channel)};
    memcpy(hello.magic, magic, sizeof magic);
    if (fd >= 0)
        (void)!send(fd, &hello, sizeof hello, MSG_NOSIGNAL); /* if this fails, so will the next recv
                                                              */
    return fd;
}

static void join(struct peer *peer, const struct launch *launch, unsigned seconds)
{
    const char *host = is_local(launch->host) ? "127.0.0.1" : launch->host;
    struct addrinfo *address = addresses(host, launch->port);
    char all_here;
    peer->life = call(launch, address, CHANNEL_LIFE, monotonic_seconds() + seconds);
    if (peer->life < 0)
        die_errno("rank 0 does not answer at %s, port %s; did it start?", host, launch->port);
    peer->data = call(launch, address, CHANNEL_DATA, 0);
    freeaddrinfo(address);
    if (peer->data >= 0) /* rank 0 itself says which rank is missing */
        set_timeout(peer->data, seconds + HELLO_SECONDS);
    if (peer->data < 0 || recv(peer->data, &all_here, 1, 0) != 1)
        die("rank 0 ended before all ranks had connected; its own message says why");
}

/* ---- both ---- */

void rendezvous_open(struct rendezvous *rendezvous, const struct launch *launch, unsigned seconds)
{
    rendezvous->peers = launch->rank ? 1 : launch->count - 1;
    rendezvous->peer = xalloc(rendezvous->peers, sizeof *rendezvous->peer);
    for (unsigned i = 0; i < rendezvous->peers; i++)
        rendezvous->peer[i] = (struct peer){launch->rank ? 0 : i + 1, -1, -1};
    if (launch->rank)
        join(rendezvous->peer, launch, seconds);
    else
        gather(rendezvous, launch, seconds);
    for (unsigned i = 0; i < rendezvous->peers; i++) {
        set_timeout(rendezvous->peer[i].life, 0);
        set_timeout(rendezvous->peer[i].data, 0);
    }
}

void rendezvous_close(struct rendezvous *rendezvous)
{
    for (unsigned i = 0; i < rendezvous->peers; i++) {
        close(rendezvous->peer[i].life);
        close(rendezvous->peer[i].data);
    }
    free(rendezvous->peer);
}
