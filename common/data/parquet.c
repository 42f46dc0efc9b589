/* Rows from columns: levels say where a nested value is missing and where a list goes on (Melnik et al., "Dremel:
 * interactive analysis of web-scale datasets", VLDB 2010). */
#include "data/parquet.h"

#include "base/json.h"
#include "base/memory.h"
#include "data/parquet_file.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct sw_parquet {
    char *name;
    int fd;
    parquet_meta meta;
    parquet_column *columns;
    size_t group;          /* the next one */
    int64_t in_group, row; /* rows left in the one that is read; rows given out */
    int64_t bytes_before;
    size_t max_row, start; /* where the row begins in the buffer */
};

sw_parquet *sw_parquet_open(const char *path, size_t max_row)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        sw_fail_errno("%s", path);
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    sw_parquet *p = SW_NEW(sw_parquet);
    p->name = sw_strdup(path);
    p->fd = fd;
    p->max_row = max_row;
    if (parquet_read_meta(fd, (int64_t)st.st_size, &p->meta)) {
        sw_fail_in("%s", path);
        sw_parquet_close(p);
        return NULL;
    }
    p->columns = SW_NEW_ARRAY(parquet_column, SW_MAX(p->meta.leaves, 1));
    for (size_t i = 0; i < p->meta.nodes.n; i++) {
        const parquet_node *n = &p->meta.nodes.at[i];
        if (!n->children)
            p->columns[n->first_leaf] = (parquet_column){.fd = fd, .leaf = n};
    }
    return p;
}

void sw_parquet_close(sw_parquet *p)
{
    if (!p)
        return;
    for (int i = 0; p->columns && i < p->meta.leaves; i++)
        parquet_column_free(&p->columns[i]);
    free(p->columns);
    parquet_free_meta(&p->meta);
    close(p->fd);
    free(p->name);
    free(p);
}

void sw_parquet_rewind(sw_parquet *p)
{
    p->group = 0;
    p->in_group = p->row = p->bytes_before = 0;
}

int64_t sw_parquet_bytes(const sw_parquet *p)
{
    int64_t sum = p->bytes_before;
    for (int i = 0; p->group && i < p->meta.leaves; i++)
        sum += p->columns[i].chunk.at - p->meta.groups.at[p->group - 1].chunks[i].at;
    return sum;
}

/* ---- values */

static void put_base64(sw_buf *b, const uint8_t *at, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    sw_buf_putc(b, '"');
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)at[i] << 16 | (i + 1 < n ? (uint32_t)at[i + 1] << 8 : 0) | (i + 2 < n ? at[i + 2] : 0);
        char four[] = {digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=',
                       i + 2 < n ? digits[v & 63] : '='};
        sw_buf_add(b, four, 4);
    }
    sw_buf_putc(b, '"');
}

/* Text as it is: what is wrong with it is for the reader of the JSON to say. */
static void put_text(sw_buf *b, const char *at, size_t n)
{
    size_t good = sw_utf8_valid_prefix(at, n);
    sw_buf_json(b, at, good);
    while (good < n) {
        b->n--; /* the quote */
        sw_buf_putc(b, at[good]);
        at += good + 1;
        n -= good + 1;
        good = sw_utf8_valid_prefix(at, n);
        size_t quote = b->n;
        sw_buf_json(b, at, good);
        memmove(b->at + quote, b->at + quote + 1, b->n - quote);
        b->n--;
    }
}

static void put_float(sw_buf *b, float v)
{
    char text[32] = "null";
    for (int digits = 6; isfinite(v) && digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtof(text, NULL) == v)
            break;
    }
    sw_buf_puts(b, text);
}

static int put_value(const parquet_node *leaf, sw_span v, sw_buf *b)
{
    int32_t i32;
    int64_t i64;
    float f;
    double d;
    if (leaf->meaning == PARQUET_DECIMAL || leaf->type == PARQUET_INT96)
        return sw_fail("%s are not read; write them as numbers",
                       leaf->type == PARQUET_INT96 ? "96-bit timestamps" : "decimals");
    switch (leaf->type) {
    case PARQUET_BOOLEAN: sw_buf_puts(b, *v.at ? "true" : "false"); return 0;
    case PARQUET_INT32:
        memcpy(&i32, v.at, sizeof i32);
        sw_buf_printf(b, "%lld", leaf->meaning == PARQUET_UNSIGNED ? (long long)(uint32_t)i32 : (long long)i32);
        return 0;
    case PARQUET_INT64:
        memcpy(&i64, v.at, sizeof i64);
        if (leaf->meaning == PARQUET_UNSIGNED)
            sw_buf_printf(b, "%llu", (unsigned long long)i64);
        else
            sw_buf_printf(b, "%lld", (long long)i64);
        return 0;
    case PARQUET_FLOAT:
        memcpy(&f, v.at, sizeof f);
        put_float(b, f);
        return 0;
    case PARQUET_DOUBLE:
        memcpy(&d, v.at, sizeof d);
        sw_json_number(b, d);
        return 0;
    default:
        if (leaf->type == PARQUET_BYTES && (leaf->meaning == PARQUET_TEXT || sw_utf8_valid_prefix(v.at, v.n) == v.n))
            put_text(b, v.at, v.n);
        else
            put_base64(b, (const uint8_t *)v.at, v.n);
        return 0;
    }
}

/* ---- nesting */

static int advance(sw_parquet *p, int leaf)
{
    if (p->columns[leaf].ended)
        return sw_fail("column \"%s\": damaged: fewer values than rows", p->columns[leaf].leaf->name);
    return parquet_column_next(&p->columns[leaf]) ? sw_fail_in("column \"%s\"", p->columns[leaf].leaf->name) : 0;
}

/* Passes over a place where the node is missing: each column has an entry for it. */
static int pass(sw_parquet *p, const parquet_node *n)
{
    for (int i = n->first_leaf; i < n->after_leaf; i++)
        if (advance(p, i))
            return -1;
    return 0;
}

static int put_node(sw_parquet *p, int i, sw_buf *b);

static int put_struct(sw_parquet *p, const parquet_node *n, int i, sw_buf *b)
{
    sw_buf_putc(b, '{');
    int child = i + 1;
    for (int c = 0; c < n->children; c++, child = p->meta.nodes.at[child].next) {
        const char *name = p->meta.nodes.at[child].name;
        if (c)
            sw_buf_putc(b, ',');
        put_text(b, name, strlen(name));
        sw_buf_putc(b, ':');
        if (put_node(p, child, b))
            return -1;
    }
    sw_buf_putc(b, '}');
    return 0;
}

/* The node where it is there: a value or an object. */
static int put_present(sw_parquet *p, int i, sw_buf *b)
{
    const parquet_node *n = &p->meta.nodes.at[i];
    if (n->children)
        return put_struct(p, n, i, b);
    const parquet_column *c = &p->columns[n->first_leaf];
    if (c->ended || c->def != n->def)
        return sw_fail("column \"%s\": damaged: a value is missing", n->name);
    return put_value(n, c->value, b) ? sw_fail_in("column \"%s\"", n->name) : advance(p, n->first_leaf);
}

/* A pair of a map as "key": value; keys that are no text are written as one. */
static int put_pair(sw_parquet *p, int i, sw_buf *b)
{
    int key = i + 1, value = p->meta.nodes.at[key].next;
    sw_buf text = {0};
    int rc = put_node(p, key, &text);
    if (!rc && text.n && *text.at == '"')
        sw_buf_add(b, text.at, text.n);
    else if (!rc)
        sw_buf_json(b, text.n ? text.at : "", text.n);
    sw_buf_free(&text);
    sw_buf_putc(b, ':');
    return rc ? -1 : put_node(p, value, b);
}

/* All elements of a repeated node. item: the node that an element is, the same or the only one in it. */
static int put_repeated(sw_parquet *p, int i, int item, bool map, sw_buf *b)
{
    const parquet_node *n = &p->meta.nodes.at[i];
    const parquet_column *first = &p->columns[n->first_leaf];
    sw_buf_putc(b, map ? '{' : '[');
    if (first->def < n->def) {
        if (pass(p, n))
            return -1;
    } else {
        bool more = false;
        do {
            if (more)
                sw_buf_putc(b, ',');
            if (b->n - p->start > p->max_row) /* a few bytes of a file can be any number of elements */
                return sw_fail("column \"%s\": the row is longer than the %zu bytes that a row may have", n->name,
                               p->max_row);
            if (map ? put_pair(p, i, b) : item == i ? put_present(p, i, b) : put_node(p, item, b))
                return -1;
            more = true;
        } while (!first->ended && first->rep == n->rep);
    }
    sw_buf_putc(b, map ? '}' : ']');
    return 0;
}

static int put_node(sw_parquet *p, int i, sw_buf *b)
{
    const parquet_node *n = &p->meta.nodes.at[i];
    const parquet_column *first = &p->columns[n->first_leaf];
    if (first->ended)
        return sw_fail("column \"%s\": damaged: fewer values than rows", n->name);
    if (n->repeated)
        return put_repeated(p, i, i, false, b);
    if (n->optional && first->def < n->def) {
        sw_buf_puts(b, "null");
        return pass(p, n);
    }
    const parquet_node *list = n->children == 1 ? n + 1 : NULL;
    if (list && list->repeated && n->meaning == PARQUET_LIST) { /* the format's "LIST" and its older forms */
        bool wrapped = list->children == 1 && strcmp(list->name, "array") && !sw_ends_with(list->name, "_tuple");
        return put_repeated(p, i + 1, wrapped ? i + 2 : i + 1, false, b);
    }
    if (list && list->repeated && n->meaning == PARQUET_MAP && list->children == 2)
        return put_repeated(p, i + 1, i + 1, true, b);
    return put_present(p, i, b);
}

/* ---- rows */

static int next_group(sw_parquet *p)
{
    p->bytes_before = sw_parquet_bytes(p);
    const parquet_group *g = &p->meta.groups.at[p->group++];
    p->in_group = g->rows;
    for (int i = 0; i < p->meta.leaves; i++)
        if (parquet_column_begin(&p->columns[i], &g->chunks[i]))
            return sw_fail_in("column \"%s\"", p->columns[i].leaf->name);
    return 0;
}

int sw_parquet_next(sw_parquet *p, sw_buf *json)
{
    int rc = 0;
    while (!rc && !p->in_group && p->group < p->meta.groups.n)
        rc = next_group(p);
    if (!rc && !p->in_group) /* the last group has been read */
        return 0;
    p->start = json->n;
    if (!rc)
        rc = put_struct(p, &p->meta.nodes.at[0], 0, json);
    for (int i = 0; !rc && i < p->meta.leaves; i++)
        if (p->columns[i].rep || (p->in_group == 1) != p->columns[i].ended)
            rc = sw_fail("column \"%s\": damaged: its values do not end with the row", p->columns[i].leaf->name);
    if (rc) {
        json->n = p->start;
        return sw_fail_in("%s: row %lld", p->name, (long long)p->row + 1);
    }
    p->in_group--;
    p->row++;
    return 1;
}
