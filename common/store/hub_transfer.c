/* Gets files into the cache: blobs/DIGEST, linked to from snapshots/COMMIT/NAME. A file comes as blobs/DIGEST.incomplete, to which
 * a later attempt or process adds, and takes its name when size and digest are right. .locks/ holds a lock a file, as other
 * programs that use the cache take it; nobody waits for one while holding another, so that two processes share the work. */
#include "store/hub_internal.h"

#include "base/fileio.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "store/content_hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { AT_ONCE = 4, TRIES = 6 };

/* PAUSED: between two attempts; RUNNING and PAUSED hold the lock. */
typedef enum state { WAITING, RUNNING, PAUSED, DONE } state;

typedef struct job {
    sw_hub_file *file;
    char *url, *blob, *incomplete, *lock_path, *link;
    state state;
    int lock, fd;
    sw_content_hash *hash;
    int64_t have, counted;   /* bytes in the incomplete file; those in the progress bar */
    int64_t have_at_start;   /* of this attempt */
    bool resumed, restarted; /* began with bytes of an earlier process; was begun anew because of them */
    int failures;            /* attempts in a row that brought nothing */
    double not_before;
    sw_http_transfer *transfer;
    struct transfer *all;
} job;

typedef struct transfer {
    const sw_hub_repo *repo;
    sw_http *http;
    const char *endpoint, *token, *commit;
    job *jobs;
    size_t n, running, done;
    double bytes, bytes_done;
    sw_progress progress;
    bool told_waiting;
} transfer;

static void count(job *j, int64_t have)
{
    j->all->bytes_done += (double)(have - j->counted);
    j->counted = have;
}

/* ---- one file */

static int begin_content(job *j)
{
    sw_content_hash_free(j->hash);
    j->have = j->have_at_start = 0;
    count(j, 0);
    j->hash = sw_content_hash_new(j->file->id, j->file->size);
    if (!j->hash)
        return sw_fail_in("%s", j->file->name);
    return ftruncate(j->fd, 0) ? sw_fail_errno("%s", j->incomplete) : 0;
}

/* What an earlier attempt left is kept, and read once for the digest. */
static int open_incomplete(job *j)
{
    struct stat st;
    j->fd = open(j->incomplete, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (j->fd < 0 || fstat(j->fd, &st))
        return sw_fail_errno("%s", j->incomplete);
    if (st.st_size > j->file->size)
        return begin_content(j);
    sw_content_hash_free(j->hash);
    j->have = 0;
    if (!(j->hash = sw_content_hash_new(j->file->id, j->file->size)))
        return sw_fail_in("%s", j->file->name);
    char *piece = sw_malloc(1 << 20);
    ssize_t got = 0;
    while (j->have < st.st_size && (got = pread(j->fd, piece, 1 << 20, j->have)) > 0) {
        sw_content_hash_add(j->hash, piece, (size_t)got);
        j->have += got;
    }
    free(piece);
    if (j->have < st.st_size)
        return sw_fail_errno("%s", j->incomplete);
    j->resumed |= j->have > 0;
    count(j, j->have);
    return 0;
}

static int on_body(void *user, const sw_http_reply *reply, const void *bytes, size_t n)
{
    job *j = user;
    if (j->have == j->have_at_start && reply->status == 200 && j->have && begin_content(j))
        return -1; /* the whole file, though a part was asked for */
    if (j->have == j->have_at_start && reply->status == 206 && reply->range_start != j->have)
        return sw_fail("bytes from %lld on were asked for, those from %lld on came", (long long)j->have, (long long)reply->range_start);
    if ((int64_t)n > j->file->size - j->have)
        return sw_fail("more than the %lld bytes that the hub announces came", (long long)j->file->size);
    for (size_t done = 0; done < n;) {
        ssize_t put = pwrite(j->fd, (const char *)bytes + done, n - done, j->have + (int64_t)done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return sw_fail_errno("%s", j->incomplete);
        done += (size_t)put;
    }
    sw_content_hash_add(j->hash, bytes, n);
    j->have += (int64_t)n;
    count(j, j->have);
    return 0;
}

/* snapshots/COMMIT/[folder/]name -> ../../[../]blobs/DIGEST */
static int link_blob(const job *j)
{
    char *dir = sw_strdup(j->link), *temporary = sw_strfmt("%s.tmp.%ld", j->link, (long)getpid());
    *strrchr(dir, '/') = 0;
    sw_buf target = {0};
    sw_buf_puts(&target, "../../");
    for (const char *p = j->file->name; *p; p++)
        if (*p == '/')
            sw_buf_puts(&target, "../");
    sw_buf_printf(&target, "blobs/%s", j->file->id);
    int rc = sw_mkdirs(dir);
    unlink(temporary);
    if (!rc && (symlink(target.at, temporary) || rename(temporary, j->link)))
        rc = sw_fail_errno("%s: cannot be linked to its content", j->link);
    sw_buf_free(&target);
    free(temporary);
    free(dir);
    return rc;
}

static void let_go(job *j)
{
    if (j->fd >= 0)
        close(j->fd);
    if (j->lock >= 0)
        close(j->lock); /* the lock goes with it; its file stays, as others may wait for it */
    j->fd = j->lock = -1;
    sw_content_hash_free(j->hash);
    j->hash = NULL;
}

static int request(job *j)
{
    sw_http_request r = {.url = j->url, .token = j->all->token, .from = j->have, .body = on_body, .user = j};
    j->have_at_start = j->have;
    j->state = RUNNING;
    j->transfer = sw_http_start(j->all->http, &r);
    return j->transfer ? 0 : -1;
}

static int complete(job *j)
{
    char is[65];
    sw_content_hash *hash = j->hash;
    j->hash = NULL;
    if (!sw_content_hash_matches(hash, is)) {
        if (j->resumed && !j->restarted) { /* what was found here may be at fault */
            j->restarted = true;
            return begin_content(j) || request(j) ? -1 : 0;
        }
        unlink(j->incomplete);
        return sw_fail("%s: its digest is %s, the hub says %s: it is refused", j->url, is, j->file->id);
    }
    if (fsync(j->fd) && errno != EINVAL)
        return sw_fail_errno("%s: flush to disk", j->incomplete);
    if (rename(j->incomplete, j->blob))
        return sw_fail_errno("%s: cannot be put in place", j->blob);
    let_go(j);
    j->state = DONE;
    j->all->running--;
    j->all->done++;
    return link_blob(j);
}

static bool is_whole(const job *j)
{
    struct stat st;
    return !stat(j->blob, &st) && S_ISREG(st.st_mode) && st.st_size == j->file->size;
}

/* Whether another file of this run has the same content and is under way. */
static bool is_ours(const job *j)
{
    for (size_t i = 0; i < j->all->n; i++)
        if (&j->all->jobs[i] != j && j->all->jobs[i].lock >= 0 && !strcmp(j->all->jobs[i].file->id, j->file->id))
            return true;
    return false;
}

static int begin(job *j)
{
    if (is_whole(j)) {
        count(j, j->file->size);
        let_go(j);
        j->state = DONE;
        j->all->done++;
        return link_blob(j);
    }
    if (j->lock >= 0) { /* and there is still no such blob, now that the lock is held */
        j->all->running++;
        return open_incomplete(j) || (j->have == j->file->size ? complete(j) : request(j)) ? -1 : 0;
    }
    j->lock = open(j->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (j->lock < 0)
        return sw_fail_errno("%s", j->lock_path);
    if (!flock(j->lock, LOCK_EX | LOCK_NB))
        return begin(j);
    if (errno != EWOULDBLOCK)
        return sw_fail_errno("%s", j->lock_path);
    close(j->lock);
    j->lock = -1;
    j->not_before = sw_now() + 0.2;
    if (!j->all->told_waiting && !is_ours(j)) {
        sw_info("another process downloads %s; waiting for it", j->file->name);
        j->all->told_waiting = true;
    }
    return 0;
}

/* A transfer ended: done, to be tried again, or in vain. */
static int ended(job *j)
{
    const sw_http_reply *r = sw_http_reply_of(j->transfer);
    bool good = r->status == 200 || r->status == 206, whole = good && !r->failure && j->have == j->file->size;
    bool again = sw_http_may_retry(r) || (good && !r->failure) || r->status == 416;
    double wait = r->retry_after;
    int rc = 0;
    j->failures = j->have != j->have_at_start ? 0 : j->failures + 1;
    if (r->status == 416)
        rc = begin_content(j);
    if (!rc && !whole && (!again || j->failures >= TRIES)) {
        if (good && !r->failure)
            rc = sw_fail("%s: the connection brought %lld of %lld bytes", j->url, (long long)j->have, (long long)j->file->size);
        else
            rc = sw_hub_explain(j->all->repo, j->all->endpoint, j->all->token, j->url, r);
    }
    sw_http_finish(j->all->http, j->transfer);
    j->transfer = NULL;
    j->state = PAUSED;
    j->not_before = sw_now() + SW_MAX(wait, 0.25 * (1 << SW_MIN(j->failures, 6)));
    return rc ? rc : whole ? complete(j) : 0;
}

/* ---- all of them */

static job *job_of(const transfer *t, const sw_http_transfer *done)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->jobs[i].transfer == done)
            return &t->jobs[i];
    return NULL;
}

static int run(transfer *t)
{
    sw_progress_begin(&t->progress, "downloading", "MB", t->bytes / 1e6);
    while (t->done < t->n) {
        double now = sw_now();
        for (size_t i = 0; i < t->n; i++) {
            job *j = &t->jobs[i];
            bool due = now >= j->not_before;
            if ((due && j->state == PAUSED && request(j)) || (due && j->state == WAITING && t->running < AT_ONCE && begin(j)))
                return -1;
        }
        sw_http_transfer *done = NULL;
        if (t->running && sw_http_run(t->http, 0.1, &done))
            return -1;
        if (!t->running && t->done < t->n)
            usleep(50000);
        if (done && ended(job_of(t, done)))
            return -1;
        sw_progress_update(&t->progress, t->bytes_done / 1e6, NULL);
        if (sw_interrupted())
            return sw_fail("interrupted; what has come is kept, and the next run goes on from there");
    }
    sw_progress_end(&t->progress);
    return 0;
}

/* Size and digest, where the list did not have them. */
static int ask_about(transfer *t, sw_hub_file *file, const char *url)
{
    sw_http_reply r;
    if (sw_http_head(t->http, url, t->token, &r))
        return -1;
    const char *id = r.linked_etag ? r.linked_etag : r.etag;
    int rc = 0;
    if (r.status >= 400)
        rc = sw_hub_explain(t->repo, t->endpoint, t->token, url, &r);
    else if (!id || !sw_content_id_valid(id))
        rc = sw_fail("%s: the hub says no digest of it, so that it cannot be checked", url);
    else if ((file->size = r.linked_size >= 0 ? r.linked_size : r.length) < 0)
        rc = sw_fail("%s: the hub does not say its size", url);
    else if (!file->id)
        file->id = sw_strdup(id);
    sw_http_reply_free(&r);
    return rc;
}

static int prepare(transfer *t, job *j, sw_hub_file *file)
{
    sw_buf url = {0};
    sw_buf_printf(&url, "%s/%s/resolve/%s/", t->endpoint, t->repo->id, t->commit);
    sw_http_escape(&url, file->name, true);
    *j = (job){.file = file, .url = sw_buf_take(&url), .lock = -1, .fd = -1, .all = t};
    j->link = sw_strfmt("%s/snapshots/%s/%s", t->repo->folder, t->commit, file->name);
    if ((!file->id || file->size < 0) && ask_about(t, file, j->url))
        return -1;
    j->blob = sw_strfmt("%s/blobs/%s", t->repo->folder, file->id);
    j->incomplete = sw_strfmt("%s.incomplete", j->blob);
    j->lock_path = sw_strfmt("%s/.locks%s/%s.lock", t->repo->cache, strrchr(t->repo->folder, '/'), file->id);
    t->bytes += (double)file->size;
    return 0;
}

static int check_space(const transfer *t)
{
    struct statvfs fs;
    double need = 0;
    char a[32], b[32];
    for (size_t i = 0; i < t->n; i++) {
        struct stat st;
        double have = !stat(t->jobs[i].incomplete, &st) ? (double)st.st_size : 0;
        need += is_whole(&t->jobs[i]) ? 0 : (double)t->jobs[i].file->size - have;
    }
    if (statvfs(t->repo->folder, &fs))
        return 0;
    double is_free = (double)fs.f_bavail * (double)fs.f_frsize;
    return need <= is_free ? 0 : sw_fail("%s: %s are needed, %s are free", t->repo->folder, sw_human_bytes(need, a), sw_human_bytes(is_free, b));
}

static int make_folders(const sw_hub_repo *repo)
{
    char *blobs = sw_path_join(repo->folder, "blobs"), *locks = sw_strfmt("%s/.locks%s", repo->cache, strrchr(repo->folder, '/'));
    int rc = sw_mkdirs(blobs) || sw_mkdirs(locks) ? -1 : 0;
    free(blobs);
    free(locks);
    return rc;
}

int sw_hub_transfer(const sw_hub_repo *repo, sw_http *h, const char *endpoint, const char *token, const char *commit, const sw_hub_files *files)
{
    transfer t = {.repo = repo, .http = h, .endpoint = endpoint, .token = token, .commit = commit};
    int rc = make_folders(repo);
    t.jobs = SW_NEW_ARRAY(job, files->n + 1);
    for (size_t i = 0; i < files->n && !rc; i++)
        rc = prepare(&t, &t.jobs[t.n++], files->at[i]);
    rc = rc || check_space(&t) || (files->n && run(&t)) ? -1 : 0;
    for (size_t i = 0; i < t.n; i++) {
        job *j = &t.jobs[i];
        if (j->transfer)
            sw_http_finish(h, j->transfer);
        let_go(j);
        free(j->url);
        free(j->blob);
        free(j->incomplete);
        free(j->lock_path);
        free(j->link);
    }
    free(t.jobs);
    return rc;
}
