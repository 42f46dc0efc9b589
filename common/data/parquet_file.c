#include "data/parquet_file.h"

#include "base/memory.h"
#include "data/thrift.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int parquet_read_at(int fd, int64_t at, size_t n, void *to)
{
    for (char *p = to; n;) {
        ssize_t got = pread(fd, p, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return sw_fail_errno("read");
        if (!got)
            return sw_fail("the file ends before byte %lld", (long long)at);
        p += got, at += got, n -= (size_t)got;
    }
    return 0;
}

/* ---- schema */

static parquet_meaning of_logical(thrift *t)
{
    parquet_meaning meaning = PARQUET_PLAIN;
    int id = 0;
    for (thrift_type f; (f = thrift_field(t, &id));) {
        if (f == THRIFT_STRUCT && (id == 1 || id == 4 || id == 12))
            meaning = PARQUET_TEXT;
        else if (f == THRIFT_STRUCT && id == 2)
            meaning = PARQUET_MAP;
        else if (f == THRIFT_STRUCT && id == 3)
            meaning = PARQUET_LIST;
        else if (f == THRIFT_STRUCT && id == 5)
            meaning = PARQUET_DECIMAL;
        if (f == THRIFT_STRUCT && id == 10) { /* whole numbers: width and sign */
            int inner = 0;
            for (thrift_type g; (g = thrift_field(t, &inner)); thrift_skip(t, g))
                if (inner == 2 && g == THRIFT_FALSE)
                    meaning = PARQUET_UNSIGNED;
        } else {
            thrift_skip(t, f);
        }
    }
    return meaning;
}

static parquet_meaning of_converted(int64_t v)
{
    switch (v) {
    case 0: /* UTF8 */
    case 4: /* ENUM */
    case 19: /* JSON */ return PARQUET_TEXT;
    case 1:
    case 2: return PARQUET_MAP;
    case 3: return PARQUET_LIST;
    case 5: return PARQUET_DECIMAL;
    case 11:
    case 12:
    case 13:
    case 14: return PARQUET_UNSIGNED;
    default: return PARQUET_PLAIN;
    }
}

static void read_node(thrift *t, parquet_node *n)
{
    int id = 0;
    int64_t type = -1, children = 0;
    parquet_meaning converted = PARQUET_PLAIN, logical = PARQUET_PLAIN;
    for (thrift_type f; (f = thrift_field(t, &id));) {
        bool number = f == THRIFT_I32;
        if (id == 1 && number) {
            type = thrift_int(t);
        } else if (id == 2 && number) {
            int64_t width = thrift_int(t);
            n->width = (int)SW_MAX(SW_MIN(width, PARQUET_PAGE_MAX), -1);
        } else if (id == 3 && number) {
            int64_t repetition = thrift_int(t);
            n->optional = repetition == 1;
            n->repeated = repetition == 2;
        } else if (id == 4 && f == THRIFT_BINARY) {
            sw_span name = thrift_binary(t);
            free(n->name);
            n->name = sw_strndup(name.at, name.n);
        } else if (id == 5 && number) {
            children = thrift_int(t);
        } else if (id == 6 && number) {
            converted = of_converted(thrift_int(t));
        } else if (id == 10 && f == THRIFT_STRUCT) {
            logical = of_logical(t);
        } else {
            thrift_skip(t, f);
        }
    }
    n->meaning = logical ? logical : converted;
    n->children = children > 0 && children < INT32_MAX ? (int)children : 0;
    if (!n->name || children < 0 || children >= INT32_MAX || (!children && (type < 0 || type > PARQUET_FIXED)) ||
        (!children && type == PARQUET_FIXED && n->width <= 0))
        t->bad = true;
    else if (!children)
        n->type = (parquet_type)type;
}

/* Levels and subtrees, from the order of the nodes; each parent comes before its children. Index after node i, or -1.
 */
static int link_node(parquet_meta *m, int i, int def, int rep, int depth)
{
    if ((size_t)i >= m->nodes.n || depth > PARQUET_DEPTH_MAX)
        return -1;
    parquet_node *n = &m->nodes.at[i];
    if (i) { /* the root repeats with the rows */
        def += n->optional || n->repeated;
        rep += n->repeated;
    }
    n->def = def;
    n->rep = rep;
    n->first_leaf = m->leaves;
    int next = i + 1;
    for (int c = 0; c < n->children && next >= 0; c++)
        next = link_node(m, next, def, rep, depth + 1);
    m->leaves += !n->children;
    n->after_leaf = m->leaves;
    n->next = next;
    return next;
}

static void read_schema(thrift *t, parquet_meta *m)
{
    thrift_type of;
    for (size_t n = thrift_list(t, &of); n && !t->bad; n--) {
        SW_PUSH(m->nodes, ((parquet_node){0}));
        if (of == THRIFT_STRUCT)
            read_node(t, &m->nodes.at[m->nodes.n - 1]);
        else
            t->bad = true;
    }
    if (t->bad || !m->nodes.n || !m->nodes.at[0].children || link_node(m, 0, 0, 0, 0) != (int)m->nodes.n)
        t->bad = true;
}

/* ---- row groups */

static void read_column_meta(thrift *t, parquet_chunk *c)
{
    int id = 0;
    int64_t packed = 0, data = 0, dictionary = 0;
    for (thrift_type f; (f = thrift_field(t, &id));) {
        int64_t *to = id == 5 ? &c->values : id == 7 ? &packed : id == 9 ? &data : id == 11 ? &dictionary : NULL;
        if (to && f == THRIFT_I64)
            *to = thrift_int(t);
        else if (id == 4 && f == THRIFT_I32)
            c->codec = (int)(int16_t)thrift_int(t);
        else
            thrift_skip(t, f);
    }
    c->at = dictionary > 0 && dictionary < data ? dictionary : data;
    if (!c->values) /* nothing is there, and the offset may be anything */
        c->at = c->end = 0;
    else if (c->at < 4 || packed < 0 || c->at > INT64_MAX - packed || c->values < 0)
        t->bad = true;
    else
        c->end = c->at + packed;
}

static void read_chunk(thrift *t, parquet_chunk *c, int64_t size)
{
    int id = 0;
    bool seen = false;
    for (thrift_type f; (f = thrift_field(t, &id));) {
        if (id == 3 && f == THRIFT_STRUCT) {
            read_column_meta(t, c);
            seen = true;
        } else {
            thrift_skip(t, f);
        }
    }
    if (!seen || c->end > size) /* in another file, or encrypted */
        t->bad = true;
}

static void read_group(thrift *t, parquet_meta *m, int64_t size)
{
    int id = 0;
    parquet_group g = {.rows = -1};
    size_t chunks = 0;
    for (thrift_type f; (f = thrift_field(t, &id));) {
        if (id == 1 && f == THRIFT_LIST && !g.chunks) {
            thrift_type of;
            chunks = thrift_list(t, &of);
            if (chunks != (size_t)m->leaves || of != THRIFT_STRUCT)
                t->bad = true;
            g.chunks = SW_NEW_ARRAY(parquet_chunk, SW_MAX(m->leaves, 1));
            for (size_t i = 0; i < chunks && !t->bad; i++)
                read_chunk(t, &g.chunks[i], size);
        } else if (id == 3 && f == THRIFT_I64) {
            g.rows = thrift_int(t);
        } else {
            thrift_skip(t, f);
        }
    }
    if (!g.chunks || g.rows < 0)
        t->bad = true;
    SW_PUSH(m->groups, g);
}

static void read_file_meta(thrift *t, parquet_meta *m, int64_t size)
{
    int id = 0;
    m->rows = -1;
    for (thrift_type f; (f = thrift_field(t, &id));) {
        if (id == 2 && f == THRIFT_LIST && !m->nodes.n) {
            read_schema(t, m);
        } else if (id == 3 && f == THRIFT_I64) {
            m->rows = thrift_int(t);
        } else if (id == 4 && f == THRIFT_LIST && m->nodes.n) {
            thrift_type of;
            for (size_t n = thrift_list(t, &of); n && !t->bad; n--) {
                if (of == THRIFT_STRUCT)
                    read_group(t, m, size);
                else
                    t->bad = true;
            }
        } else {
            thrift_skip(t, f);
        }
    }
    int64_t sum = 0;
    for (size_t i = 0; i < m->groups.n && !t->bad; i++)
        t->bad = __builtin_add_overflow(sum, m->groups.at[i].rows, &sum);
    if (!m->nodes.n || sum != m->rows)
        t->bad = true;
}

int parquet_read_meta(int fd, int64_t size, parquet_meta *m)
{
    uint8_t tail[8];
    *m = (parquet_meta){0};
    if (size < 12)
        return sw_fail("the Parquet file is cut off");
    if (parquet_read_at(fd, size - 8, 8, tail))
        return -1;
    uint32_t n = (uint32_t)tail[0] | (uint32_t)tail[1] << 8 | (uint32_t)tail[2] << 16 | (uint32_t)tail[3] << 24;
    if (!memcmp(tail + 4, "PARE", 4))
        return sw_fail("the Parquet file is encrypted");
    if (memcmp(tail + 4, "PAR1", 4) || n > (uint64_t)size - 12 || n > PARQUET_FOOTER_MAX)
        return sw_fail("the Parquet file is cut off: its end has no table of contents");
    uint8_t *bytes = sw_malloc(n + 1);
    int rc = parquet_read_at(fd, size - 8 - n, n, bytes);
    thrift t = {bytes, bytes + n, false};
    if (!rc)
        read_file_meta(&t, m, size);
    if (!rc && t.bad)
        rc = sw_fail("the table of contents of the Parquet file is damaged");
    free(bytes);
    if (rc)
        parquet_free_meta(m);
    return rc;
}

void parquet_free_meta(parquet_meta *m)
{
    for (size_t i = 0; i < m->nodes.n; i++)
        free(m->nodes.at[i].name);
    for (size_t i = 0; i < m->groups.n; i++)
        free(m->groups.at[i].chunks);
    free(m->nodes.at);
    free(m->groups.at);
    *m = (parquet_meta){0};
}
