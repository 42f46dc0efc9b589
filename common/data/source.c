#include "data/source.h"

#include "base/interrupt.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

enum { BLOCK = 256 << 10 };

struct sw_source {
    char *name;
    int fd;
    int64_t bytes, size;
    XXH3_state_t *digest;
    char *block; /* of a packed file: bytes that wait to be unpacked */
    size_t at, n;
    ZSTD_DCtx *zstd; /* NULL: the bytes are plain */
    const atomic_bool *stop;
    bool regular, started, ended;
    bool open_frame; /* the last zstd frame is not complete */
};

sw_source *sw_source_open(const char *path)
{
    bool standard = !strcmp(path, "-");
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        sw_fail_errno("%s", standard ? "standard input" : path);
        if (fd > STDIN_FILENO)
            close(fd);
        return NULL;
    }
    if (S_ISDIR(st.st_mode)) {
        if (!standard)
            close(fd);
        return sw_fail_null("%s: is a folder, a file is needed", path);
    }
    sw_source *s = SW_NEW(sw_source);
    s->name = sw_strdup(standard ? "standard input" : path);
    s->fd = fd;
    s->regular = S_ISREG(st.st_mode);
    s->size = s->regular ? (int64_t)st.st_size : 0;
    s->digest = XXH3_createState();
    XXH3_128bits_reset(s->digest);
    return s;
}

/* Gives back what only reading needs: a run may have more inputs than a process may have open files. */
static void release(sw_source *s)
{
    if (s->fd > STDIN_FILENO)
        close(s->fd);
    s->fd = -1;
    ZSTD_freeDCtx(s->zstd);
    s->zstd = NULL;
    free(s->block);
    s->block = NULL;
}

void sw_source_close(sw_source *s)
{
    if (!s)
        return;
    release(s);
    XXH3_freeState(s->digest);
    free(s->name);
    free(s);
}

void sw_source_stop_when(sw_source *s, const atomic_bool *stop) { s->stop = stop; }
const char *sw_source_name(const sw_source *s) { return s->name; }
int64_t sw_source_bytes(const sw_source *s) { return s->bytes; }
int64_t sw_source_size(const sw_source *s) { return s->size; }

sw_digest sw_source_digest(const sw_source *s)
{
    XXH128_hash_t h = XXH3_128bits_digest(s->digest);
    sw_digest d;
    snprintf(d.hex, sizeof d.hex, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
    return d;
}

/* Bytes of the file itself: how many, 0 at its end, -1. */
static ssize_t take(sw_source *s, char *to, size_t n)
{
    /* A signal may go to another thread than the one that reads, so waiting for a pipe looks up now and then. */
    struct pollfd p = {s->fd, POLLIN, 0};
    while (!s->regular && !(s->stop && *s->stop) && !sw_interrupted() && poll(&p, 1, 100) == 0)
        ;
    if (sw_interrupted() || (s->stop && *s->stop))
        return sw_fail("%s: interrupted", s->name);
    ssize_t got;
    while ((got = read(s->fd, to, n)) < 0 && errno == EINTR && !sw_interrupted())
        ;
    if (got < 0)
        return sw_fail_errno("%s: read", s->name);
    XXH3_128bits_update(s->digest, to, (size_t)got);
    s->bytes += got;
    return got;
}

/* What kind of file it is shows in its first bytes; a pipe may hand them out one by one. */
static int start(sw_source *s, sw_buf *b)
{
    char head[4];
    size_t n = 0;
    s->started = true;
    while (n < sizeof head) {
        ssize_t got = take(s, head + n, sizeof head - n);
        if (got < 0)
            return -1;
        if (!got)
            break;
        n += (size_t)got;
    }
    if (n >= 2 && !memcmp(head, "\x1f\x8b", 2))
        return sw_fail("%s: is packed with gzip; unpack it on the way in: zcat FILE | ... -", s->name);
    if (n >= 3 && !memcmp(head, "BZh", 3))
        return sw_fail("%s: is packed with bzip2; unpack it on the way in: bzcat FILE | ... -", s->name);
    if (n >= 2 && (!memcmp(head, "\xff\xfe", 2) || !memcmp(head, "\xfe\xff", 2)))
        return sw_fail("%s: is UTF-16; UTF-8 is needed: iconv -f UTF-16 -t UTF-8 FILE | ... -", s->name);
    if (n < 4 || memcmp(head, "\x28\xb5\x2f\xfd", 4)) {
        sw_buf_add(b, head, n);
        s->ended = n < sizeof head;
        return 0;
    }
    s->zstd = ZSTD_createDCtx();
    s->block = sw_malloc(BLOCK);
    memcpy(s->block, head, n);
    s->n = n;
    return 0;
}

static int unpack(sw_source *s, sw_buf *b)
{
    for (size_t before = b->n; b->n == before;) {
        if (s->at == s->n && !s->ended) {
            ssize_t got = take(s, s->block, BLOCK);
            if (got < 0)
                return -1;
            s->at = 0;
            s->n = (size_t)got;
            s->ended = !got;
        }
        if (s->ended)
            return s->open_frame ? sw_fail("%s: the zstd file is cut off at byte %lld", s->name, (long long)s->bytes)
                                 : 0;
        sw_buf_reserve(b, BLOCK);
        ZSTD_inBuffer in = {s->block, s->n, s->at};
        ZSTD_outBuffer out = {b->at + b->n, BLOCK, 0};
        size_t left = ZSTD_decompressStream(s->zstd, &out, &in);
        if (ZSTD_isError(left))
            return sw_fail("%s: zstd before byte %lld: %s", s->name, (long long)s->bytes, ZSTD_getErrorName(left));
        s->open_frame = left > 0;
        s->at = in.pos;
        b->n += out.pos;
    }
    return 1;
}

int sw_source_read(sw_source *s, sw_buf *b)
{
    size_t before = b->n;
    if (!s->started && start(s, b))
        return -1;
    if (s->zstd) {
        int rc = unpack(s, b);
        if (!rc)
            release(s);
        return rc;
    }
    if (!s->ended) {
        sw_buf_reserve(b, BLOCK);
        ssize_t got = take(s, b->at + b->n, BLOCK);
        if (got < 0)
            return -1;
        b->n += (size_t)got;
        s->ended = !got;
    }
    if (s->ended)
        release(s);
    return b->n > before;
}
