#include "base/digest.h"

/* OpenSSL 3 still has these functions of the one algorithm. EVP's, where libcrypto is linked
 * statically, would pull in every other algorithm: 4 MB a program. */
#define OPENSSL_API_COMPAT 10101
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/die.h"

struct digest {
    enum digest_kind kind;
    SHA256_CTX sha256;
    XXH3_state_t *xxh128;
};

static void check(int success)
{
    if (success != 1)
        die("libcrypto cannot compute SHA-256 here");
}

struct digest *digest_new_of(enum digest_kind kind)
{
    struct digest *digest = xalloc(1, sizeof *digest);
    digest->kind = kind;
    if (kind == DIGEST_SHA256)
        check(SHA256_Init(&digest->sha256));
    else if (!(digest->xxh128 = XXH3_createState()) || XXH3_128bits_reset(digest->xxh128) != XXH_OK)
        die("out of memory");
    return digest;
}

struct digest *digest_new(void)
{
    return digest_new_of(DIGEST_SHA256);
}

void digest_add(struct digest *digest, const void *data, size_t size)
{
    if (digest->kind == DIGEST_SHA256)
        check(SHA256_Update(&digest->sha256, data, size));
    else
        XXH3_128bits_update(digest->xxh128, data, size);
}

size_t digest_digits(enum digest_kind kind)
{
    return (size_t)2 * (kind == DIGEST_SHA256 ? SHA256_DIGEST_LENGTH : sizeof(XXH128_canonical_t));
}

char *digest_end(struct digest *digest, char *hex)
{
    unsigned char hash[SHA256_DIGEST_LENGTH];
    if (digest->kind == DIGEST_SHA256) {
        check(SHA256_Final(hash, &digest->sha256));
    } else {
        XXH128_canonical_t canonical;
        XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(digest->xxh128));
        memcpy(hash, &canonical, sizeof canonical);
        XXH3_freeState(digest->xxh128);
    }
    for (size_t i = 0; i < digest_digits(digest->kind) / 2; i++)
        sprintf(hex + 2 * i, "%02x", hash[i]);
    free(digest);
    return hex;
}
