/* A folder of shards that a run can go on with: each shard appears whole, and its end record says how many rows of the
 * input are in it and in those before it. Packs do not reach from one shard into the next. */
#include "tokenize.h"

#include "base/log.h"
#include "base/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static cJSON *input_names(int n, char **inputs)
{
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < n; i++)
        cJSON_AddItemToArray(list, cJSON_CreateString(inputs[i]));
    return list;
}

/* The names are kept in the folder: what is passed over must be what was read. Files may be added at the end. */
static int check_inputs(const char *path, const cJSON *now)
{
    cJSON *before = sw_json_load(path);
    if (!before)
        return -1;
    int rc = cJSON_IsArray(before) ? 0 : sw_fail("%s: an array of names is needed", path);
    const cJSON *a = before->child, *b = now->child;
    for (int i = 1; !rc && a; a = a->next, b = b ? b->next : NULL, i++)
        if (!b || !cJSON_Compare(a, b, true))
            rc = sw_fail(
                "%s: input %d was %s and is now %s; a run goes on with the inputs that it had, more may follow them",
                path, i, cJSON_IsString(a) ? a->valuestring : "?", b ? b->valuestring : "missing");
    bool more = !rc && b;
    cJSON_Delete(before);
    return rc ? -1 : more;
}

/* What the shard was made with must be what this run makes shards with. */
static int check_shard(const tokenize_job *job, const sw_shard *s, const char *path)
{
    const sw_shard_info *info = sw_shard_info_of(s);
    cJSON *options = header_options();
    const cJSON *differs = NULL;
    cJSON *o;
    cJSON_ArrayForEach(o, options)
    {
        const cJSON *had = cJSON_GetObjectItemCaseSensitive(info->options, o->string);
        if (!had || !cJSON_Compare(o, had, true))
            differs = differs ? differs : o;
    }
    int rc = differs ? sw_fail("%s: was made with another --%s; a run goes on with the options that it had", path,
                               differs->string)
                     : 0;
    cJSON_Delete(options);
    sw_digest tokenizer = sw_tokenizer_digest(job->tokenizer);
    if (!rc && strcmp(tokenizer.hex, info->tokenizer_digest))
        rc = sw_fail("%s: was made with another tokenizer", path);
    return rc;
}

static void add_totals(sw_shard_totals *t, const sw_shard_totals *one)
{
    t->frames += one->frames, t->records += one->records, t->tokens += one->tokens;
    t->labelled += one->labelled, t->segments += one->segments;
    t->longest = SW_MAX(t->longest, one->longest);
}

/* Reads the shards that are there: *complete says whether the last one ended its input. */
static int read_parts(account *a, sink *s, bool *complete)
{
    int rc = 0;
    *complete = false;
    for (;; s->part++) {
        char *path = sink_part_name(s->path, s->part);
        sw_shard *shard = sw_is_file(path) ? sw_shard_open(path) : NULL;
        bool there = shard != NULL || sw_is_file(path);
        if (there)
            rc = !shard || check_shard(a->job, shard, path) || account_resume(a, s, sw_shard_report(shard)) ||
                         sw_json_bool(sw_shard_report(shard), "complete", false, complete)
                     ? -1
                     : 0;
        if (!rc && there)
            add_totals(&s->before, sw_shard_totals_of(shard));
        sw_shard_close(shard);
        free(path);
        if (rc || !there)
            return rc;
    }
}

int series_begin(account *a, sink *s, sw_mixture *m, int n, char **inputs)
{
    const tokenize_options *o = a->job->o;
    if (sw_mkdirs(s->path) || sw_sweep_temporaries(s->path))
        return -1;
    char *first = sink_part_name(s->path, 0), *list = sw_path_join(s->path, "inputs.json");
    cJSON *names = input_names(n, inputs);
    bool there = sw_is_file(first), complete = false;
    int rc = 0, more = 0;
    if (there && !o->resume)
        rc = sw_fail("%s: holds shards already; --resume goes on with them, or remove them", s->path);
    if (!rc && there) {
        more = check_inputs(list, names);
        rc = more < 0 || read_parts(a, s, &complete) ? -1 : 0;
    }
    if (!rc && (!there || more)) {
        sw_buf b = {0};
        sw_json_print_pretty(&b, names);
        rc = sw_write_file(list, b.at, b.n);
        sw_buf_free(&b);
    }
    int64_t rows = a->rows;
    if (!rc && there)
        sw_info("%s: %d shards are there, made from %lld rows%s", s->path, s->part, (long long)rows,
                complete && !more ? "; all is done" : "; the next row follows");
    if (!rc && complete && more && o->mix != SW_MIX_CONCAT)
        rc = sw_fail("%s: is complete; interleaved inputs cannot be added to", s->path);
    if (!rc && (!complete || more))
        rc = sw_mixture_skip(m, rows);
    cJSON_Delete(names);
    free(first);
    free(list);
    return rc ? -1 : !complete || more;
}
