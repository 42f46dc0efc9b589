#include "metrics.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/memory.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sw_metrics {
    int fd; /* written at once and whole: a signal that asks to save must not cut a record */
    bool failed;
    char *path;
};

/* Records of an earlier run up to a step. A last line without an end is one that a kill cut. */
static int keep_records(const char *path, int64_t last, int64_t last_eval)
{
    sw_buf all = {0}, kept = {0};
    int rc = sw_is_file(path) ? sw_read_file(path, &all) : 0;
    for (size_t at = 0; !rc && at < all.n;) {
        const char *end = memchr(all.at + at, '\n', all.n - at);
        if (!end)
            break;
        size_t n = (size_t)(end - (all.at + at)) + 1;
        cJSON *o = sw_json_parse(all.at + at, n);
        int64_t step = -1;
        const cJSON *kind = o ? sw_json_get(o, "kind") : NULL;
        bool eval = cJSON_IsString(kind) && !strcmp(kind->valuestring, "eval");
        if (o && !sw_json_i64(o, "step", 0, INT64_MAX / 2, 0, &step) && step <= last && (!eval || step <= last_eval))
            sw_buf_add(&kept, all.at + at, n);
        cJSON_Delete(o);
        at += n;
    }
    rc = rc ? rc : sw_write_file(path, kept.at ? kept.at : "", kept.n);
    sw_buf_free(&all);
    sw_buf_free(&kept);
    return rc;
}

sw_metrics *sw_metrics_open(const char *path, int64_t step, int64_t eval)
{
    bool out = !strcmp(path, "-");
    if (!out && step >= 0 && sw_is_file(path) && keep_records(path, step, eval))
        return NULL;
    int fd = out ? STDOUT_FILENO : open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (step >= 0 ? O_APPEND : O_TRUNC), 0666);
    if (fd < 0)
        return sw_fail_errno("%s", path), NULL;
    sw_metrics *m = SW_NEW(sw_metrics);
    *m = (sw_metrics){fd, false, sw_strdup(out ? "standard output" : path)};
    return m;
}

int sw_metrics_write(sw_metrics *m, const cJSON *record)
{
    sw_buf b = {0};
    sw_json_print(&b, record);
    sw_buf_putc(&b, '\n');
    int rc = sw_write_all(m->fd, b.at, b.n) ? sw_fail_errno("%s: write", m->path) : 0;
    sw_buf_free(&b);
    m->failed |= rc != 0;
    return rc;
}

int sw_metrics_close(sw_metrics *m)
{
    if (!m)
        return 0;
    int rc = m->failed ? sw_fail("%s: not all could be written", m->path) : 0;
    if (m->fd != STDOUT_FILENO && close(m->fd) && !rc)
        rc = sw_fail_errno("%s: write", m->path);
    free(m->path);
    free(m);
    return rc;
}
