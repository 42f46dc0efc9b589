/* A tokenizer as the files of a Hugging Face folder: its parts as they were read (or made for it), its vocabulary. */
#include "text/tokenizer_base64.h"
#include "text/tokenizer_parts.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

static int by_rank(const void *a, const void *b)
{
    const sw_merge *x = *(const sw_merge *const *)a, *y = *(const sw_merge *const *)b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->left != y->left ? (x->left > y->left) - (x->left < y->left)
                              : (x->right > y->right) - (x->right < y->right);
}

static int by_id(const void *a, const void *b)
{
    int32_t x = (*(const sw_added *const *)a)->id, y = (*(const sw_added *const *)b)->id;
    return (x > y) - (x < y);
}

static const char *yes(bool b) { return b ? "true" : "false"; }

static void write_added(const sw_tokenizer *t, sw_buf *b)
{
    const sw_added **added = SW_NEW_ARRAY(const sw_added *, t->added.n + 1);
    for (size_t i = 0; i < t->added.n; i++)
        added[i] = &t->added.at[i];
    if (t->added.n)
        qsort(added, t->added.n, sizeof *added, by_id);
    for (size_t i = 0; i < t->added.n; i++) {
        const sw_added *a = added[i];
        sw_buf_printf(b, "%s\n    {\"id\": %d, \"content\": ", i ? "," : "", a->id);
        sw_buf_json(b, a->text, a->n);
        sw_buf_printf(b, ", \"single_word\": %s, \"lstrip\": %s, \"rstrip\": %s, \"normalized\": %s, \"special\": %s}",
                      yes(a->single_word), yes(a->lstrip), yes(a->rstrip), yes(a->normalized), yes(a->special));
    }
    free(added);
}

static void text_or_null(sw_buf *b, const char *name, const char *s)
{
    sw_buf_printf(b, "\"%s\": ", name);
    if (*s)
        sw_buf_json(b, s, strlen(s));
    else
        sw_buf_puts(b, "null");
    sw_buf_puts(b, ", ");
}

static void write_words(const sw_tokenizer *t, sw_buf *b)
{
    sw_buf_puts(b, "\"vocab\": {");
    bool comma = false;
    for (int64_t id = 0; id < t->size; id++) {
        if (!t->words[id].at)
            continue;
        sw_buf_puts(b, comma ? ",\n      " : "\n      ");
        comma = true;
        sw_buf_json(b, t->words[id].at, t->words[id].n);
        sw_buf_printf(b, ": %lld", (long long)id);
    }
    sw_buf_puts(b, "\n    }");
}

static void write_merges(const sw_tokenizer *t, sw_buf *b)
{
    sw_buf_puts(b, ",\n    \"merges\": [");
    const sw_merge **order = SW_NEW_ARRAY(const sw_merge *, t->merge_cap);
    size_t n = 0;
    for (size_t i = 0; i < t->merge_cap; i++)
        if (t->merges[i].left >= 0)
            order[n++] = &t->merges[i];
    if (n)
        qsort(order, n, sizeof *order, by_rank);
    for (size_t i = 0; i < n; i++) {
        sw_buf_puts(b, i ? ",\n      [" : "\n      [");
        sw_span l = t->words[order[i]->left], r = t->words[order[i]->right];
        sw_buf_json(b, l.at, l.n);
        sw_buf_puts(b, ", ");
        sw_buf_json(b, r.at, r.n);
        sw_buf_puts(b, "]");
    }
    free(order);
    sw_buf_puts(b, "\n    ]");
}

static void write_model(const sw_tokenizer *t, sw_buf *b)
{
    switch (t->model) {
    case SW_BPE:
        sw_buf_puts(b, "\"type\": \"BPE\", \"dropout\": null, ");
        text_or_null(b, "unk_token", t->unk_text);
        text_or_null(b, "continuing_subword_prefix", t->prefix_text);
        text_or_null(b, "end_of_word_suffix", t->suffix_text);
        sw_buf_printf(b, "\"fuse_unk\": %s, \"byte_fallback\": %s, \"ignore_merges\": %s,\n    ", yes(t->fuse_unk),
                      yes(t->byte_fallback), yes(t->ignore_merges));
        write_words(t, b);
        write_merges(t, b);
        break;
    case SW_UNIGRAM:
        sw_buf_puts(b, "\"type\": \"Unigram\", \"unk_id\": ");
        if (t->unk >= 0)
            sw_buf_printf(b, "%d", t->unk);
        else
            sw_buf_puts(b, "null");
        sw_buf_printf(b, ", \"byte_fallback\": %s,\n    \"vocab\": [", yes(t->byte_fallback));
        for (int64_t id = 0, first = 1; id < t->size && t->words[id].at; id++, first = 0) {
            sw_buf_puts(b, first ? "\n      [" : ",\n      [");
            sw_buf_json(b, t->words[id].at, t->words[id].n);
            sw_buf_puts(b, ", ");
            sw_json_number(b, t->scores[id]);
            sw_buf_puts(b, "]");
        }
        sw_buf_puts(b, "\n    ]");
        break;
    default:
        sw_buf_printf(b, "\"type\": \"%s\", \"unk_token\": ", t->model == SW_WORDPIECE ? "WordPiece" : "WordLevel");
        sw_buf_json(b, t->unk_text, strlen(t->unk_text));
        if (t->model == SW_WORDPIECE) {
            sw_buf_puts(b, ", \"continuing_subword_prefix\": ");
            sw_buf_json(b, t->prefix_text, strlen(t->prefix_text));
            sw_buf_printf(b, ", \"max_input_chars_per_word\": %lld", (long long)t->max_chars);
        }
        sw_buf_puts(b, ",\n    ");
        write_words(t, b);
        break;
    }
}

void sw_post_template(const sw_tokenizer *t, int32_t bos, int32_t eos, sw_buf *b)
{
    int32_t ids[2] = {bos, eos};
    if (bos < 0 && eos < 0)
        return;
    sw_buf_puts(b, "{\"type\": \"TemplateProcessing\", ");
    for (int pair = 0; pair < 2; pair++) {
        sw_buf_printf(b, "\"%s\": [", pair ? "pair" : "single");
        for (int k = 0; k <= pair; k++) {
            if (k)
                sw_buf_puts(b, ", ");
            for (int end = 0; end < 2; end++) {
                if (end)
                    sw_buf_printf(b, "{\"Sequence\": {\"id\": \"%c\", \"type_id\": %d}}%s", 'A' + k, k,
                                  eos >= 0 ? ", " : "");
                if (ids[end] < 0)
                    continue;
                sw_buf_puts(b, "{\"SpecialToken\": {\"id\": ");
                sw_buf_json(b, t->pieces[ids[end]].at, t->pieces[ids[end]].n);
                sw_buf_printf(b, ", \"type_id\": %d}}%s", k, end ? "" : ", ");
            }
        }
        sw_buf_puts(b, "], ");
    }
    sw_buf_puts(b, "\"special_tokens\": {");
    for (int k = 0; k < 2; k++) {
        if (ids[k] < 0 || (k && ids[0] == ids[1]))
            continue;
        sw_span p = t->pieces[ids[k]];
        sw_buf_puts(b, k && ids[0] >= 0 ? ", " : "");
        sw_buf_json(b, p.at, p.n);
        sw_buf_puts(b, ": {\"id\": ");
        sw_buf_json(b, p.at, p.n);
        sw_buf_printf(b, ", \"ids\": [%d], \"tokens\": [", ids[k]);
        sw_buf_json(b, p.at, p.n);
        sw_buf_puts(b, "]}");
    }
    sw_buf_puts(b, "}}");
}

void sw_unigram_normaliser(const char *charsmap, size_t n, bool squeeze, sw_buf *b)
{
    sw_buf_puts(b, "{\"type\": \"Sequence\", \"normalizers\": [");
    if (n) {
        sw_buf_puts(b, "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"");
        sw_base64_encode(charsmap, n, b);
        sw_buf_puts(b, "\"}");
    }
    if (squeeze)
        sw_buf_printf(b,
                      "%s{\"type\": \"Strip\", \"strip_left\": false, \"strip_right\": true}, {\"type\": \"Replace\", "
                      "\"pattern\": {\"Regex\": "
                      "\" {2,}\"}, \"content\": \"\xe2\x96\x81\"}",
                      n ? ", " : "");
    sw_buf_puts(b, "]}");
}

int sw_tokenizer_to_json(const sw_tokenizer *t, sw_buf *b, sw_buf *config)
{
    sw_buf_puts(b, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [");
    write_added(t, b);
    sw_buf_puts(b, "\n  ],\n");
    for (int i = 0; i < SW_PART_COUNT; i++)
        sw_buf_printf(b, "  \"%s\": %s,\n", sw_part_names[i], t->parts[i] ? t->parts[i] : "null");
    sw_buf_puts(b, "  \"model\": {\n    ");
    write_model(t, b);
    sw_buf_puts(b, "\n  }\n}\n");
    sw_buf_puts(config, "{\n");
    const struct {
        const char *key;
        int32_t id;
    } tokens[] = {{"bos_token", t->bos}, {"eos_token", t->eos}, {"pad_token", t->pad}};
    for (size_t i = 0; i < SW_COUNT(tokens); i++) {
        if (tokens[i].id < 0)
            continue;
        sw_buf_printf(config, "  \"%s\": ", tokens[i].key);
        sw_buf_json(config, t->pieces[tokens[i].id].at, t->pieces[tokens[i].id].n);
        sw_buf_puts(config, ",\n");
    }
    if (t->chat_template) {
        sw_buf_puts(config, "  \"chat_template\": ");
        sw_buf_json(config, t->chat_template, strlen(t->chat_template));
        sw_buf_puts(config, ",\n");
    }
    sw_buf_puts(config, "  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n");
    return 0;
}
