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
#include <zlib.h>
#include <zstd.h>

enum { BLOCK = 256 << 10 };

struct sw_source {
    char *name;
    int fd;
    int64_t bytes, size;
    XXH3_state_t *digest;
    char *block; /* of a packed file: bytes that wait to be unpacked */
    size_t at, n;
    ZSTD_DCtx *zstd; /* both NULL: the bytes are plain */
    z_stream *gzip;
    const atomic_bool *stop;
    bool standard, regular, started, ended, again; /* again: a later pass, the digest is there */
    bool open_frame;                               /* the last zstd frame or gzip member is not complete */
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
        return sw_fail_null("%s: is a folder; give its files: %s/*.jsonl", path, path);
    }
    sw_source *s = SW_NEW(sw_source);
    s->name = sw_strdup(standard ? "standard input" : path);
    s->fd = fd;
    s->standard = standard;
    s->regular = S_ISREG(st.st_mode);
    s->size = s->regular ? (int64_t)st.st_size : 0;
    s->digest = XXH3_createState();
    XXH3_128bits_reset(s->digest);
    return s;
}

static void free_unpacker(sw_source *s)
{
    ZSTD_freeDCtx(s->zstd);
    s->zstd = NULL;
    if (s->gzip)
        inflateEnd(s->gzip);
    free(s->gzip);
    s->gzip = NULL;
    free(s->block);
    s->block = NULL;
}

void sw_source_release(sw_source *s)
{
    if (s->fd > STDIN_FILENO)
        close(s->fd);
    s->fd = -1;
    free_unpacker(s);
}

void sw_source_close(sw_source *s)
{
    if (!s)
        return;
    sw_source_release(s);
    XXH3_freeState(s->digest);
    free(s->name);
    free(s);
}

void sw_source_stop_when(sw_source *s, const atomic_bool *stop) { s->stop = stop; }
const char *sw_source_name(const sw_source *s) { return s->name; }
int64_t sw_source_bytes(const sw_source *s) { return s->bytes; }
int64_t sw_source_size(const sw_source *s) { return s->size; }

bool sw_source_is(const sw_source *s, const char *magic)
{
    char head[16];
    size_t n = strlen(magic);
    return s->regular && s->fd >= 0 && n <= sizeof head && pread(s->fd, head, n, 0) == (ssize_t)n &&
           !memcmp(head, magic, n);
}

int sw_source_rewind(sw_source *s)
{
    if (!s->regular)
        return sw_fail("%s: is a pipe, which can be read once only", s->name);
    if (s->fd < 0)
        s->fd = s->standard ? STDIN_FILENO : open(s->name, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0 || lseek(s->fd, 0, SEEK_SET) < 0)
        return sw_fail_errno("%s: to be read again", s->name);
    free_unpacker(s);
    s->at = s->n = 0;
    s->bytes = 0;
    s->started = s->ended = s->open_frame = false;
    s->again = true;
    return 0;
}

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
    if (!s->again)
        XXH3_128bits_update(s->digest, to, (size_t)got);
    s->bytes += got;
    return got;
}

/* Files that hold something else, and what to do about it. */
static const struct {
    const char *magic, *advice;
    size_t n;
} foreign[] = {
    {"BZh", "packed with bzip2; unpack it on the way in: bzcat FILE | ... -", 3},
    {"\xfd"
     "7zX",
     "packed with xz; unpack it on the way in: xzcat FILE | ... -", 4},
    {"PK\x03\x04", "a zip archive; unpack it on the way in: unzip -p FILE | ... -", 4},
    {"\xff\xfe", "UTF-16; UTF-8 is needed: iconv -f UTF-16 -t UTF-8 FILE | ... -", 2},
    {"\xfe\xff", "UTF-16; UTF-8 is needed: iconv -f UTF-16 -t UTF-8 FILE | ... -", 2},
    {"PAR1", "Parquet, which is read from its end: give the file, not a pipe", 4},
    {"ARROW1\0",
     "an Arrow file, which is not read; save it as JSON Lines (to_json of the Python library that wrote it)", 7},
    {"SQLite format 3", "an SQLite database; let sqlite3 write JSON: sqlite3 -json FILE 'select ...' | ... -", 15},
};

/* What kind of file it is shows in its first bytes; a pipe may hand them out one by one. */
static int start(sw_source *s, sw_buf *b)
{
    char head[16];
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
    bool gzip = n >= 2 && !memcmp(head, "\x1f\x8b", 2), zstd = n >= 4 && !memcmp(head, "\x28\xb5\x2f\xfd", 4);
    for (size_t i = 0; i < SW_COUNT(foreign); i++)
        if (n >= foreign[i].n && !memcmp(head, foreign[i].magic, foreign[i].n))
            return sw_fail("%s: is %s", s->name, foreign[i].advice);
    if (!gzip && !zstd) {
        sw_buf_add(b, head, n);
        s->ended = n < sizeof head;
        return 0;
    }
    if (zstd)
        s->zstd = ZSTD_createDCtx();
    else
        s->gzip = SW_NEW(z_stream);
    if (zstd ? !s->zstd : inflateInit2(s->gzip, 16 + MAX_WBITS) != Z_OK)
        return sw_fail("%s: out of memory for unpacking", s->name);
    s->block = sw_malloc(BLOCK);
    memcpy(s->block, head, n);
    s->n = n;
    s->open_frame = true;
    return 0;
}

/* Unpacks what waits in the block into at most BLOCK bytes at `to`: how many, or -1. */
static ssize_t unpack_zstd(sw_source *s, char *to)
{
    if (s->at == s->n && !s->open_frame)
        return 0;
    ZSTD_inBuffer in = {s->block, s->n, s->at};
    ZSTD_outBuffer out = {to, BLOCK, 0};
    size_t left = ZSTD_decompressStream(s->zstd, &out, &in);
    if (ZSTD_isError(left))
        return sw_fail("%s: zstd before byte %lld: %s", s->name, (long long)s->bytes, ZSTD_getErrorName(left));
    s->open_frame = left > 0;
    s->at = in.pos;
    return (ssize_t)out.pos;
}

/* A gzip file is members one behind the other (RFC 1952); zeros that fill up a tape's block may follow the last. */
static ssize_t unpack_gzip(sw_source *s, char *to)
{
    z_stream *z = s->gzip;
    if (!s->open_frame) {
        while (s->at < s->n && !s->block[s->at])
            s->at++;
        if (s->at == s->n)
            return 0;
        inflateReset(z);
        s->open_frame = true;
    }
    z->next_in = (Bytef *)s->block + s->at;
    z->avail_in = (uInt)(s->n - s->at);
    z->next_out = (Bytef *)to;
    z->avail_out = BLOCK;
    int rc = inflate(z, Z_NO_FLUSH);
    if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
        return sw_fail("%s: gzip before byte %lld: %s", s->name, (long long)s->bytes, z->msg ? z->msg : zError(rc));
    s->open_frame = rc != Z_STREAM_END;
    s->at = s->n - z->avail_in;
    return BLOCK - (ssize_t)z->avail_out;
}

static int unpack(sw_source *s, sw_buf *b)
{
    for (;;) {
        sw_buf_reserve(b, BLOCK);
        ssize_t got = s->zstd ? unpack_zstd(s, b->at + b->n) : unpack_gzip(s, b->at + b->n);
        if (got < 0)
            return -1;
        b->n += (size_t)got;
        if (got)
            return 1;
        if (s->at < s->n)
            continue;
        if (s->ended)
            return s->open_frame ? sw_fail("%s: the packed file is cut off at byte %lld", s->name, (long long)s->bytes)
                                 : 0;
        ssize_t more = take(s, s->block, BLOCK);
        if (more < 0)
            return -1;
        s->at = 0;
        s->n = (size_t)more;
        s->ended = !more;
    }
}

int sw_source_read(sw_source *s, sw_buf *b)
{
    size_t before = b->n;
    if (!s->started && start(s, b))
        return -1;
    if (s->zstd || s->gzip) {
        int rc = unpack(s, b);
        if (!rc)
            sw_source_release(s);
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
        sw_source_release(s);
    return b->n > before;
}
