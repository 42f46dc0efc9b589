#include "data/jsonl.h"

#include "base/memory.h"
#include "data/csv.h"
#include "data/source.h"

#include <stdlib.h>
#include <string.h>

enum { ROW_MAX = 1 << 30 };

struct sw_rows {
    sw_source *source;
    sw_rows_kind kind;
    sw_text_unit unit;
    bool started, ended; /* ended: the source has no more */
    bool array, closed;  /* of SW_ROWS_JSON: the file is an array; its end was seen */
    bool first;          /* no element of the array was seen yet */
    sw_buf buf;
    size_t at;    /* what has been given out */
    int64_t line; /* of buf.at[at] */
    sw_csv csv;
};

static const char *base_ending(const char *path, char out[16])
{
    size_t n = strlen(path);
    if (sw_ends_with(path, ".zst"))
        n -= 4;
    size_t dot = n;
    while (dot > 0 && path[dot - 1] != '.' && path[dot - 1] != '/')
        dot--;
    size_t len = dot > 0 && path[dot - 1] == '.' ? SW_MIN(n - dot, (size_t)15) : 0;
    for (size_t i = 0; i < len; i++)
        out[i] = path[dot + i] >= 'A' && path[dot + i] <= 'Z' ? (char)(path[dot + i] + 32) : path[dot + i];
    out[len] = 0;
    return out;
}

sw_rows *sw_rows_open(const char *path, sw_rows_kind kind, sw_text_unit unit)
{
    sw_source *source = sw_source_open(path);
    if (!source)
        return NULL;
    sw_rows *r = SW_NEW(sw_rows);
    *r = (sw_rows){.source = source, .kind = kind, .unit = unit, .line = 1, .first = true};
    char ending[16];
    base_ending(path, ending);
    r->csv.separator = !strcmp(ending, "tsv") ? '\t' : ',';
    if (kind == SW_ROWS_AUTO && (!strcmp(ending, "csv") || !strcmp(ending, "tsv")))
        r->kind = SW_ROWS_CSV;
    else if (kind == SW_ROWS_AUTO && (!strcmp(ending, "txt") || !strcmp(ending, "md")))
        r->kind = SW_ROWS_TEXT;
    else if (kind == SW_ROWS_AUTO && !strcmp(ending, "json"))
        r->kind = SW_ROWS_JSON;
    return r;
}

void sw_rows_close(sw_rows *r)
{
    if (!r)
        return;
    sw_source_close(r->source);
    sw_buf_free(&r->buf);
    sw_csv_free(&r->csv);
    free(r);
}

void sw_rows_stop_when(sw_rows *r, const atomic_bool *stop) { sw_source_stop_when(r->source, stop); }
const char *sw_rows_name(const sw_rows *r) { return sw_source_name(r->source); }
int64_t sw_rows_bytes(const sw_rows *r) { return sw_source_bytes(r->source); }
int64_t sw_rows_size(const sw_rows *r) { return sw_source_size(r->source); }
sw_digest sw_rows_digest(const sw_rows *r) { return sw_source_digest(r->source); }

/* An error at the line where the row in progress begins. */
static int SW_PRINTF(2, 3) fail_here(const sw_rows *r, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return sw_fail("%s: line %lld: %s", sw_rows_name(r), (long long)r->line, text);
}

/* Brings more bytes, after moving the row in progress to the front: 1, 0 at the end, -1. Offsets relative to r->at
 * stay true. */
static int more(sw_rows *r)
{
    if (r->ended)
        return 0;
    if (r->buf.n - r->at > ROW_MAX)
        return fail_here(r, "the row is longer than %d MiB", ROW_MAX >> 20);
    if (r->at > r->buf.n / 2) {
        memmove(r->buf.at, r->buf.at + r->at, r->buf.n - r->at);
        r->buf.n -= r->at;
        r->at = 0;
    }
    int rc = sw_source_read(r->source, &r->buf);
    r->ended = rc == 0;
    return rc;
}

/* Moves past n bytes, counting lines. */
static void skip(sw_rows *r, size_t n)
{
    const char *p = r->buf.at + r->at, *end = p + n;
    while (p < end && (p = memchr(p, '\n', (size_t)(end - p)))) {
        r->line++;
        p++;
    }
    r->at += n;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* Moves to the next byte that is no white space: 1, 0 at the end, -1. */
static int skip_space(sw_rows *r)
{
    for (;;) {
        size_t n = 0;
        while (r->at + n < r->buf.n && is_space(r->buf.at[r->at + n]))
            n++;
        skip(r, n);
        if (r->at < r->buf.n)
            return 1;
        int rc = more(r);
        if (rc <= 0)
            return rc;
    }
}

/* The next line without its end; *taken: with it. 1, 0 at the end, -1. */
static int find_line(sw_rows *r, size_t from, size_t *n, size_t *taken)
{
    for (;;) {
        const char *start = r->buf.at + r->at, *eol = NULL;
        size_t have = r->buf.n - r->at;
        if (have > from)
            eol = memchr(start + from, '\n', have - from);
        if (eol) {
            *n = (size_t)(eol - start);
            *taken = *n + 1;
            break;
        }
        from = have;
        int rc = more(r);
        if (rc < 0)
            return -1;
        if (!rc) {
            if (!have)
                return 0;
            *n = *taken = have;
            break;
        }
    }
    if (*n && r->buf.at[r->at + *n - 1] == '\r')
        --*n;
    return 1;
}

static bool blank(const char *s, size_t n)
{
    while (n && is_space(s[n - 1]))
        n--;
    return n == 0;
}

static int next_line(sw_rows *r, sw_row *row)
{
    for (;;) {
        size_t n, taken;
        int rc = find_line(r, 0, &n, &taken);
        if (rc <= 0)
            return rc;
        *row = (sw_row){r->buf.at + r->at, n, r->line};
        skip(r, taken);
        if (!blank(row->at, n))
            return 1;
    }
}

static int next_paragraph(sw_rows *r, sw_row *row)
{
    int rc = skip_space(r);
    if (rc <= 0)
        return rc;
    size_t n = 0, taken = 0, line, with_end;
    for (;;) {
        size_t start = taken;
        rc = find_line(r, start, &line, &with_end);
        if (rc < 0)
            return -1;
        if (!rc || with_end == start || blank(r->buf.at + r->at + start, line - start))
            break;
        n = line;
        taken = with_end;
    }
    *row = (sw_row){r->buf.at + r->at, n, r->line};
    skip(r, taken);
    return 1;
}

static int whole_file(sw_rows *r, sw_row *row)
{
    int rc;
    while ((rc = more(r)) > 0)
        ;
    if (rc < 0 || r->at == r->buf.n)
        return rc;
    *row = (sw_row){r->buf.at + r->at, r->buf.n - r->at, r->line};
    r->at = r->buf.n;
    return 1;
}

/* Length of the JSON value at r->at: outside strings only brackets count, the parser will see the rest. */
static int find_value(sw_rows *r, size_t *n)
{
    size_t i = 0;
    int64_t depth = 0;
    bool in_string = false;
    for (;; i++) {
        while (r->at + i >= r->buf.n) {
            int rc = more(r);
            if (rc < 0)
                return -1;
            if (!rc && (depth || in_string))
                return fail_here(r, "the file ends inside the value that begins here");
            if (!rc) {
                *n = i;
                return 0;
            }
        }
        char c = r->buf.at[r->at + i];
        if (in_string) {
            if (c == '\\') {
                i++; /* what is escaped may be a quote, and may not be here yet */
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
            continue;
        } else if (c == '}' || c == ']') {
            if (!depth--) { /* closes what is around a bare value */
                *n = i;
                return 0;
            }
        } else if (!depth && (c == ',' || is_space(c))) {
            *n = i;
            return 0;
        } else {
            continue;
        }
        if (!depth && !in_string) {
            *n = i + 1;
            return 0;
        }
    }
}

static int next_value(sw_rows *r, sw_row *row)
{
    int rc = skip_space(r);
    if (rc < 0)
        return -1;
    if (r->array) {
        if (rc && r->closed)
            return fail_here(r, "more follows the end of the array");
        if (!rc)
            return r->closed ? 0 : fail_here(r, "the file ends before the array does");
        char c = r->buf.at[r->at];
        if (c == ']') {
            r->closed = true;
            skip(r, 1);
            return next_value(r, row);
        }
        if (!r->first) {
            if (c != ',')
                return fail_here(r, "',' or ']' is needed after an element of the array");
            skip(r, 1);
            rc = skip_space(r);
            if (rc < 0)
                return -1;
            if (!rc)
                return fail_here(r, "the file ends before the array does");
        }
        r->first = false;
    }
    if (!rc)
        return 0;
    size_t n = 0;
    if (find_value(r, &n))
        return -1;
    if (!n)
        return fail_here(r, "a JSON value is needed, not '%c'", r->buf.at[r->at]);
    *row = (sw_row){r->buf.at + r->at, n, r->line};
    skip(r, n);
    return 1;
}

static int next_csv(sw_rows *r, sw_row *row)
{
    size_t from = 0, n, taken;
    bool quoted = false;
    for (;;) { /* a line end inside quotes is part of the row */
        int rc = find_line(r, from, &n, &taken);
        if (rc < 0)
            return -1;
        if (!rc || taken == from) {
            if (quoted)
                return fail_here(r, "the file ends inside the quotes of this row");
            return 0;
        }
        for (size_t i = from; i < taken; i++)
            quoted ^= r->buf.at[r->at + i] == '"';
        from = taken;
        if (!quoted && !blank(r->buf.at + r->at, n))
            break;
        if (!quoted) {
            skip(r, taken);
            from = 0;
        }
    }
    *row = (sw_row){r->buf.at + r->at, n, r->line};
    skip(r, taken);
    return 1;
}

static int begin(sw_rows *r)
{
    r->started = true;
    int rc = more(r);
    while (rc > 0 && r->buf.n < 3)
        rc = more(r);
    if (rc < 0)
        return -1;
    if (r->buf.n >= 3 && !memcmp(r->buf.at, "\xef\xbb\xbf", 3))
        r->at = 3;
    if (r->kind == SW_ROWS_AUTO || r->kind == SW_ROWS_JSON) {
        rc = skip_space(r);
        if (rc <= 0)
            return rc;
        char c = r->buf.at[r->at];
        if (c != '{' && c != '[')
            return fail_here(
                r,
                "begins with the byte 0x%02x, which is neither JSON Lines nor a JSON array; for other files "
                "say what they are (--input-kind)",
                (unsigned char)c);
        if (r->kind == SW_ROWS_AUTO)
            r->kind = c == '[' ? SW_ROWS_JSON : SW_ROWS_JSONL;
        r->array = c == '[';
        if (r->array)
            skip(r, 1);
    }
    sw_row head;
    if (r->kind == SW_ROWS_CSV) {
        rc = next_csv(r, &head);
        if (rc > 0 && sw_csv_header(&r->csv, head.at, head.n))
            return sw_fail_in("%s: line %lld", sw_rows_name(r), (long long)head.line);
        return rc < 0 ? -1 : 0;
    }
    return 0;
}

static int next(sw_rows *r, sw_row *row)
{
    switch (r->kind) {
    case SW_ROWS_JSON: return next_value(r, row);
    case SW_ROWS_CSV: return next_csv(r, row);
    case SW_ROWS_TEXT:
        return r->unit == SW_TEXT_LINE        ? next_line(r, row)
               : r->unit == SW_TEXT_PARAGRAPH ? next_paragraph(r, row)
                                              : whole_file(r, row);
    default: return next_line(r, row);
    }
}

int sw_rows_next(sw_rows *r, sw_row *row)
{
    if (!r->started && begin(r))
        return -1;
    int rc = next(r, row);
    if (!rc) { /* the reader stays for sw_row_json, its memory need not */
        sw_buf_free(&r->buf);
        r->at = 0;
    }
    return rc;
}

static cJSON *text_json(const char *at, size_t n)
{
    size_t good = sw_utf8_valid_prefix(at, n);
    if (good < n)
        return sw_fail_null("byte %zu: invalid UTF-8 (byte 0x%02x)", good, (unsigned char)at[good]);
    sw_buf b = {0};
    sw_buf_puts(&b, "{\"text\":");
    sw_buf_json(&b, at, n);
    sw_buf_putc(&b, '}');
    cJSON *v = sw_json_parse(b.at, b.n);
    sw_buf_free(&b);
    return v;
}

cJSON *sw_row_json(const sw_rows *r, const char *at, size_t n, int64_t line)
{
    cJSON *v;
    switch (r->kind) {
    case SW_ROWS_CSV: v = sw_csv_row(&r->csv, at, n); break;
    case SW_ROWS_TEXT: v = text_json(at, n); break;
    default: v = sw_json_parse(at, n);
    }
    if (!v)
        sw_fail_in("%s: line %lld", sw_rows_name(r), (long long)line);
    return v;
}
