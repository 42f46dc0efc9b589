#include "store/content_hash.h"

#include "base/library.h"
#include "base/memory.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FUNCTIONS(X)                                                                                                   \
    X(EVP_MD_CTX_new) X(EVP_MD_CTX_free) X(EVP_DigestInit_ex) X(EVP_DigestUpdate) X(EVP_DigestFinal_ex) X(EVP_sha1) X(EVP_sha256)

static struct {
    bool loaded;
#define X(f) __typeof__(f) *f;
    FUNCTIONS(X)
#undef X
} c;

struct sw_content_hash {
    EVP_MD_CTX *state;
    char want[65];
};

static int load(void)
{
#define X(f) {#f, &c.f},
    static const sw_library_function functions[] = {FUNCTIONS(X)};
#undef X
    static const sw_library crypto = {"libcrypto", "downloads are checked with libcrypto",
                                      {"libcrypto.so.3", "libcrypto.so.1.1"}, functions, SW_COUNT(functions)};
    if (!c.loaded && sw_library_load(&crypto))
        return -1;
    c.loaded = true;
    return 0;
}

bool sw_content_id_valid(const char *id)
{
    size_t n = strspn(id, "0123456789abcdef");
    return !id[n] && (n == 40 || n == 64);
}

sw_content_hash *sw_content_hash_new(const char *id, int64_t size)
{
    if (!sw_content_id_valid(id))
        return sw_fail_null("'%s' is no digest", id);
    if (load())
        return NULL;
    sw_content_hash *h = SW_NEW(sw_content_hash);
    bool git = strlen(id) == 40;
    strcpy(h->want, id);
    h->state = c.EVP_MD_CTX_new();
    if (!h->state || !c.EVP_DigestInit_ex(h->state, git ? c.EVP_sha1() : c.EVP_sha256(), NULL)) {
        sw_content_hash_free(h);
        return sw_fail_null("libcrypto has no %s", git ? "SHA-1" : "SHA-256");
    }
    if (git) {
        char head[40];
        int n = snprintf(head, sizeof head, "blob %lld", (long long)size);
        sw_content_hash_add(h, head, (size_t)n + 1);
    }
    return h;
}

void sw_content_hash_add(sw_content_hash *h, const void *bytes, size_t n) { c.EVP_DigestUpdate(h->state, bytes, n); }

bool sw_content_hash_matches(sw_content_hash *h, char hex[65])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    c.EVP_DigestFinal_ex(h->state, digest, &n);
    for (unsigned i = 0; i < n && i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    bool same = !strcmp(hex, h->want);
    sw_content_hash_free(h);
    return same;
}

void sw_content_hash_free(sw_content_hash *h)
{
    if (!h)
        return;
    if (h->state)
        c.EVP_MD_CTX_free(h->state);
    free(h);
}
