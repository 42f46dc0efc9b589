#include "store/http.h"

#include "base/interrupt.h"
#include "base/library.h"
#include "base/log.h"
#include "base/memory.h"

#define CURL_DISABLE_TYPECHECK /* its macros do not reach functions behind pointers */
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { CONNECT_SECONDS = 20, STALL_SECONDS = 30, MOST_REDIRECTS = 10, TRIES = 5, LONGEST_BODY = 256 << 20 };

/* Functions of libcurl. A prototype that its header changes is an error when this file is compiled. */
#define FUNCTIONS(X)                                                                                                   \
    X(curl_global_init)                                                                                                \
    X(curl_easy_init) X(curl_easy_setopt) X(curl_easy_getinfo) X(curl_easy_cleanup) X(curl_easy_strerror)              \
    X(curl_slist_append) X(curl_slist_free_all)                                                                        \
    X(curl_multi_init) X(curl_multi_add_handle) X(curl_multi_remove_handle) X(curl_multi_perform) X(curl_multi_poll)   \
    X(curl_multi_info_read) X(curl_multi_cleanup) X(curl_multi_strerror)

static struct {
    bool loaded;
#define X(f) __typeof__(f) *f;
    FUNCTIONS(X)
#undef X
} c;

struct sw_http {
    CURLM *multi;
    struct { sw_http_transfer **at; size_t n, cap; } running;
};

struct sw_http_transfer {
    CURL *easy;
    struct curl_slist *headers;
    sw_http_request request;
    sw_http_reply reply;
    char detail[CURL_ERROR_SIZE];
};

static int load(void)
{
#define X(f) {#f, &c.f},
    static const sw_library_function functions[] = {FUNCTIONS(X)};
#undef X
    static const sw_library curl = {"libcurl", "downloads need libcurl", {"libcurl.so.4", "libcurl-gnutls.so.4"},
                                    functions, SW_COUNT(functions)};
    if (c.loaded)
        return 0;
    if (sw_library_load(&curl))
        return -1;
    if (c.curl_global_init(CURL_GLOBAL_DEFAULT))
        return sw_fail("libcurl cannot be started");
    c.loaded = true;
    return 0;
}

sw_http *sw_http_open(void)
{
    if (load())
        return NULL;
    sw_http *h = SW_NEW(sw_http);
    h->multi = c.curl_multi_init();
    if (h->multi)
        return h;
    free(h);
    return sw_fail_null("libcurl cannot be started");
}

void sw_http_close(sw_http *h)
{
    if (!h)
        return;
    while (h->running.n)
        sw_http_finish(h, h->running.at[h->running.n - 1]);
    c.curl_multi_cleanup(h->multi);
    free(h->running.at);
    free(h);
}

/* ---- headers and bodies */

static void keep(char **to, const char *value, size_t n)
{
    if (n >= 2 && !strncmp(value, "W/", 2))
        value += 2, n -= 2;
    if (n >= 2 && value[0] == '"' && value[n - 1] == '"')
        value++, n -= 2;
    free(*to);
    *to = sw_strndup(value, n);
}

static int64_t whole_number(const char *s, size_t n)
{
    int64_t v = 0;
    if (!n || n > 18)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -1;
        v = 10 * v + (s[i] - '0');
    }
    return v;
}

static void forget(char **s)
{
    free(*s);
    *s = NULL;
}

static size_t on_header(char *line, size_t size, size_t count, void *user)
{
    sw_http_reply *r = &((sw_http_transfer *)user)->reply;
    size_t n = size * count, all = n;
    while (n && (line[n - 1] == '\r' || line[n - 1] == '\n' || line[n - 1] == ' '))
        n--;
    if (n > 5 && !strncmp(line, "HTTP/", 5)) { /* another answer; what a redirecting one linked to stays */
        const char *space = memchr(line, ' ', n);
        r->status = space ? atol(space + 1) : 0;
        r->length = r->range_start = -1;
        r->retry_after = 0;
        forget(&r->etag);
        forget(&r->error_code);
        forget(&r->error_message);
        return all;
    }
    const char *colon = memchr(line, ':', n);
    if (!colon)
        return all;
    size_t name_n = (size_t)(colon - line);
    const char *value = colon + 1;
    while (value < line + n && *value == ' ')
        value++;
    size_t value_n = (size_t)(line + n - value);
#define IS(text) (name_n == strlen(text) && !strncasecmp(line, text, name_n))
    if (IS("ETag"))
        keep(&r->etag, value, value_n);
    else if (IS("X-Linked-Etag"))
        keep(&r->linked_etag, value, value_n);
    else if (IS("X-Error-Code"))
        keep(&r->error_code, value, value_n);
    else if (IS("X-Error-Message"))
        keep(&r->error_message, value, SW_MIN(value_n, 300));
    else if (IS("Content-Length"))
        r->length = whole_number(value, value_n);
    else if (IS("X-Linked-Size"))
        r->linked_size = whole_number(value, value_n);
    else if (IS("Retry-After"))
        r->retry_after = (double)SW_MAX(whole_number(value, value_n), 0);
    else if (IS("Content-Range") && value_n > 6 && !strncasecmp(value, "bytes ", 6)) {
        const char *dash = memchr(value, '-', value_n);
        if (dash)
            r->range_start = whole_number(value + 6, (size_t)(dash - value - 6));
    }
#undef IS
    return all;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *user)
{
    sw_http_transfer *t = user;
    size_t n = size * count;
    if ((t->reply.status != 200 && t->reply.status != 206) || !t->request.body)
        return n; /* an error's page */
    if (t->request.body(t->request.user, &t->reply, bytes, n)) {
        t->reply.stopped = true;
        return 0;
    }
    return n;
}

/* ---- transfers */

sw_http_transfer *sw_http_start(sw_http *h, const sw_http_request *r)
{
    sw_http_transfer *t = SW_NEW(sw_http_transfer);
    t->request = *r;
    t->reply = (sw_http_reply){.length = -1, .linked_size = -1, .range_start = -1};
    t->easy = c.curl_easy_init();
    if (!t->easy) {
        free(t);
        return sw_fail_null("libcurl cannot be started");
    }
    /* nobody who began with TLS is led away from it */
    const char *protocols = sw_starts_with(r->url, "https:") ? "https" : "http,https";
    bool ok = true;
#define SET(option, value) ok &= c.curl_easy_setopt(t->easy, option, value) == CURLE_OK
    SET(CURLOPT_URL, r->url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_REDIR_PROTOCOLS_STR, protocols);
    SET(CURLOPT_FOLLOWLOCATION, r->no_redirect ? 0L : 1L);
    SET(CURLOPT_MAXREDIRS, (long)MOST_REDIRECTS);
    SET(CURLOPT_NOBODY, r->head ? 1L : 0L);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_USERAGENT, "swift");
    SET(CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
    SET(CURLOPT_LOW_SPEED_TIME, (long)STALL_SECONDS);
    SET(CURLOPT_BUFFERSIZE, 1L << 18);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_ERRORBUFFER, t->detail);
    SET(CURLOPT_PRIVATE, t);
    if (r->token) {
        char *line = sw_strfmt("Authorization: Bearer %s", r->token);
        t->headers = c.curl_slist_append(NULL, line);
        SET(CURLOPT_HTTPHEADER, t->headers);
        free(line);
    }
    if (r->from > 0) {
        char range[32];
        snprintf(range, sizeof range, "%lld-", (long long)r->from);
        SET(CURLOPT_RANGE, range);
    }
#undef SET
    if (!ok || c.curl_multi_add_handle(h->multi, t->easy)) {
        c.curl_easy_cleanup(t->easy);
        c.curl_slist_free_all(t->headers);
        free(t);
        return sw_fail_null("%s: libcurl does not take the request", r->url);
    }
    SW_PUSH(h->running, t);
    return t;
}

int sw_http_run(sw_http *h, double seconds, sw_http_transfer **done)
{
    int running, left;
    *done = NULL;
    CURLMcode rc = c.curl_multi_perform(h->multi, &running);
    CURLMsg *m = rc ? NULL : c.curl_multi_info_read(h->multi, &left);
    if (!rc && !m) {
        rc = c.curl_multi_poll(h->multi, NULL, 0, (int)(seconds * 1000), NULL);
        if (!rc)
            rc = c.curl_multi_perform(h->multi, &running);
        m = rc ? NULL : c.curl_multi_info_read(h->multi, &left);
    }
    if (rc)
        return sw_fail("libcurl: %s", c.curl_multi_strerror(rc));
    if (!m || m->msg != CURLMSG_DONE)
        return 0;
    CURLcode result = m->data.result;
    c.curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)done);
    sw_http_transfer *t = *done;
    if (result && !t->reply.stopped)
        t->reply.failure = sw_strdup(*t->detail ? t->detail : c.curl_easy_strerror(result));
    else if (result)
        t->reply.failure = sw_strdup(sw_error());
    return 0;
}

const sw_http_reply *sw_http_reply_of(const sw_http_transfer *t) { return &t->reply; }

void sw_http_finish(sw_http *h, sw_http_transfer *t)
{
    c.curl_multi_remove_handle(h->multi, t->easy);
    c.curl_easy_cleanup(t->easy);
    c.curl_slist_free_all(t->headers);
    for (size_t i = 0; i < h->running.n; i++)
        if (h->running.at[i] == t) {
            h->running.at[i] = h->running.at[--h->running.n];
            break;
        }
    sw_http_reply_free(&t->reply);
    free(t);
}

void sw_http_reply_free(sw_http_reply *r)
{
    free(r->failure);
    free(r->etag);
    free(r->linked_etag);
    free(r->error_code);
    free(r->error_message);
    *r = (sw_http_reply){0};
}

bool sw_http_may_retry(const sw_http_reply *r)
{
    if (r->stopped)
        return false;
    return r->failure || r->status == 0 || r->status == 408 || r->status == 429 || (r->status >= 500 && r->status != 501);
}

static int to_buffer(void *user, const sw_http_reply *reply, const void *bytes, size_t n)
{
    (void)reply;
    sw_buf *b = user;
    if (n > LONGEST_BODY - b->n)
        return sw_fail("the answer is longer than %d bytes", LONGEST_BODY);
    sw_buf_add(b, bytes, n);
    return 0;
}

static int blocking(sw_http *h, const sw_http_request *request, sw_buf *body, sw_http_reply *reply)
{
    *reply = (sw_http_reply){0};
    for (int k = 0;; k++) {
        if (body)
            sw_buf_clear(body);
        sw_http_transfer *t = sw_http_start(h, request), *done = NULL;
        if (!t)
            return -1;
        int rc = 0;
        while (!rc && !done)
            rc = sw_interrupted() ? sw_fail("interrupted") : sw_http_run(h, 0.2, &done);
        if (!rc) {
            sw_http_reply_free(reply);
            *reply = t->reply;
            t->reply = (sw_http_reply){0};
        }
        sw_http_finish(h, t);
        if (rc)
            return -1;
        bool last = k + 1 == (reply->status ? TRIES : 2); /* an address that does not answer will hardly do so soon */
        if (!reply->stopped && (!sw_http_may_retry(reply) || (last && !reply->failure)))
            return 0;
        if (last || reply->stopped) {
            sw_fail("%s: %s", request->url, reply->failure);
            sw_http_reply_free(reply);
            return -1;
        }
        double until = sw_now() + SW_MIN(SW_MAX(reply->retry_after, 0.25 * (1 << k)), 60.0);
        while (sw_now() < until && !sw_interrupted())
            usleep(50000);
    }
}

int sw_http_get(sw_http *h, const char *url, const char *token, sw_buf *body, sw_http_reply *reply)
{
    return blocking(h, &(sw_http_request){.url = url, .token = token, .body = to_buffer, .user = body}, body, reply);
}

int sw_http_head(sw_http *h, const char *url, const char *token, sw_http_reply *reply)
{
    return blocking(h, &(sw_http_request){.url = url, .token = token, .head = true, .no_redirect = true}, NULL, reply);
}

void sw_http_escape(sw_buf *b, const char *s, bool keep_slashes)
{
    for (; *s; s++) {
        bool plain = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') || strchr("-_.~", *s);
        if (plain || (keep_slashes && *s == '/'))
            sw_buf_putc(b, *s);
        else
            sw_buf_printf(b, "%%%02X", (unsigned char)*s);
    }
}
