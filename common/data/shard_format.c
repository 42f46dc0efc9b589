#include "data/shard_format.h"

#include "base/memory.h"
#include "base/strbuf.h"

#include <math.h>

const char *const shard_type_names[] = {"bytes", "i32", "u32", "i64", "f32", "runs", NULL};

size_t shard_item_bytes(sw_column_type t)
{
    switch (t) {
    case SW_COLUMN_BYTES: return 1;
    case SW_COLUMN_I64: return 8;
    default: return 4;
    }
}

static int find(const sw_shard_info *info, const char *name, size_t n, const char *suffix)
{
    for (size_t i = 0; i < info->n_columns; i++)
        if (!strncmp(info->columns[i].name, name, n) && !strcmp(info->columns[i].name + n, suffix))
            return (int)i;
    return -1;
}

int shard_layout_of(const sw_shard_info *info, shard_layout *l)
{
    if (info->n_columns > SHARD_COLUMNS_MAX)
        return sw_fail("%zu columns; a shard has at most %d", info->n_columns, SHARD_COLUMNS_MAX);
    for (size_t i = 0; i < info->n_columns; i++) {
        const char *name = info->columns[i].name, *dot = strrchr(name, '.');
        size_t prefix = dot ? (size_t)(dot + 1 - name) : 0;
        if (find(info, name, strlen(name), "") != (int)i)
            return sw_fail("column \"%s\" is declared twice", name);
        bool ids = !strcmp(name + prefix, "ids"), weights = !strcmp(name + prefix, "weights");
        bool segments = !strcmp(name + prefix, "segments"), tags = !strcmp(name + prefix, "tags");
        l->of[i] = weights || segments || tags ? find(info, name, prefix, "ids") : -1;
        if ((weights || segments || tags) && l->of[i] < 0)
            return sw_fail("column \"%s\" describes the ids of a column that is not declared", name);
        sw_column_type want = ids || tags ? SW_COLUMN_I32 : weights ? SW_COLUMN_RUNS : SW_COLUMN_U32;
        if ((ids || weights || segments || tags) && info->columns[i].type != want)
            return sw_fail("column \"%s\" must have the type %s", name, shard_type_names[want]);
    }
    l->ids = find(info, "ids", 3, "");
    l->weights = find(info, "weights", 7, "");
    l->segments = find(info, "segments", 8, "");
    if (l->ids < 0 || l->weights < 0)
        return sw_fail("the columns \"ids\" and \"weights\" must be there");
    return 0;
}

static int check_weights(const char *name, const sw_value *v, size_t ids)
{
    const float *w = v->at;
    if (v->n != ids)
        return sw_fail("column \"%s\" has %zu values for %zu ids", name, v->n, ids);
    for (size_t i = 0; i < v->n; i++)
        if (!isfinite(w[i]))
            return sw_fail("column \"%s\": the weight of token %zu is not finite", name, i);
    if (v->n && w[0] != 0)
        return sw_fail("column \"%s\": the first token follows nothing and must have the weight 0", name);
    return 0;
}

static int check_tags(const char *name, const sw_value *v, size_t ids, int64_t classes)
{
    const int32_t *tag = v->at;
    if (v->n != ids)
        return sw_fail("column \"%s\" has %zu values for %zu ids", name, v->n, ids);
    for (size_t i = 0; i < v->n; i++)
        if (tag[i] < -1 || tag[i] >= classes)
            return sw_fail("column \"%s\": the class of token %zu is %d; -1 (none) to %lld are possible", name, i, tag[i], (long long)classes - 1);
    return 0;
}

static int check_segments(const char *name, const sw_value *v, size_t ids, const float *weights)
{
    const uint32_t *end = v->at;
    for (size_t i = 0; i < v->n; i++) {
        if (end[i] <= (i ? end[i - 1] : 0) || end[i] > ids)
            return sw_fail("column \"%s\": segment %zu ends at %u, not after the one before and within %zu ids", name,
                           i, end[i], ids);
        if (weights && end[i] < ids && weights[end[i]] != 0)
            return sw_fail("column \"%s\": the first token of segment %zu must have the weight 0", name, i + 1);
    }
    if (ids && (!v->n || end[v->n - 1] != ids))
        return sw_fail("column \"%s\": the last segment does not end at token %zu", name, ids);
    return 0;
}

int shard_check_record(const sw_shard_info *info, const shard_layout *l, const sw_value *values)
{
    if (!values[l->ids].n)
        return sw_fail("the record has no token");
    for (size_t c = 0; c < info->n_columns; c++) {
        const char *name = info->columns[c].name;
        const sw_value *v = &values[c];
        if (l->of[c] < 0) {
            bool ids = info->columns[c].type == SW_COLUMN_I32 && sw_ends_with(name, "ids") &&
                       (name[3] == 0 || name[strlen(name) - 4] == '.');
            for (size_t i = 0; ids && i < v->n; i++)
                if (((const int32_t *)v->at)[i] < 0 || ((const int32_t *)v->at)[i] >= info->vocab_size)
                    return sw_fail("column \"%s\": id %d of token %zu is not in the vocabulary of %lld", name,
                                   ((const int32_t *)v->at)[i], i, (long long)info->vocab_size);
            continue;
        }
        size_t n = values[l->of[c]].n;
        if (info->columns[c].type == SW_COLUMN_RUNS  ? check_weights(name, v, n)
            : info->columns[c].type == SW_COLUMN_I32 ? check_tags(name, v, n, info->classes ? cJSON_GetArraySize(info->classes) : INT32_MAX)
                                                     : check_segments(name, v, n, (int)c == l->segments ? values[l->weights].at : NULL))
            return -1;
    }
    return 0;
}

void shard_count_record(const shard_layout *l, const sw_value *values, sw_shard_totals *t)
{
    int64_t n = (int64_t)values[l->ids].n;
    const float *w = values[l->weights].at;
    t->records++;
    t->tokens += n;
    for (int64_t i = 0; i < n; i++)
        t->labelled += w[i] != 0;
    t->segments += l->segments >= 0 ? (int64_t)values[l->segments].n : 1;
    t->longest = SW_MAX(t->longest, n);
}
