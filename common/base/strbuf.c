#include "base/strbuf.h"

#include "base/memory.h"

#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void sw_buf_reserve(sw_buf *b, size_t extra)
{
    if (b->n + extra + 1 > b->cap)
        sw_vec_grow((void **)&b->at, &b->cap, b->n + extra + 1, 1);
}

void sw_buf_add(sw_buf *b, const void *bytes, size_t n)
{
    sw_buf_reserve(b, n);
    if (n)
        memcpy(b->at + b->n, bytes, n);
    b->n += n;
    b->at[b->n] = 0;
}

void sw_buf_puts(sw_buf *b, const char *s) { sw_buf_add(b, s, strlen(s)); }
void sw_buf_putc(sw_buf *b, char c) { sw_buf_add(b, &c, 1); }

void sw_buf_printf(sw_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n > 0) {
        sw_buf_reserve(b, (size_t)n);
        vsnprintf(b->at + b->n, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
}

void sw_buf_clear(sw_buf *b)
{
    b->n = 0;
    if (b->at)
        b->at[0] = 0;
}

char *sw_buf_take(sw_buf *b)
{
    char *s = b->at ? b->at : sw_strdup("");
    *b = (sw_buf){0};
    return s;
}

void sw_buf_free(sw_buf *b)
{
    free(b->at);
    *b = (sw_buf){0};
}

void sw_buf_json(sw_buf *b, const char *s, size_t n)
{
    sw_buf_reserve(b, n + 2);
    sw_buf_putc(b, '"');
    for (size_t i = 0, plain = 0; i <= n; i++) {
        unsigned char c = i < n ? (unsigned char)s[i] : 0;
        bool high = i < n && c >= 0x80;
        if (i < n && !high && c >= 0x20 && c != '"' && c != '\\')
            continue;
        uint32_t cp;
        int len = high ? sw_utf8_decode(s + i, n - i, &cp) : 0;
        if (len) {
            i += (size_t)len - 1;
            continue;
        }
        sw_buf_add(b, s + plain, i - plain);
        plain = i + 1;
        if (i == n)
            break;
        switch (c) {
        case '"': sw_buf_puts(b, "\\\""); break;
        case '\\': sw_buf_puts(b, "\\\\"); break;
        case '\n': sw_buf_puts(b, "\\n"); break;
        case '\r': sw_buf_puts(b, "\\r"); break;
        case '\t': sw_buf_puts(b, "\\t"); break;
        case '\b': sw_buf_puts(b, "\\b"); break;
        case '\f': sw_buf_puts(b, "\\f"); break;
        default:
            if (high)
                sw_buf_puts(b, "\xef\xbf\xbd");
            else
                sw_buf_printf(b, "\\u%04x", c);
        }
    }
    sw_buf_putc(b, '"');
}

bool sw_ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !memcmp(s + n - m, suffix, m);
}

bool sw_starts_with(const char *s, const char *prefix) { return !strncmp(s, prefix, strlen(prefix)); }

static bool glob_expand(const char *pattern, const char *name, int depth)
{
    const char *open = strchr(pattern, '{');
    const char *close = open ? strchr(open, '}') : NULL;
    if (!close || depth > 8)
        return fnmatch(pattern, name, 0) == 0;
    for (const char *a = open + 1; a <= close;) {
        const char *e = a;
        while (e < close && *e != ',')
            e++;
        char *one = sw_strfmt("%.*s%.*s%s", (int)(open - pattern), pattern, (int)(e - a), a, close + 1);
        bool hit = glob_expand(one, name, depth + 1);
        free(one);
        if (hit)
            return true;
        a = e + 1;
    }
    return false;
}

bool sw_glob(const char *pattern, const char *name) { return glob_expand(pattern, name, 0); }

size_t sw_spelling_distance(const char *a, const char *b)
{
    size_t n = strlen(b), row[256];
    if (n >= SW_COUNT(row) || strlen(a) >= SW_COUNT(row))
        return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t change = diagonal + (strncasecmp(a + i, b + j, 1) != 0);
            diagonal = row[j + 1];
            row[j + 1] = SW_MIN(change, SW_MIN(row[j], diagonal) + 1);
        }
    }
    return row[n];
}

char *sw_human_bytes(double bytes, char out[32])
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t u = 0;
    while (bytes >= 1024 && u + 1 < SW_COUNT(unit)) {
        bytes /= 1024;
        u++;
    }
    snprintf(out, 32, u ? "%.2f %s" : "%.0f %s", bytes, unit[u]);
    return out;
}

char *sw_human_seconds(double s, char out[32])
{
    if (!(s >= 0) || s > 1e9)
        snprintf(out, 32, "?");
    else if (s < 60)
        snprintf(out, 32, "%.1fs", s);
    else if (s < 3600)
        snprintf(out, 32, "%dm%02ds", (int)s / 60, (int)s % 60);
    else
        snprintf(out, 32, "%ldh%02ldm", (long)s / 3600, (long)s / 60 % 60);
    return out;
}

int sw_utf8_decode(const char *text, size_t n, uint32_t *cp)
{
    const unsigned char *s = (const unsigned char *)text;
    if (!n)
        return 0;
    if (s[0] < 0x80) {
        *cp = s[0];
        return 1;
    }
    int len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc2 ? 2 : 0;
    if (!len || s[0] > 0xf4 || (size_t)len > n)
        return 0;
    uint32_t c = s[0] & (0x7f >> len);
    for (int i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    if ((len == 3 && (c < 0x800 || (c >= 0xd800 && c < 0xe000))) || (len == 4 && (c < 0x10000 || c > 0x10ffff)))
        return 0;
    *cp = c;
    return len;
}

int sw_utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        if (cp >= 0xd800 && cp < 0xe000)
            return 0;
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    if (cp > 0x10ffff)
        return 0;
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

size_t sw_utf8_valid_prefix(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint64_t eight;
        if (i + 8 <= n && (memcpy(&eight, s + i, 8), !(eight & 0x8080808080808080u))) {
            i += 8;
            continue;
        }
        uint32_t cp;
        int len = sw_utf8_decode(s + i, n - i, &cp);
        if (!len)
            return i;
        i += (size_t)len;
    }
    return n;
}

size_t sw_utf8_count(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)s[i] & 0xc0) != 0x80;
    return count;
}
