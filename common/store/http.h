/* HTTP over libcurl, which is loaded when the first request is made: a program that makes none starts as fast as one without
 * it. Redirects are followed (a token goes to no other host), proxies come from the environment as curl has them. */
#ifndef SW_STORE_HTTP_H
#define SW_STORE_HTTP_H

#include "base/error.h"
#include "base/strbuf.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct sw_http sw_http;

/* What a server said. */
typedef struct sw_http_reply {
    long status;                       /* of the last answer; 0: there was none */
    char *failure;                     /* why there is no whole answer ("Connection reset by peer"), or NULL */
    bool stopped;                      /* the body function ended it; failure is what it said */
    char *etag, *linked_etag;          /* without quotes; linked: of a first answer that redirects */
    char *error_code, *error_message;  /* X-Error-Code, X-Error-Message */
    int64_t length, linked_size;       /* of the body; -1: not said */
    int64_t range_start;               /* of a part (206); -1: not said */
    double retry_after;                /* seconds, 0: not said */
} sw_http_reply;

typedef struct sw_http_request {
    const char *url, *token; /* token: of an Authorization header, or NULL */
    int64_t from;            /* > 0: only the bytes from there on are wanted */
    bool head, no_redirect;
    /* Called with pieces of a body whose status is 200 or 206; reply->status and range_start are set. -1 ends the transfer. */
    int (*body)(void *user, const sw_http_reply *reply, const void *bytes, size_t n);
    void *user;
} sw_http_request;

/* NULL where libcurl cannot be loaded. */
sw_http *sw_http_open(void) SW_MUST_CHECK;
void sw_http_close(sw_http *h); /* ends what still runs */

/* Transfers that run side by side. The request's strings and user must live until it is done. */
typedef struct sw_http_transfer sw_http_transfer;
sw_http_transfer *sw_http_start(sw_http *h, const sw_http_request *r) SW_MUST_CHECK;
/* Works for at most `seconds`, or until something is done. *done: a transfer that ended, or NULL; its reply is valid until
 * _finish. Body functions are called from here. */
int sw_http_run(sw_http *h, double seconds, sw_http_transfer **done) SW_MUST_CHECK;
const sw_http_reply *sw_http_reply_of(const sw_http_transfer *t);
void sw_http_finish(sw_http *h, sw_http_transfer *t);

/* One request after the other: the whole body (at most 256 MiB) goes to *body. 0 for any status: look at *reply, to be freed by
 * _reply_free; -1 where there is no whole answer after several tries, or the user interrupts. */
int sw_http_get(sw_http *h, const char *url, const char *token, sw_buf *body, sw_http_reply *reply) SW_MUST_CHECK;
int sw_http_head(sw_http *h, const char *url, const char *token, sw_http_reply *reply) SW_MUST_CHECK; /* follows no redirect */
void sw_http_reply_free(sw_http_reply *reply);
/* Worth another try: no answer, or the server is busy. */
bool sw_http_may_retry(const sw_http_reply *reply);
/* Appends s with everything but letters, digits and -_.~ (and '/' where keep_slashes) as %XX. */
void sw_http_escape(sw_buf *b, const char *s, bool keep_slashes);

#endif
