/* Shards as people read them: what the header says, then a line a token with its weight and text. */
#include "tokenize.h"

#include "base/memory.h"

#include <string.h>
#include <unistd.h>

static void print_info(const sw_shard_info *h, const char *path, sw_buf *b)
{
    sw_buf_printf(b, "# %s\n", path);
    sw_buf_printf(b, "# made by      %s: %s\n", h->program, h->command_line);
    sw_buf_printf(b, "# vocabulary   %lld tokens, digest %s\n", (long long)h->vocab_size, h->vocab_digest);
    sw_buf_printf(b, "# template     %s\n", h->template_name ? h->template_name : "none");
    sw_buf_printf(b, "# task         %s\n", h->task);
    sw_buf_printf(b, "# trains on    %s\n", h->train_on);
    if (h->max_length)
        sw_buf_printf(b, "# max length   %lld%s\n", (long long)h->max_length, h->packing ? ", packed" : "");
    sw_buf_puts(b, "# columns     ");
    for (size_t i = 0; i < h->n_columns; i++)
        sw_buf_printf(b, " %s", h->columns[i].name);
    sw_buf_putc(b, '\n');
    const cJSON *class;
    if (h->classes)
        sw_buf_puts(b, "# classes     ");
    cJSON_ArrayForEach(class, h->classes)
        sw_buf_printf(b, " %s", class->valuestring);
    if (h->classes)
        sw_buf_putc(b, '\n');
}

/* The text of one token as a JSON string; of a token that is part of a character only, its vocabulary entry. */
static int token_text(const sw_tokenizer *t, int32_t id, sw_buf *out)
{
    sw_buf text = {0};
    int rc = sw_decode(t, &id, 1, false, &text);
    if (!rc && text.n && !strstr(text.at, "\xef\xbf\xbd")) {
        sw_buf_json(out, text.at, text.n);
    } else if (!rc) {
        sw_span piece = sw_token_piece(t, id);
        sw_buf_json(out, piece.at ? piece.at : "", piece.n);
    }
    sw_buf_free(&text);
    return rc;
}

/* The class of a token that has one. */
static void print_tag(const sw_shard_info *h, int32_t tag, sw_buf *b)
{
    const cJSON *name = h->classes && tag >= 0 ? cJSON_GetArrayItem(h->classes, tag) : NULL;
    if (name)
        sw_buf_printf(b, " %s", name->valuestring);
    else if (tag >= 0)
        sw_buf_printf(b, " %d", tag);
}

/* h and tags: NULL where tokens have no classes. */
static int print_tokens(const sw_tokenizer *t, const sw_shard_info *h, const int32_t *tags, const int32_t *ids, const float *weights, size_t n,
                        const uint32_t *segments, size_t n_segments, bool colour, sw_buf *b)
{
    for (size_t i = 0, segment = 0; i < n; i++) {
        if (segment + 1 < n_segments && i == segments[segment])
            sw_buf_printf(b, "    ---- document %zu\n", ++segment);
        bool lit = colour && weights && weights[i] != 0;
        sw_buf_printf(b, "%8zu %8d %-6.4g ", i, ids[i], weights ? weights[i] : 0);
        if (lit)
            sw_buf_puts(b, "\033[32m");
        if (t && token_text(t, ids[i], b))
            return -1;
        if (lit)
            sw_buf_puts(b, "\033[0m");
        if (tags)
            print_tag(h, tags[i], b);
        while (b->at[b->n - 1] == ' ')
            b->at[--b->n] = 0;
        sw_buf_putc(b, '\n');
    }
    return 0;
}

static size_t labelled(const float *w, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += w[i] != 0;
    return sum;
}

/* Numbers and texts that stand beside the tokens: "label 1 0" in the record's line, JSON on a line of its own. */
static void print_numbers(const sw_shard_info *h, const sw_shard_record *r, sw_buf *b)
{
    for (size_t c = 0; c < h->n_columns; c++) {
        if (h->columns[c].type != SW_COLUMN_F32)
            continue;
        sw_buf_printf(b, ", %s", h->columns[c].name);
        for (size_t i = 0; i < r->values[c].n; i++)
            sw_buf_printf(b, " %g", ((const float *)r->values[c].at)[i]);
    }
    sw_buf_putc(b, '\n');
    for (size_t c = 0; c < h->n_columns; c++) {
        if (h->columns[c].type != SW_COLUMN_BYTES || !r->values[c].n)
            continue;
        sw_buf_printf(b, "  %s: ", h->columns[c].name);
        for (size_t i = 0; i < r->values[c].n; i++) { /* somebody's bytes go to a terminal */
            unsigned char byte = ((const unsigned char *)r->values[c].at)[i];
            if (byte < ' ' || byte == 0x7f)
                sw_buf_printf(b, "\\x%02x", byte);
            else
                sw_buf_putc(b, (char)byte);
        }
        sw_buf_putc(b, '\n');
    }
}

/* The further sequences: "rejected.ids" with its weights, "positive.ids" with the ends of its texts. */
static int print_sequences(const sw_shard *s, const sw_tokenizer *t, const sw_shard_record *r, bool colour, sw_buf *b)
{
    const sw_shard_info *h = sw_shard_info_of(s);
    int rc = 0;
    for (size_t c = 0; !rc && c < h->n_columns; c++) {
        const char *name = h->columns[c].name, *dot = strrchr(name, '.');
        if (!dot || strcmp(dot, ".ids"))
            continue;
        int prefix = (int)(dot - name);
        char other[256];
        snprintf(other, sizeof other, "%.*s.weights", prefix, name);
        int weights = sw_shard_column(s, other);
        snprintf(other, sizeof other, "%.*s.segments", prefix, name);
        int ends = sw_shard_column(s, other);
        size_t n = r->values[c].n;
        sw_buf_printf(b, "  %.*s: %zu tokens", prefix, name, n);
        if (weights >= 0)
            sw_buf_printf(b, ", %zu labelled", labelled(r->values[weights].at, n));
        if (ends >= 0)
            sw_buf_printf(b, ", %zu texts", r->values[ends].n);
        sw_buf_putc(b, '\n');
        rc = print_tokens(t, NULL, NULL, r->values[c].at, weights < 0 ? NULL : r->values[weights].at, n,
                          ends < 0 ? NULL : r->values[ends].at, ends < 0 ? 0 : r->values[ends].n, colour, b);
    }
    return rc;
}

static int print_record(const sw_shard *s, const sw_tokenizer *t, const sw_shard_record *r, bool colour, sw_buf *b)
{
    sw_buf_printf(b, "record %lld: %zu tokens, %zu labelled", (long long)r->number, r->n, labelled(r->weights, r->n));
    if (r->n_segments > 1)
        sw_buf_printf(b, ", %zu documents", r->n_segments);
    print_numbers(sw_shard_info_of(s), r, b);
    int tags = sw_shard_column(s, "tags");
    return print_tokens(t, sw_shard_info_of(s), tags < 0 ? NULL : r->values[tags].at, r->ids, r->weights, r->n, r->segments, r->n_segments, colour, b) ||
                   print_sequences(s, t, r, colour, b)
               ? -1
               : 0;
}

static int flush(sw_buf *b)
{
    if (fwrite(b->at, 1, b->n, stdout) != b->n)
        return sw_fail_errno("standard output: write");
    sw_buf_clear(b);
    return 0;
}

static int inspect_one(const tokenize_options *o, const sw_tokenizer *t, const char *path)
{
    sw_shard *s = sw_shard_open(path);
    if (!s)
        return -1;
    sw_digest d = {0};
    if (t)
        d = sw_tokenizer_vocab_digest(t);
    sw_buf b = {0};
    sw_shard_record r;
    bool colour = isatty(STDOUT_FILENO);
    int rc = t ? sw_shard_check_vocab(s, d.hex) : 0, more = 1;
    if (!rc) {
        print_info(sw_shard_info_of(s), path, &b);
        rc = flush(&b);
    }
    for (int64_t i = 0; !rc && (!o->limit || i < o->limit) && (more = sw_shard_next(s, &r)) > 0; i++) {
        rc = print_record(s, t, &r, colour, &b);
        if (!rc)
            rc = flush(&b);
    }
    if (more < 0)
        rc = -1;
    const sw_shard_totals *n = sw_shard_totals_of(s);
    if (!rc && n) {
        sw_buf_printf(&b, "# %lld records, %lld documents, %lld tokens, %lld labelled, the longest %lld\n",
                      (long long)n->records, (long long)n->segments, (long long)n->tokens, (long long)n->labelled,
                      (long long)n->longest);
        rc = flush(&b);
    }
    sw_buf_free(&b);
    sw_shard_close(s);
    return rc;
}

int tokenize_inspect(const tokenize_options *o, const sw_tokenizer *tokenizer, int n, char **shards)
{
    int rc = n ? 0 : inspect_one(o, tokenizer, "-");
    for (int i = 0; i < n && !rc; i++)
        rc = inspect_one(o, tokenizer, shards[i]);
    return rc;
}
