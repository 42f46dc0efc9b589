#include "data/jsonl.h"

#include "base/memory.h"
#include "data/csv.h"
#include "data/parquet.h"
#include "data/source.h"

#include <stdlib.h>
#include <string.h>

enum { ROW_MAX = 1 << 30, LONG_ROW_KEPT = 64, LINE_TOO_LONG = 2 };

struct sw_rows {
    sw_source *source;
    sw_rows_kind kind;
    sw_text_unit unit;
    sw_rows_bounds bounds;
    bool started, ended; /* ended: the source has no more */
    bool again;          /* not the first pass: kind and columns are known, and others may be reading them */
    bool array, closed;  /* of SW_ROWS_JSON: the file is an array; its end was seen */
    bool first;          /* no element of the array was seen yet */
    sw_buf buf;
    size_t at;     /* what has been given out */
    int64_t line;  /* of buf.at[at] */
    bool may_pass; /* a line beyond the bound is no error */
    char long_row[LONG_ROW_KEPT];
    sw_csv csv;
    sw_parquet *parquet;
};

#define LONG_ROW "the row is longer than the %lld bytes that a row may have (--max-record)"

static const char *base_ending(const char *path, char out[16])
{
    size_t n = strlen(path);
    n -= sw_ends_with(path, ".zst") ? 4 : sw_ends_with(path, ".gz") ? 3 : 0;
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
    r->bounds.max_row = ROW_MAX;
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
    sw_parquet_close(r->parquet);
    free(r);
}

void sw_rows_set(sw_rows *r, const sw_rows_bounds *b)
{
    r->bounds = *b;
    if (!b->max_row || b->max_row > ROW_MAX)
        r->bounds.max_row = ROW_MAX;
}

void sw_rows_release(sw_rows *r)
{
    sw_source_release(r->source);
    sw_buf_free(&r->buf); /* the reader stays for sw_row_json, its memory need not */
    r->at = 0;
    r->ended = true;
}

int sw_rows_rewind(sw_rows *r)
{
    if (sw_source_rewind(r->source))
        return -1;
    if (r->parquet)
        sw_parquet_rewind(r->parquet);
    sw_buf_clear(&r->buf);
    r->at = 0;
    r->line = 1;
    r->again |= r->started;
    r->started = r->ended = r->array = r->closed = false;
    r->first = true;
    return 0;
}

const char *sw_rows_kind_name(const sw_rows *r)
{
    static const char *const names[] = {"nothing", "JSON Lines", "JSON", "CSV", "plain text", "Parquet"};
    return r->kind == SW_ROWS_CSV && r->csv.separator == '\t' ? "TSV" : names[r->kind];
}

void sw_rows_stop_when(sw_rows *r, const atomic_bool *stop) { sw_source_stop_when(r->source, stop); }
const char *sw_rows_name(const sw_rows *r) { return sw_source_name(r->source); }
int64_t sw_rows_bytes(const sw_rows *r)
{
    return r->parquet ? sw_parquet_bytes(r->parquet) : sw_source_bytes(r->source);
}
int64_t sw_rows_size(const sw_rows *r) { return sw_source_size(r->source); }

sw_digest sw_rows_digest(const sw_rows *r)
{
    sw_digest d;
    if (r->parquet && !sw_digest_file(sw_source_name(r->source), &d))
        return d;
    return sw_source_digest(r->source);
}

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
    if (r->buf.n - r->at > (size_t)r->bounds.max_row)
        return fail_here(r, LONG_ROW, (long long)r->bounds.max_row);
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

/* The next line without its end; *taken: with it. 1, 0 at the end, -1, LINE_TOO_LONG. */
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
        if (r->may_pass && have > (size_t)r->bounds.max_row)
            return LINE_TOO_LONG;
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

/* Moves past the line in progress without keeping it: 1, -1. */
static int drop_line(sw_rows *r)
{
    for (;;) {
        const char *eol = memchr(r->buf.at + r->at, '\n', r->buf.n - r->at);
        skip(r, eol ? (size_t)(eol + 1 - r->buf.at) - r->at : r->buf.n - r->at);
        if (eol)
            return 1;
        int rc = more(r);
        if (rc <= 0)
            return rc < 0 ? -1 : 1;
    }
}

/* A line beyond the bound that does not end the run: all but its beginning is dropped as it comes. */
static int long_line(sw_rows *r, sw_row *row)
{
    char head[LONG_ROW_KEPT];
    memcpy(head, r->buf.at + r->at, sizeof head);
    *row = (sw_row){r->long_row, sizeof head, r->line, true};
    int rc = drop_line(r);
    memcpy(r->long_row, head, sizeof head);
    return rc;
}

static int next_line(sw_rows *r, sw_row *row)
{
    for (;;) {
        size_t n, taken;
        r->may_pass = r->bounds.pass_long && r->bounds.max_row > LONG_ROW_KEPT;
        int rc = find_line(r, 0, &n, &taken);
        r->may_pass = false;
        if (rc == LINE_TOO_LONG)
            return long_line(r, row);
        if (rc <= 0)
            return rc;
        if (n > (size_t)r->bounds.max_row) {
            if (!r->bounds.pass_long)
                return fail_here(r, LONG_ROW, (long long)r->bounds.max_row);
            *row = (sw_row){r->buf.at + r->at, n, r->line, true};
            skip(r, taken);
            return 1;
        }
        *row = (sw_row){r->buf.at + r->at, n, r->line, false};
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
    *row = (sw_row){r->buf.at + r->at, n, r->line, false};
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
    *row = (sw_row){r->buf.at + r->at, r->buf.n - r->at, r->line, false};
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
    *row = (sw_row){r->buf.at + r->at, n, r->line, false};
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
    *row = (sw_row){r->buf.at + r->at, n, r->line, false};
    skip(r, taken);
    return 1;
}

static int next_parquet(sw_rows *r, sw_row *row)
{
    sw_buf_clear(&r->buf);
    int rc = sw_parquet_next(r->parquet, &r->buf);
    *row = (sw_row){r->buf.at, r->buf.n, r->line, false};
    r->line += rc > 0;
    return rc;
}

static int begin(sw_rows *r)
{
    r->started = true;
    if (!r->parquet && r->kind <= SW_ROWS_JSON && sw_source_is(r->source, "PAR1")) {
        r->kind = SW_ROWS_PARQUET;
        r->parquet = sw_parquet_open(sw_source_name(r->source), (size_t)r->bounds.max_row);
        sw_source_release(r->source);
        if (!r->parquet)
            return -1;
    }
    if (r->parquet)
        return 0;
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
        if (r->kind == SW_ROWS_AUTO) /* never in a later pass */
            r->kind = c == '[' ? SW_ROWS_JSON : SW_ROWS_JSONL;
        r->array = c == '[';
        if (r->array)
            skip(r, 1);
    }
    sw_row head;
    if (r->kind == SW_ROWS_CSV) {
        rc = next_csv(r, &head);
        if (rc > 0 && !r->again && sw_csv_header(&r->csv, head.at, head.n))
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
    case SW_ROWS_PARQUET: return next_parquet(r, row);
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
    if (!rc)
        sw_rows_release(r);
    return rc;
}

/* The row with U+FFFD for each byte that is part of no character. */
static void repair(const char *at, size_t n, sw_buf *out)
{
    for (size_t good; n; at += good + 1, n -= good + 1) {
        good = sw_utf8_valid_prefix(at, n);
        sw_buf_add(out, at, good);
        if (good == n)
            return;
        sw_buf_puts(out, "\xef\xbf\xbd");
    }
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
    sw_buf repaired = {0};
    if (r->bounds.replace && sw_utf8_valid_prefix(at, n) < n) {
        repair(at, n, &repaired);
        at = repaired.at;
        n = repaired.n;
    }
    switch (r->kind) {
    case SW_ROWS_CSV: v = sw_csv_row(&r->csv, at, n); break;
    case SW_ROWS_TEXT: v = text_json(at, n); break;
    default: v = sw_json_parse(at, n);
    }
    sw_buf_free(&repaired);
    if (!v)
        sw_fail_in("%s: line %lld", sw_rows_name(r), (long long)line);
    return v;
}
