/* Rows of data files with what templates may ask of them. */
#include "eval.h"

#include "base/memory.h"
#include "data/jsonl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct reading {
    char *stem;
    int64_t index, limit;
    int (*each)(void *context, cJSON *row, const char *where);
    void *context;
} reading;

static int give(reading *r, cJSON *row, const char *where)
{
    r->index++;
    if (!cJSON_IsObject(row)) {
        int rc = sw_fail("%s: an object is needed, not %s", where, sw_json_kind(row));
        cJSON_Delete(row);
        return rc;
    }
    if (!cJSON_GetObjectItemCaseSensitive(row, "file"))
        cJSON_AddStringToObject(row, "file", r->stem);
    if (!cJSON_GetObjectItemCaseSensitive(row, "index"))
        cJSON_AddNumberToObject(row, "index", (double)r->index);
    return r->each(r->context, row, where);
}

/* The elements of a list that a row wraps (with other members, which are left alone). */
static int give_members(reading *r, cJSON *list, const char *member, const char *where)
{
    int rc = 0;
    for (int64_t n = 1; list->child && !rc && !(r->limit && r->index >= r->limit); n++) {
        char *name = sw_strfmt("%s: \"%s\" number %lld", where, member, (long long)n);
        rc = give(r, cJSON_DetachItemViaPointer(list, list->child), name);
        free(name);
    }
    return rc;
}

static int read_file(const char *path, const char *member, cJSON *digests, reading *r)
{
    sw_rows *rows = sw_rows_open(path, SW_ROWS_AUTO, SW_TEXT_LINE);
    if (!rows)
        return -1;
    sw_row row;
    int got = 0, rc = 0;
    r->index = 0;
    while (!rc && !(r->limit && r->index >= r->limit) && (got = sw_rows_next(rows, &row)) > 0) {
        cJSON *v = sw_row_json(rows, row.at, row.n, row.line);
        char *where = sw_strfmt("%s: line %lld", sw_rows_name(rows), (long long)row.line);
        cJSON *list = v && member ? cJSON_GetObjectItemCaseSensitive(v, member) : NULL;
        if (!v) {
            rc = -1;
        } else if (cJSON_IsArray(list)) {
            rc = give_members(r, list, member, where);
            cJSON_Delete(v);
        } else {
            rc = give(r, v, where);
        }
        free(where);
    }
    if (got < 0)
        rc = -1;
    if (!rc && !r->index)
        rc = sw_fail("%s: has no records", sw_rows_name(rows));
    if (!rc && digests) {
        cJSON *one = cJSON_CreateObject();
        sw_digest d = sw_rows_digest(rows);
        cJSON_AddStringToObject(one, "file", path);
        cJSON_AddStringToObject(one, "digest", d.hex);
        cJSON_AddItemToArray(digests, one);
    }
    sw_rows_close(rows);
    return rc;
}

int eval_each_row(char *const *files, int n, const char *member, int64_t limit, cJSON *digests,
                  int (*each)(void *context, cJSON *row, const char *where), void *context)
{
    static char *const standard[] = {(char *)"-"};
    int rc = 0;
    for (int i = 0; i < SW_MAX(n, 1) && !rc; i++) {
        const char *path = n ? files[i] : standard[0], *slash = strrchr(path, '/');
        reading r = {.limit = limit, .each = each, .context = context};
        r.stem = sw_strdup(strcmp(path, "-") ? slash ? slash + 1 : path : "stdin");
        char *point = strchr(r.stem, '.');
        if (point && point > r.stem)
            *point = 0;
        rc = read_file(path, member, digests, &r);
        free(r.stem);
    }
    return rc;
}

int eval_put(sw_buf *b)
{
    int rc = fwrite(b->at, 1, b->n, stdout) == b->n ? 0 : sw_fail_errno("standard output");
    sw_buf_free(b);
    return rc;
}
