/* The older files: vocab.json with merges.txt (GPT-2 and its kin), and vocab.txt (BERT). What they leave open is said
 * by tokenizer_config.json, and by what the class that it names does. */
#include "text/tokenizer_parts.h"
#include "text/tokenizer_splits.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

const char *sw_tokenizer_class(const cJSON *config)
{
    const cJSON *c = sw_json_get(config, "tokenizer_class");
    return cJSON_IsString(c) ? c->valuestring : "";
}

int sw_tokenizer_add_configured(sw_tokenizer *t, const cJSON *config)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    const cJSON *decoder = sw_json_get(config, "added_tokens_decoder");
    int32_t next = (int32_t)t->model_ids.n;
    for (const cJSON *a = decoder ? decoder->child : NULL; a; a = a->next) {
        const char *content;
        sw_added one = {0};
        if (sw_json_str(a, "content", NULL, &content) || sw_json_bool(a, "special", true, &one.special) ||
            sw_json_bool(a, "lstrip", false, &one.lstrip) || sw_json_bool(a, "rstrip", false, &one.rstrip) ||
            sw_json_bool(a, "single_word", false, &one.single_word) ||
            sw_json_bool(a, "normalized", false, &one.normalized))
            return sw_fail_in("tokenizer_config.json: \"added_tokens_decoder\"");
        if (!content || !a->string)
            continue;
        char *end;
        long id = strtol(a->string, &end, 10);
        if (*end || id < 0 || id >= SW_MOST_TOKENS)
            return sw_fail("tokenizer_config.json: \"added_tokens_decoder\": '%.40s' is no id", a->string);
        one.n = strlen(content);
        one.text = sw_strndup(content, one.n);
        if (!t->sentencepiece && sw_map_get(&t->model_ids, content, one.n, -1) < 0 && (id >= t->size || !t->words[id].at)) {
            sw_tokenizer_grow(t, id + 1);
            sw_tokenizer_set_word(t, (int32_t)id, content, one.n);
        }
        next = (int32_t)id; /* keeps its id, also where the model has another word there */
        if (sw_tokenizer_add(t, one, &next))
            return -1;
    }
    for (size_t i = 0; i < SW_COUNT(names); i++) {
        const cJSON *v = sw_json_get(config, names[i]);
        if (cJSON_IsObject(v))
            v = sw_json_get(v, "content");
        if (!cJSON_IsString(v) || sw_map_gets(&t->added_ids, v->valuestring, -1) >= 0)
            continue;
        next = (int32_t)t->size;
        if (sw_tokenizer_add(
                t, (sw_added){.text = sw_strdup(v->valuestring), .n = strlen(v->valuestring), .special = true}, &next))
            return -1;
    }
    const cJSON *more = sw_json_get(config, "additional_special_tokens");
    for (const cJSON *v = cJSON_IsArray(more) ? more->child : NULL; v; v = v->next) {
        const cJSON *content = cJSON_IsObject(v) ? sw_json_get(v, "content") : v;
        if (!cJSON_IsString(content) || sw_map_gets(&t->added_ids, content->valuestring, -1) >= 0)
            continue;
        next = (int32_t)t->size;
        if (sw_tokenizer_add(t, (sw_added){.text = sw_strdup(content->valuestring), .n = strlen(content->valuestring), .special = true}, &next))
            return -1;
    }
    return sw_tokenizer_read_config(t, config);
}

static int read_vocab(sw_tokenizer *t, const char *vocab, size_t n)
{
    cJSON *o = sw_json_parse(vocab, n);
    int rc = !o ? -1 : sw_tokenizer_read_vocabulary(t, o);
    cJSON_Delete(o);
    return rc;
}

static int read_merges(sw_tokenizer *t, const char *text, size_t n)
{
    size_t lines = 1, number = 0;
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    sw_tokenizer_reserve_merges(t, lines);
    int32_t rank = 0;
    for (size_t at = 0; at < n;) {
        const char *line = text + at, *end = memchr(line, '\n', n - at);
        size_t len = end ? (size_t)(end - line) : n - at;
        at += len + 1;
        number++;
        if (len && line[len - 1] == '\r')
            len--;
        if (!len || (len >= 8 && !memcmp(line, "#version", 8)))
            continue;
        const char *space = memchr(line, ' ', len);
        if (!space || memchr(space + 1, ' ', len - (size_t)(space + 1 - line)))
            return sw_fail("merges.txt: line %zu is no pair", number);
        if (sw_tokenizer_add_merge(t, line, (size_t)(space - line), space + 1, len - (size_t)(space + 1 - line),
                                   rank++))
            return sw_fail_in("merges.txt: line %zu", number);
    }
    return 0;
}

#define BYTES(prefix, regex)                                                                                           \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": " prefix ", \"trim_offsets\": true, \"use_regex\": " regex "}"

static int read_bpe(sw_tokenizer *t, const char *vocab, size_t n_vocab, const char *merges, size_t n_merges,
                    const cJSON *config)
{
    const char *class = sw_tokenizer_class(config);
    bool qwen = strstr(class, "Qwen2") != NULL,
         roberta = strstr(class, "Roberta") || strstr(class, "Bart") || strstr(class, "Longformer"), prefix;
    if (strstr(class, "CLIP"))
        return sw_fail("a %s without tokenizer.json is not known here", class);
    if (sw_json_bool(config, "add_prefix_space", false, &prefix) || read_vocab(t, vocab, n_vocab) ||
        read_merges(t, merges, n_merges))
        return -1;
    sw_buf b = {0};
    if (qwen) {
        sw_buf_puts(&b, "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
        sw_buf_json(&b, SW_SPLIT_CL100K("\\p{N}"), strlen(SW_SPLIT_CL100K("\\p{N}")));
        sw_buf_puts(&b, "}, \"behavior\": \"Isolated\", \"invert\": false}, " BYTES("false", "false") "]}");
    } else {
        sw_buf_puts(&b, prefix ? BYTES("true", "true") : BYTES("false", "true"));
    }
    int rc = sw_tokenizer_read_part_text(t, SW_PART_NORMALIZER, qwen ? "{\"type\": \"NFC\"}" : NULL) ||
                     sw_tokenizer_read_part_text(t, SW_PART_PRE_TOKENIZER, b.at) ||
                     sw_tokenizer_read_part_text(t, SW_PART_DECODER, BYTES("true", "true")) || sw_tokenizer_add_configured(t, config)
                 ? -1
                 : 0;
    sw_buf_clear(&b);
    int32_t cls = sw_token_id(t, "<s>", 3), sep = sw_token_id(t, "</s>", 4);
    if (roberta && cls >= 0 && sep >= 0)
        sw_buf_printf(&b,
                      "{\"type\": \"RobertaProcessing\", \"sep\": [\"</s>\", %d], \"cls\": [\"<s>\", %d], "
                      "\"trim_offsets\": true, \"add_prefix_space\": %s}",
                      sep, cls, prefix ? "true" : "false");
    else if (!qwen)
        sw_buf_puts(
            &b, "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": false, \"use_regex\": true}");
    if (!rc)
        rc = sw_tokenizer_read_part_text(t, SW_PART_POST_PROCESSOR, b.n ? b.at : NULL);
    sw_buf_free(&b);
    return rc;
}

static int read_wordpiece(sw_tokenizer *t, const char *text, size_t n, const cJSON *config)
{
    bool lower, chinese, accents;
    const char *unk;
    const cJSON *u = sw_json_get(config, "unk_token");
    if (sw_json_bool(config, "do_lower_case", true, &lower) ||
        sw_json_bool(config, "tokenize_chinese_chars", true, &chinese) ||
        sw_json_bool(config, "strip_accents", lower, &accents) ||
        sw_json_str(cJSON_IsObject(u) ? u : config, cJSON_IsObject(u) ? "content" : "unk_token", "[UNK]", &unk))
        return -1;
    size_t lines = 0;
    for (size_t at = 0; at < n; lines++) {
        const char *end = memchr(text + at, '\n', n - at);
        at = end ? (size_t)(end - text) + 1 : n;
    }
    if (!lines || lines > SW_MOST_TOKENS)
        return sw_fail("vocab.txt has %zu lines; 1 to %d are possible", lines, SW_MOST_TOKENS);
    sw_tokenizer_size_is(t, (int64_t)lines);
    t->model = SW_WORDPIECE;
    t->max_chars = 100;
    free(t->prefix_text);
    t->prefix_text = sw_strdup("##");
    size_t at = 0;
    for (size_t i = 0; i < lines; i++) {
        const char *line = text + at, *end = memchr(line, '\n', n - at);
        size_t len = end ? (size_t)(end - line) : n - at;
        at += len + 1;
        while (len && strchr(" \t\r\v\f", line[len - 1]))
            len--;
        if (sw_utf8_valid_prefix(line, len) < len)
            return sw_fail("vocab.txt: line %zu is no valid UTF-8", i + 1);
        sw_tokenizer_set_word(t, (int32_t)i, line, len);
    }
    free(t->unk_text);
    t->unk_text = sw_strdup(unk);
    t->unk = (int32_t)sw_map_gets(&t->model_ids, unk, -1);
    char *normal = sw_strfmt("{\"type\": \"BertNormalizer\", \"clean_text\": true, \"handle_chinese_chars\": %s, "
                             "\"strip_accents\": %s, \"lowercase\": %s}",
                             chinese ? "true" : "false", accents ? "true" : "false", lower ? "true" : "false");
    int rc = sw_tokenizer_read_part_text(t, SW_PART_NORMALIZER, normal) ||
                     sw_tokenizer_read_part_text(t, SW_PART_PRE_TOKENIZER, "{\"type\": \"BertPreTokenizer\"}") ||
                     sw_tokenizer_read_part_text(t, SW_PART_DECODER,
                                                 "{\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": true}") ||
                     sw_tokenizer_add_configured(t, config)
                 ? -1
                 : 0;
    free(normal);
    static const char *const usual[] = {"[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"};
    for (size_t i = 0; i < SW_COUNT(usual) && !rc; i++) {
        int32_t next = (int32_t)t->size;
        if (sw_map_gets(&t->model_ids, usual[i], -1) >= 0)
            rc = sw_tokenizer_add(t, (sw_added){.text = sw_strdup(usual[i]), .n = strlen(usual[i]), .special = true},
                                  &next);
    }
    sw_buf b = {0};
    int32_t cls = sw_token_id(t, "[CLS]", 5), sep = sw_token_id(t, "[SEP]", 5);
    if (cls >= 0 && sep >= 0)
        sw_buf_printf(&b, "{\"type\": \"BertProcessing\", \"sep\": [\"[SEP]\", %d], \"cls\": [\"[CLS]\", %d]}", sep,
                      cls);
    if (!rc)
        rc = sw_tokenizer_read_part_text(t, SW_PART_POST_PROCESSOR, b.n ? b.at : NULL);
    sw_buf_free(&b);
    return rc;
}

/* One of the two, by whether there are merges. */
static sw_tokenizer *read(const char *vocab, size_t n_vocab, const char *merges, size_t n_merges,
                          const char *config_text, size_t n_config)
{
    cJSON *config = n_config ? sw_json_parse(config_text, n_config) : NULL;
    sw_tokenizer *t = sw_tokenizer_new();
    int rc = n_config && !config ? sw_fail_in("tokenizer_config.json") : 0;
    if (!rc)
        rc = (merges ? read_bpe(t, vocab, n_vocab, merges, n_merges, config)
                     : read_wordpiece(t, vocab, n_vocab, config)) ||
                     sw_tokenizer_finish(t)
                 ? -1
                 : 0;
    cJSON_Delete(config);
    if (rc) {
        sw_tokenizer_free(t);
        return NULL;
    }
    return t;
}

sw_tokenizer *sw_tokenizer_from_vocab_merges(const char *vocab, size_t n_vocab, const char *merges, size_t n_merges,
                                             const char *config, size_t n_config)
{
    return read(vocab, n_vocab, merges ? merges : "", n_merges, config, n_config);
}

sw_tokenizer *sw_tokenizer_from_vocab_txt(const char *text, size_t n, const char *config, size_t n_config)
{
    return read(text, n, NULL, 0, config, n_config);
}
