/* A tokenizer as the files of a Hugging Face folder. */
#include "text/tokenizer_parts.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

static const char gpt2[] = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": %s}";

static void add_cut(sw_buf *b, const sw_cut *c)
{
    static const char cl100k[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|%s| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
                                 "\\s+(?!\\S)|\\s+";
    if (c->kind == SW_CUT_GPT2 && !c->expression) {
        sw_buf_printf(b, gpt2, "true");
        return;
    }
    if (c->kind == SW_CUT_DIGITS) {
        sw_buf_printf(b, "{\"type\": \"Digits\", \"individual_digits\": %s}", c->digits ? "true" : "false");
        return;
    }
    char *made = c->expression ? sw_strdup(c->expression) : sw_strfmt(cl100k, c->digits == 3 ? "\\p{N}{1,3}" : "\\p{N}");
    sw_buf_puts(b, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
    sw_buf_json(b, made, strlen(made));
    sw_buf_puts(b, "}, \"behavior\": \"Isolated\", \"invert\": false}");
    free(made);
}

static int by_rank(const void *a, const void *b)
{
    int32_t x = (*(const sw_merge *const *)a)->rank, y = (*(const sw_merge *const *)b)->rank;
    return (x > y) - (x < y);
}

static int by_id(const void *a, const void *b)
{
    int32_t x = (*(const sw_added *const *)a)->id, y = (*(const sw_added *const *)b)->id;
    return (x > y) - (x < y);
}

static void add_template(sw_buf *b, const sw_tokenizer *t)
{
    sw_span bos = t->prefix.n ? t->pieces[t->prefix.at[0]] : (sw_span){0}, eos = t->suffix.n ? t->pieces[t->suffix.at[0]] : (sw_span){0};
    for (int pair = 0; pair < 2; pair++) {
        sw_buf_printf(b, "\"%s\": [", pair ? "pair" : "single");
        for (int k = 0; k <= pair; k++) {
            if (k)
                sw_buf_puts(b, ", ");
            if (bos.n) {
                sw_buf_puts(b, "{\"SpecialToken\": {\"id\": ");
                sw_buf_json(b, bos.at, bos.n);
                sw_buf_printf(b, ", \"type_id\": %d}}, ", k);
            }
            sw_buf_printf(b, "{\"Sequence\": {\"id\": \"%c\", \"type_id\": %d}}", 'A' + k, k);
            if (eos.n) {
                sw_buf_puts(b, ", {\"SpecialToken\": {\"id\": ");
                sw_buf_json(b, eos.at, eos.n);
                sw_buf_printf(b, ", \"type_id\": %d}}", k);
            }
        }
        sw_buf_puts(b, "], ");
    }
    sw_buf_puts(b, "\"special_tokens\": {");
    const sw_ids *both[2] = {&t->prefix, &t->suffix};
    bool comma = false;
    for (int k = 0; k < 2; k++) {
        if (!both[k]->n || (k && t->prefix.n && t->prefix.at[0] == t->suffix.at[0]))
            continue;
        sw_span p = t->pieces[both[k]->at[0]];
        sw_buf_puts(b, comma ? ", " : "");
        comma = true;
        sw_buf_json(b, p.at, p.n);
        sw_buf_puts(b, ": {\"id\": ");
        sw_buf_json(b, p.at, p.n);
        sw_buf_printf(b, ", \"ids\": [%d], \"tokens\": [", both[k]->at[0]);
        sw_buf_json(b, p.at, p.n);
        sw_buf_puts(b, "]}");
    }
    sw_buf_puts(b, "}");
}

int sw_tokenizer_to_json(const sw_tokenizer *t, sw_buf *b, sw_buf *config)
{
    sw_buf_puts(b, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [");
    const sw_added **added = SW_NEW_ARRAY(const sw_added *, t->added.n);
    for (size_t i = 0; i < t->added.n; i++)
        added[i] = &t->added.at[i];
    if (t->added.n)
        qsort(added, t->added.n, sizeof *added, by_id);
    for (size_t i = 0; i < t->added.n; i++) {
        const sw_added *a = added[i];
        sw_buf_printf(b, "%s\n    {\"id\": %d, \"content\": ", i ? "," : "", a->id);
        sw_buf_json(b, a->text, a->n);
        sw_buf_printf(b, ", \"single_word\": %s, \"lstrip\": %s, \"rstrip\": %s, \"normalized\": %s, \"special\": %s}",
                      a->single_word ? "true" : "false", a->lstrip ? "true" : "false", a->rstrip ? "true" : "false",
                      a->normalized ? "true" : "false", a->special ? "true" : "false");
    }
    free(added);
    sw_buf_printf(b, "\n  ],\n  \"normalizer\": %s,\n  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [",
                  t->nfc ? "{\"type\": \"NFC\"}" : "null");
    bool levelled = false;
    for (size_t i = 0; i < t->cuts.n; i++) {
        if (i)
            sw_buf_puts(b, ", ");
        add_cut(b, &t->cuts.at[i]);
        levelled |= t->cuts.at[i].kind == SW_CUT_GPT2 && !t->cuts.at[i].expression;
    }
    if (!levelled) {
        sw_buf_puts(b, t->cuts.n ? ", " : "");
        sw_buf_printf(b, gpt2, "false");
    }
    sw_buf_puts(b, "]},\n  \"post_processor\": ");
    if (t->prefix.n || t->suffix.n) {
        sw_buf_puts(b, "{\"type\": \"TemplateProcessing\", ");
        add_template(b, t);
        sw_buf_puts(b, "}");
    } else if (t->trim_offsets) {
        sw_buf_printf(b, "{\"type\": \"ByteLevel\", \"add_prefix_space\": %s, \"trim_offsets\": true, \"use_regex\": true}",
                      t->trim_keeps_first ? "true" : "false");
    } else {
        sw_buf_puts(b, "null");
    }
    sw_buf_puts(b, ",\n  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": true},\n"
                   "  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"continuing_subword_prefix\": null,\n"
                   "    \"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false,\n");
    sw_buf_printf(b, "    \"ignore_merges\": %s,\n    \"vocab\": {", t->ignore_merges ? "true" : "false");
    bool comma = false;
    for (int64_t id = 0; id < t->size; id++) {
        if (!t->words[id].at)
            continue;
        sw_buf_puts(b, comma ? ",\n      " : "\n      ");
        comma = true;
        sw_buf_json(b, t->words[id].at, t->words[id].n);
        sw_buf_printf(b, ": %lld", (long long)id);
    }
    sw_buf_puts(b, "\n    },\n    \"merges\": [");
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
    sw_buf_puts(b, "\n    ]\n  }\n}\n");
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
