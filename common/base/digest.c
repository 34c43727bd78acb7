#include "base/digest.h"

/* OpenSSL 3 still has these functions of the one algorithm. EVP's, where libcrypto is linked
 * statically, would pull in every other algorithm: 4 MB a program. */
#define OPENSSL_API_COMPAT 10101
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/die.h"

struct digest {
    SHA256_CTX context;
};

static void check(int success)
{
    if (success != 1)
        die("libcrypto cannot compute SHA-256 here");
}

struct digest *digest_new(void)
{
    struct digest *digest = xalloc(1, sizeof *digest);
    check(SHA256_Init(&digest->context));
    return digest;
}

void digest_add(struct digest *digest, const void *data, size_t size)
{
    check(SHA256_Update(&digest->context, data, size));
}

char *digest_end(struct digest *digest, char *hex)
{
    unsigned char hash[SHA256_DIGEST_LENGTH];
    check(SHA256_Final(hash, &digest->context));
    for (unsigned i = 0; i < sizeof hash; i++)
        sprintf(hex + (size_t)2 * i, "%02x", hash[i]);
    free(digest);
    return hex;
}
