/* What a run says about its data: what the files were taken for, what happened to the records, how long they are. */
#include "tokenize.h"

#include "base/gnuplot.h"
#include "base/log.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { TOLD_FILES = 8, BARS = 48, LISTS = SW_FORMAT_COMPLETION + 1, TAGGED };

/* ---- what was recognised */

static const char *const what[] = {[SW_FORMAT_MESSAGES] = "conversations (messages)",
                                   [SW_FORMAT_SHAREGPT] = "conversations (sharegpt)",
                                   [SW_FORMAT_ALPACA] = "instructions and outputs (alpaca)",
                                   [SW_FORMAT_QUERY] = "queries and responses",
                                   [SW_FORMAT_TEXT] = "texts",
                                   [SW_FORMAT_COMPLETION] = "prompts and completions",
                                   [LISTS] = "texts with others to compare (anchor, positive, negative)",
                                   [TAGGED] = "words and their classes"};

static char *describe(const sw_rows *rows, int format, const outcome *told)
{
    const char *with[] = {told->tools ? "tools" : NULL, told->rejected ? "rejected answers" : NULL,
                          told->labels ? "labels" : NULL, told->media ? "images, videos or audios" : NULL};
    sw_buf b = {0};
    sw_buf_printf(&b, "%s of %s", sw_rows_kind_name(rows), what[format]);
    for (size_t i = 0, n = 0; i < SW_COUNT(with); i++)
        if (with[i])
            sw_buf_printf(&b, "%s%s", n++ ? ", " : " with ", with[i]);
    return sw_buf_take(&b);
}

void account_row(account *a, int i, const outcome *told)
{
    file_account *f = &a->files[i];
    int format = told->tags ? TAGGED : told->lists ? LISTS : (int)told->format;
    f->rows++;
    f->formats[format]++;
    const int64_t *from = (const int64_t *)&told->n;
    for (size_t k = 0; k < sizeof a->n / sizeof *from; k++)
        ((int64_t *)&a->n)[k] += from[k];
    if (told->length) {
        sw_lengths_add(&a->lengths, told->length);
        sw_lengths_add(&a->labelled, told->labelled);
    }
    if (f->told)
        return;
    const sw_rows *rows = sw_mixture_file(a->mixture, i);
    f->told = describe(rows, format, told);
    bool like_before = i > 0 && a->files[i - 1].told && !strcmp(a->files[i - 1].told, f->told);
    if (a->described < TOLD_FILES || !like_before)
        sw_info("%s: %s", sw_rows_name(rows), f->told);
    if (a->described++ == TOLD_FILES)
        sw_info("of the other files only those are told that hold something else");
}

/* Files whose records are of several formats. */
static void tell_mixed(const account *a)
{
    for (int i = 0; i < sw_mixture_files(a->mixture); i++) {
        sw_buf b = {0};
        int n = 0;
        for (int k = 0; k <= TAGGED; k++)
            if (a->files[i].formats[k])
                sw_buf_printf(&b, "%s%lld %s", n++ ? ", " : "", (long long)a->files[i].formats[k], what[k]);
        if (n > 1)
            sw_warn("%s: holds %s; --format makes them all one", sw_rows_name(sw_mixture_file(a->mixture, i)), b.at);
        sw_buf_free(&b);
    }
}

/* ---- the end record */

static const char *const count_names[] = {"truncated",  "dropped", "empty",    "split",
                                          "unlabelled", "chats",   "unfilled", "unused_tools", "end_trained"};
_Static_assert(sizeof(counts) == sizeof(int64_t) * SW_COUNT(count_names), "a name for each count");

cJSON *account_report(const account *a, const sink *s, bool complete)
{
    cJSON *o = cJSON_CreateObject(), *inputs = cJSON_AddArrayToObject(o, "inputs");
    for (int i = 0; complete && i < sw_mixture_files(a->mixture); i++) {
        const sw_rows *rows = sw_mixture_file(a->mixture, i);
        if (!rows)
            continue;
        cJSON *f = cJSON_CreateObject();
        cJSON_AddStringToObject(f, "name", sw_rows_name(rows));
        cJSON_AddNumberToObject(f, "bytes", (double)sw_rows_bytes(rows));
        cJSON_AddStringToObject(f, "digest", sw_rows_digest(rows).hex);
        cJSON_AddNumberToObject(f, "records", (double)sw_mixture_taken(a->mixture, i));
        cJSON_AddItemToArray(inputs, f);
    }
    const struct {
        const char *name;
        int64_t n;
    } others[] = {
        {"rows", a->rows}, {"bad", a->bad}, {"duplicates", a->duplicates}, {"packs", s->packs}, {"packed", s->packed}};
    for (size_t i = 0; i < SW_COUNT(others); i++)
        cJSON_AddNumberToObject(o, others[i].name, (double)others[i].n);
    for (size_t i = 0; i < SW_COUNT(count_names); i++)
        cJSON_AddNumberToObject(o, count_names[i], (double)((const int64_t *)&a->n)[i]);
    cJSON_AddBoolToObject(o, "complete", complete);
    return o;
}

int account_resume(account *a, sink *s, const cJSON *report)
{
    const struct {
        const char *name;
        int64_t *n;
    } others[] = {{"rows", &a->rows}, {"bad", &a->bad}, {"packs", &s->packs}, {"packed", &s->packed}};
    for (size_t i = 0; i < SW_COUNT(others); i++)
        if (sw_json_i64(report, others[i].name, 0, INT64_C(1) << 53, 0, others[i].n))
            return -1;
    for (size_t i = 0; i < SW_COUNT(count_names); i++)
        if (sw_json_i64(report, count_names[i], 0, INT64_C(1) << 53, 0, &((int64_t *)&a->n)[i]))
            return -1;
    return 0;
}

/* ---- the end of the run */

static void warn(const account *a)
{
    const tokenize_job *job = a->job;
    const counts *n = &a->n;
    if (n->chats && job->end_token < 0) {
        sw_warn("the template %s puts no token after an answer: a model tuned on this will not know where to stop",
                sw_template_name(job->template));
    } else if (n->chats && !n->end_trained) {
        sw_span s = sw_token_piece(job->tokenizer, job->end_token);
        sw_warn("no record trains the template's end-of-turn token %.*s: a model tuned on this may never stop",
                (int)s.n, s.at);
    }
    if (n->unfilled)
        sw_warn("%lld records hold a {{NAME}} that is not filled in; --fill NAME=VALUE does that",
                (long long)n->unfilled);
    if (n->unused_tools)
        sw_warn("%lld records have tools, and the chat template %s makes nothing of them; choose a built-in --template",
                (long long)n->unused_tools, sw_template_name(job->template));
    if (n->unlabelled)
        sw_warn("%lld records have no labelled token: there is nothing to learn from them", (long long)n->unlabelled);
    if (!a->rows)
        sw_warn("the input is empty, and so is the shard");
}

static void tell(const sink *s)
{
    sw_shard_totals t = sink_totals(s);
    sw_buf b = {0};
    sw_buf_printf(&b, "%s: %lld records, %lld tokens, %lld labelled, the longest %lld",
                  strcmp(s->path, "-") ? s->path : "standard output", (long long)t.records, (long long)t.tokens,
                  (long long)t.labelled, (long long)t.longest);
    if (s->job->o->packing)
        sw_buf_printf(&b, "; %lld documents, packs %.1f%% full", (long long)t.segments, 100 * sink_fill(s));
    if (s->job->o->shard_tokens)
        sw_buf_printf(&b, "; %d shards", s->part);
    sw_info("%s", b.at);
    sw_buf_free(&b);
}

void account_tell(const account *a, const sink *train, const sink *validation, double seconds)
{
    const counts *n = &a->n;
    char took[32];
    tell_mixed(a);
    tell(train);
    double tokens = (double)sink_totals(train).tokens;
    if (validation) {
        tell(validation);
        tokens += (double)sink_totals(validation).tokens;
    }
    sw_info("%lld rows: %lld bad, %lld empty, %lld duplicates, %lld truncated, %lld split, %lld dropped as longer than "
            "--max-length",
            (long long)a->rows, (long long)a->bad, (long long)n->empty, (long long)a->duplicates,
            (long long)n->truncated, (long long)n->split, (long long)n->dropped);
    if (a->lengths.n)
        sw_info("tokens of a record, before anything was cut: mean %.1f, median %lld, 95%% have at most %lld, 99%% at "
                "most %lld, "
                "the longest %lld",
                a->lengths.sum / (double)a->lengths.n, (long long)sw_lengths_quantile(&a->lengths, 0.5),
                (long long)sw_lengths_quantile(&a->lengths, 0.95), (long long)sw_lengths_quantile(&a->lengths, 0.99),
                (long long)a->lengths.max);
    sw_info("%.4g tokens/s, %s", tokens / SW_MAX(seconds, 1e-9), sw_human_seconds(seconds, took));
    warn(a);
}

static int plot(const account *a, const char *path)
{
    cJSON *o = sw_lengths_json(&a->lengths, BARS);
    const cJSON *bar;
    sw_buf s = {0};
    sw_buf_puts(&s, "set title ");
    char *title = sw_strfmt("%lld records", (long long)a->lengths.n);
    sw_gnuplot_text(&s, title);
    free(title);
    sw_buf_puts(&s, "\nset xlabel 'tokens'\nset ylabel 'records'\nset style fill solid 0.7\nset grid y\nset key off\n"
                    "plot '-' using 1:2:3 with boxes lc rgb '#3465a4'\n");
    cJSON_ArrayForEach(bar, sw_json_get(o, "histogram"))
    {
        double from = bar->child->valuedouble, to = bar->child->next->valuedouble;
        sw_buf_printf(&s, "%.1f %.0f %.0f\n", (from + to + 1) / 2, bar->child->next->next->valuedouble, to + 1 - from);
    }
    sw_buf_puts(&s, "e\n");
    cJSON_Delete(o);
    int rc = sw_gnuplot((sw_span){s.at, s.n}, 900, 500, path);
    sw_buf_free(&s);
    return rc;
}

int account_write_stats(const account *a, const char *path)
{
    if (sw_plot_name(path))
        return a->lengths.n ? plot(a, path) : sw_fail("%s: there is no record to plot", path);
    cJSON *o = cJSON_CreateObject(), *files = cJSON_CreateArray();
    cJSON_AddNumberToObject(o, "rows", (double)a->rows);
    cJSON_AddNumberToObject(o, "bad", (double)a->bad);
    cJSON_AddNumberToObject(o, "duplicates", (double)a->duplicates);
    for (int i = 0; i < 4; i++)
        cJSON_AddNumberToObject(o, count_names[i], (double)((const int64_t *)&a->n)[i]);
    cJSON_AddItemToObject(o, "tokens", sw_lengths_json(&a->lengths, BARS));
    cJSON_AddItemToObject(o, "labelled", sw_lengths_json(&a->labelled, BARS));
    for (int i = 0; i < sw_mixture_files(a->mixture); i++) {
        if (!sw_mixture_file(a->mixture, i))
            continue;
        cJSON *f = cJSON_CreateObject();
        cJSON_AddStringToObject(f, "name", sw_rows_name(sw_mixture_file(a->mixture, i)));
        cJSON_AddStringToObject(f, "holds", a->files[i].told ? a->files[i].told : "nothing");
        cJSON_AddNumberToObject(f, "records", (double)a->files[i].rows);
        cJSON_AddItemToArray(files, f);
    }
    cJSON_AddItemToObject(o, "files", files);
    sw_buf b = {0};
    sw_json_print_pretty(&b, o);
    cJSON_Delete(o);
    int rc = sw_write_file(path, b.at, b.n);
    sw_buf_free(&b);
    return rc;
}

void account_free(account *a)
{
    for (int i = 0; a->files && i < sw_mixture_files(a->mixture); i++)
        free(a->files[i].told);
    free(a->files);
}
