#include "base/fileio.h"

#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

int sw_read_file(const char *path, sw_buf *b)
{
    bool standard = !strcmp(path, "-");
    FILE *f = standard ? stdin : fopen(path, "rb");
    if (!f)
        return sw_fail_errno("%s", path);
    struct stat st;
    if (!fstat(fileno(f), &st) && S_ISDIR(st.st_mode)) {
        if (!standard)
            fclose(f);
        return sw_fail("%s: is a folder, a file is needed", path);
    }
    for (;;) {
        sw_buf_reserve(b, 65536);
        size_t got = fread(b->at + b->n, 1, b->cap - b->n - 1, f);
        b->n += got;
        b->at[b->n] = 0;
        if (!got)
            break;
    }
    int bad = ferror(f) ? sw_fail_errno("%s", standard ? "standard input" : path) : 0;
    if (!standard)
        fclose(f);
    return bad;
}

bool sw_is_dir(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

bool sw_is_file(const char *path)
{
    struct stat st;
    return !stat(path, &st) && !S_ISDIR(st.st_mode);
}

int sw_mkdirs(const char *path)
{
    char *p = sw_strdup(path);
    int rc = 0;
    for (char *s = p + 1; rc == 0; s++) {
        if (*s && *s != '/')
            continue;
        char keep = *s;
        *s = 0;
        if (mkdir(p, 0777) && errno != EEXIST)
            rc = sw_fail_errno("%s: the folder cannot be made", p);
        else if (!keep && !sw_is_dir(p))
            rc = sw_fail("%s: exists and is not a folder", p);
        *s = keep;
        if (!keep)
            break;
    }
    free(p);
    return rc;
}

int sw_remove_tree(const char *path)
{
    struct stat st;
    if (lstat(path, &st))
        return errno == ENOENT ? 0 : sw_fail_errno("%s", path);
    if (S_ISDIR(st.st_mode)) {
        DIR *d = opendir(path);
        if (!d)
            return sw_fail_errno("%s", path);
        int rc = 0;
        for (struct dirent *e; !rc && (e = readdir(d));) {
            if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
                continue;
            char *child = sw_path_join(path, e->d_name);
            rc = sw_remove_tree(child);
            free(child);
        }
        closedir(d);
        if (rc)
            return rc;
    }
    return remove(path) ? sw_fail_errno("%s: cannot be removed", path) : 0;
}

char *sw_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return sw_strfmt("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

static int sync_path(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        return sw_fail_errno("%s", path);
    int rc = fsync(fd) && errno != EINVAL && errno != EROFS ? sw_fail_errno("%s: flush to disk", path) : 0;
    close(fd);
    return rc;
}

int sw_sync_dir(const char *path) { return sync_path(path, O_RDONLY | O_DIRECTORY); }

static int sync_parent(const char *path)
{
    char *p = sw_strdup(path), *slash = strrchr(p, '/');
    if (slash && slash > p)
        *slash = 0;
    int rc = sw_sync_dir(slash ? (slash > p ? p : "/") : ".");
    free(p);
    return rc;
}

int sw_out_open(sw_outfile *o, const char *path)
{
    *o = (sw_outfile){0};
    if (!strcmp(path, "-")) {
        o->f = stdout;
        return 0;
    }
    struct stat st;
    if (!stat(path, &st) && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) { /* a pipe or device: written directly */
        o->f = fopen(path, "wb");
        return o->f ? 0 : sw_fail_errno("%s", path);
    }
    o->path = sw_strdup(path);
    o->temporary = sw_strfmt("%s.tmp.%ld", path, (long)getpid());
    o->f = fopen(o->temporary, "wb");
    if (!o->f) {
        sw_fail_errno("%s: cannot be written", o->temporary);
        sw_out_abort(o);
        return -1;
    }
    return 0;
}

int sw_write_all(int fd, const void *bytes, size_t n)
{
    for (const char *at = bytes; n;) {
        ssize_t put = write(fd, at, n);
        if (put < 0 && errno != EINTR)
            return -1;
        at += put > 0 ? put : 0;
        n -= put > 0 ? (size_t)put : 0;
    }
    return 0;
}

int sw_out_write(sw_outfile *o, const void *bytes, size_t n)
{
    if (n && fwrite(bytes, 1, n, o->f) != n)
        return sw_fail_errno("%s: write", o->path ? o->path : "standard output");
    return 0;
}

int sw_out_commit(sw_outfile *o)
{
    const char *name = o->path ? o->path : "standard output";
    int rc = 0;
    if (fflush(o->f))
        rc = sw_fail_errno("%s: write", name);
    if (!rc && o->temporary) {
        if (fsync(fileno(o->f)) && errno != EINVAL)
            rc = sw_fail_errno("%s: flush to disk", name);
        int closed = fclose(o->f);
        o->f = NULL;
        if (!rc && closed)
            rc = sw_fail_errno("%s: write", name);
        if (!rc && rename(o->temporary, o->path))
            rc = sw_fail_errno("%s: cannot be put in place", name);
        if (!rc) {
            rc = sync_parent(o->path);
            free(o->temporary);
            o->temporary = NULL;
        }
    }
    sw_out_abort(o);
    return rc;
}

void sw_out_abort(sw_outfile *o)
{
    if (o->f && o->f != stdout)
        fclose(o->f);
    if (o->temporary)
        unlink(o->temporary);
    free(o->path);
    free(o->temporary);
    *o = (sw_outfile){0};
}

int sw_write_file(const char *path, const void *bytes, size_t n)
{
    sw_outfile o;
    if (sw_out_open(&o, path))
        return -1;
    if (sw_out_write(&o, bytes, n)) {
        sw_out_abort(&o);
        return -1;
    }
    return sw_out_commit(&o);
}

int sw_out_spares(const char *out, const char *input)
{
    struct stat to, from;
    if (!out || !strcmp(out, "-") || stat(out, &to) || stat(input, &from) || !S_ISREG(to.st_mode) || to.st_dev != from.st_dev || to.st_ino != from.st_ino)
        return 0;
    return sw_fail("%s: is read and would be overwritten; name another file to write", out);
}

int sw_outdir_begin(sw_outdir *o, const char *path)
{
    char *clean = sw_strdup(path);
    for (size_t n = strlen(clean); n > 1 && clean[n - 1] == '/'; n--)
        clean[n - 1] = 0;
    *o = (sw_outdir){clean, sw_strfmt("%s.tmp.%ld", clean, (long)getpid())};
    if (sw_remove_tree(o->temporary) || sw_mkdirs(o->temporary)) {
        sw_outdir_abort(o);
        return -1;
    }
    return 0;
}

static int sync_tree(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return sw_fail_errno("%s", path);
    int rc = 0;
    for (struct dirent *e; !rc && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        char *child = sw_path_join(path, e->d_name);
        rc = sw_is_dir(child) ? sync_tree(child) : sync_path(child, O_RDONLY);
        free(child);
    }
    closedir(d);
    return rc ? rc : sw_sync_dir(path);
}

/* rename cannot replace a folder that is not empty, so the two change names at once and the old one goes under the temporary
 * name. Where a file system cannot do that the old one steps aside first; a crash between those two renames leaves
 * "<path>.old.<pid>" and the complete new folder, never a mixture. */
static int replace_dir(sw_outdir *o)
{
    if (!renameat2(AT_FDCWD, o->temporary, AT_FDCWD, o->path, RENAME_EXCHANGE))
        return sync_parent(o->path) || sw_remove_tree(o->temporary) ? -1 : 0;
    char *old = sw_strfmt("%s.old.%ld", o->path, (long)getpid());
    int rc = rename(o->path, old) ? sw_fail_errno("%s: the old folder cannot be moved aside", o->path) : 0;
    if (!rc && rename(o->temporary, o->path)) {
        rc = sw_fail_errno("%s: cannot be put in place", o->path);
        if (rename(old, o->path))
            rc = sw_fail_in("the old folder is left as %s", old);
    }
    rc = rc || sync_parent(o->path) || sw_remove_tree(old) ? -1 : 0;
    free(old);
    return rc;
}

int sw_outdir_commit(sw_outdir *o)
{
    int rc = sync_tree(o->temporary);
    if (!rc && sw_is_dir(o->path))
        rc = replace_dir(o);
    else if (!rc)
        rc = rename(o->temporary, o->path) ? sw_fail_errno("%s: cannot be put in place", o->path) : sync_parent(o->path);
    sw_outdir_abort(o);
    return rc;
}

int sw_lock_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* stays open: the lock goes with the process */
    if (fd < 0)
        return sw_fail_errno("%s", path);
    return flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK ? sw_fail("%s: another process is writing to it", path) : 0;
}

int sw_sweep_temporaries(const char *dir)
{
    DIR *d = opendir(dir);
    int rc = d ? 0 : sw_fail_errno("%s", dir);
    for (struct dirent *e; !rc && d && (e = readdir(d));) {
        const char *mark = NULL;
        for (const char *at = e->d_name; (at = strstr(at, ".tmp.")); at++)
            mark = at + strlen(".tmp.");
        if (!mark || !*mark || strspn(mark, "0123456789") != strlen(mark) || strlen(mark) > 9)
            continue;
        if (!kill((pid_t)atol(mark), 0) || errno != ESRCH)
            continue; /* its process lives */
        char *path = sw_path_join(dir, e->d_name);
        rc = sw_remove_tree(path);
        free(path);
    }
    if (d)
        closedir(d);
    return rc;
}

void sw_outdir_abort(sw_outdir *o)
{
    if (o->temporary && sw_is_dir(o->temporary) && sw_remove_tree(o->temporary))
        sw_fail_in("left behind: %s", o->temporary);
    free(o->path);
    free(o->temporary);
    *o = (sw_outdir){0};
}

static sw_digest to_hex(XXH128_hash_t h)
{
    sw_digest d;
    snprintf(d.hex, sizeof d.hex, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
    return d;
}

sw_digest sw_digest_bytes(const void *bytes, size_t n) { return to_hex(XXH3_128bits(bytes, n)); }

int sw_digest_file(const char *path, sw_digest *out)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return sw_fail_errno("%s", path);
    XXH3_state_t *s = XXH3_createState();
    XXH3_128bits_reset(s);
    char block[65536];
    for (size_t n; (n = fread(block, 1, sizeof block, f));)
        XXH3_128bits_update(s, block, n);
    int rc = ferror(f) ? sw_fail_errno("%s", path) : 0;
    *out = to_hex(XXH3_128bits_digest(s));
    XXH3_freeState(s);
    fclose(f);
    return rc;
}
