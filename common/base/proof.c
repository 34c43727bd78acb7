#include "base/proof.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/die.h"

static const char variable[] = "SEEKPIPE_RANKS_SECRET";

static const char *secret(void)
{
    const char *text = getenv(variable);
    return text ? text : "";
}

bool proof_has_secret(void)
{
    return *secret();
}

void proof_nonce(unsigned char nonce[PROOF_NONCE])
{
    if (getrandom(nonce, PROOF_NONCE, 0) != PROOF_NONCE)
        die_errno("no random numbers");
}

void proof_new_secret(char text[PROOF_SECRET_TEXT])
{
    unsigned char random[PROOF_NONCE];
    proof_nonce(random);
    for (unsigned i = 0; i < PROOF_NONCE; i++)
        snprintf(text + (size_t)2 * i, 3, "%02x", random[i]);
    if (setenv(variable, text, 1))
        die("out of memory");
}

void proof_make(char side, const void *of, size_t size, unsigned char proof[PROOF_SIZE])
{
    const char *key = secret();
    unsigned char *text = xalloc(size + 1, 1);
    unsigned int length = 0;
    text[0] = (unsigned char)side;
    memcpy(text + 1, of, size);
    if (!HMAC(EVP_sha256(), key, (int)strlen(key), text, size + 1, proof, &length) ||
        length != PROOF_SIZE)
        die("HMAC-SHA256 is not available");
    free(text);
}

bool proof_equal(const unsigned char a[PROOF_SIZE], const unsigned char b[PROOF_SIZE])
{
    return !CRYPTO_memcmp(a, b, PROOF_SIZE);
}

/* The user of the socket with that own and other address, of the kernel's list; -1 if there is
 * none. It writes addresses as numbers of the machine. */
static long user_of(const struct sockaddr_in *own, const struct sockaddr_in *other)
{
    FILE *list = fopen("/proc/net/tcp", "re");
    char line[512];
    long user = -1;
    while (list && user < 0 && fgets(line, sizeof line, list)) {
        unsigned a, b, state, uid;
        unsigned own_port, other_port;
        if (sscanf(line, " %*u: %8x:%4x %8x:%4x %2x %*x:%*x %*x:%*x %*x %u", &a, &own_port, &b,
                   &other_port, &state, &uid) == 6 &&
            a == own->sin_addr.s_addr && own_port == ntohs(own->sin_port) &&
            b == other->sin_addr.s_addr && other_port == ntohs(other->sin_port))
            user = (long)uid;
    }
    if (list)
        fclose(list);
    return user;
}

bool proof_same_user(int fd)
{
    struct sockaddr_in here = {0}, there = {0};
    socklen_t size = sizeof here;
    if (getsockname(fd, (struct sockaddr *)&here, &size) || here.sin_family != AF_INET)
        return false;
    size = sizeof there;
    return !getpeername(fd, (struct sockaddr *)&there, &size) &&
           user_of(&there, &here) == (long)geteuid();
}
