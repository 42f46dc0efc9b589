#include "data/csv.h"

#include "base/memory.h"
#include "base/strbuf.h"

#include <stdlib.h>
#include <string.h>

/* One field at *at into b, without its quotes; moves behind its separator. 1 more follow, 0 the last, -1. */
static int field(char separator, const char **at, const char *end, sw_buf *b)
{
    const char *p = *at;
    sw_buf_clear(b);
    sw_buf_reserve(b, 0);
    b->at[0] = 0;
    if (p < end && *p == '"') {
        for (p++;; p++) {
            if (p == end)
                return sw_fail("a quote is not closed");
            if (*p == '"' && (p + 1 == end || p[1] != '"'))
                break;
            p += *p == '"';
            sw_buf_putc(b, *p);
        }
        p++;
        if (p < end && *p != separator)
            return sw_fail("text follows a closing quote; a quote inside a quoted field is written twice");
    } else {
        while (p < end && *p != separator)
            p++;
        sw_buf_add(b, *at, (size_t)(p - *at));
    }
    *at = p + 1;
    return p < end;
}

int sw_csv_header(sw_csv *c, const char *at, size_t n)
{
    sw_buf b = {0};
    const char *end = at + n;
    int more = 1;
    while (more > 0) {
        more = field(c->separator, &at, end, &b);
        if (more >= 0 && (!b.n || memchr(b.at, 0, b.n) || sw_utf8_valid_prefix(b.at, b.n) < b.n))
            more = sw_fail("the first row names the columns; the name of column %zu is %s", c->names.n + 1,
                           b.n ? "not valid UTF-8" : "empty");
        if (more >= 0)
            SW_PUSH(c->names, sw_strdup(b.at));
    }
    sw_buf_free(&b);
    return more;
}

cJSON *sw_csv_row(const sw_csv *c, const char *at, size_t n)
{
    cJSON *o = cJSON_CreateObject();
    sw_buf b = {0};
    const char *end = at + n;
    int more = 1;
    for (size_t i = 0; more > 0; i++) {
        more = field(c->separator, &at, end, &b);
        if (more >= 0 && i >= c->names.n)
            more = sw_fail("more fields than the %zu columns of the first row", c->names.n);
        if (more >= 0 && memchr(b.at, 0, b.n))
            more = sw_fail("a NUL byte");
        size_t good = more >= 0 ? sw_utf8_valid_prefix(b.at, b.n) : b.n;
        if (good < b.n)
            more = sw_fail("byte %zu: invalid UTF-8 (byte 0x%02x)", good, (unsigned char)b.at[good]);
        if (more < 0 && i < c->names.n)
            sw_fail_in("column \"%s\"", c->names.at[i]);
        if (more == 0 && i + 1 < c->names.n)
            more = sw_fail("%zu fields for the %zu columns of the first row", i + 1, c->names.n);
        if (more >= 0 && b.n)
            cJSON_AddStringToObject(o, c->names.at[i], b.at);
    }
    sw_buf_free(&b);
    if (more < 0) {
        cJSON_Delete(o);
        return NULL;
    }
    return o;
}

void sw_csv_free(sw_csv *c)
{
    for (size_t i = 0; i < c->names.n; i++)
        free(c->names.at[i]);
    free(c->names.at);
    c->names.at = NULL;
    c->names.n = c->names.cap = 0;
}
