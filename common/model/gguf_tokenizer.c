/* A tokenizer.json in the words of GGUF: two kinds, byte-level BPE with merges ("gpt2") and SentencePiece's BPE with
 * scores ("llama"). */
#include "model/gguf_export.h"

#include "base/json.h"
#include "base/map.h"
#include "base/memory.h"
#include "text/tokenizer.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

typedef struct vocabulary {
    sw_span *tokens;
    int32_t *types;
    float *scores;
    int64_t n;
    sw_map ids;
    sw_arena text;
} vocabulary;

static bool is_type(const cJSON *o, const char *type)
{
    const cJSON *t = sw_json_get(o, "type");
    return cJSON_IsString(t) && !strcmp(t->valuestring, type);
}

/* ---- the vocabulary */

static int add_token(vocabulary *v, const cJSON *text, const char *name, const cJSON *id, int type)
{
    sw_buf b = {0};
    sw_span s = text ? sw_json_text(text, &b) : (sw_span){name, strlen(name)};
    int rc = 0;
    if (!cJSON_IsNumber(id) || !(id->valuedouble >= 0) || id->valuedouble >= (double)v->n ||
        id->valuedouble != (double)(int64_t)id->valuedouble) {
        rc = sw_fail("the token '%.*s' has no id within the %lld rows of the embedding", (int)SW_MIN(s.n, 60), s.at, (long long)v->n);
    } else {
        int64_t at = (int64_t)id->valuedouble;
        v->tokens[at] = (sw_span){sw_arena_strndup(&v->text, s.at, s.n), s.n};
        v->types[at] = type;
        sw_map_put(&v->ids, s.at, s.n, at);
    }
    sw_buf_free(&b);
    return rc;
}

static bool is_byte_token(const char *s) { return strlen(s) == 6 && !strncmp(s, "<0x", 3) && s[5] == '>'; }

static int read_vocabulary(vocabulary *v, const cJSON *json, bool sentencepiece)
{
    const cJSON *model = sw_json_get(json, "model"), *vocab = sw_json_get(model, "vocab"), *added = sw_json_get(json, "added_tokens");
    const char *unknown;
    if (!cJSON_IsObject(vocab))
        return sw_fail("model.vocab is %s, an object is needed", sw_json_kind(vocab));
    if (sw_json_str(model, "unk_token", "", &unknown))
        return sw_fail_in("model");
    for (const cJSON *t = vocab->child; t; t = t->next) {
        int type = sentencepiece && is_byte_token(t->string) ? BYTE : *unknown && !strcmp(t->string, unknown) && sentencepiece ? UNKNOWN : NORMAL;
        if (add_token(v, NULL, t->string, t, type))
            return -1;
    }
    for (const cJSON *t = cJSON_IsArray(added) ? added->child : NULL; t; t = t->next) {
        const cJSON *content = sw_json_get(t, "content"), *id = sw_json_get(t, "id");
        bool special = cJSON_IsTrue(sw_json_get(t, "special"));
        if (!cJSON_IsString(content))
            return sw_fail("added_tokens: content is %s, a string is needed", sw_json_kind(content));
        int type = sentencepiece && !strcmp(content->valuestring, unknown) ? UNKNOWN : special ? CONTROL : USER_DEFINED;
        if (add_token(v, content, NULL, id, type))
            return -1;
    }
    for (int64_t i = 0; i < v->n; i++)
        if (!v->types[i]) {
            char *name = sw_strfmt("[PAD%lld]", (long long)i);
            v->tokens[i] = (sw_span){sw_arena_strndup(&v->text, name, strlen(name)), strlen(name)};
            v->types[i] = UNUSED;
            free(name);
        }
    return 0;
}

/* Merges as "left right", or for SentencePiece as a score of what each makes: the earlier, the higher. */
static int read_merges(vocabulary *v, const cJSON *merges, bool sentencepiece, sw_span **out, size_t *n_out)
{
    size_t n = 0, count = cJSON_IsArray(merges) ? (size_t)cJSON_GetArraySize(merges) : 0;
    sw_buf line = {0}, left = {0}, right = {0};
    int rc = cJSON_IsArray(merges) ? 0 : sw_fail("model.merges is %s, an array is needed", sw_json_kind(merges));
    *out = SW_NEW_ARRAY(sw_span, count + 1);
    for (const cJSON *m = rc ? NULL : merges->child; m && !rc; m = m->next, n++) {
        sw_buf_clear(&line);
        const cJSON *second = cJSON_IsArray(m) && m->child ? m->child->next : NULL;
        if (cJSON_IsString(m)) {
            sw_buf_puts(&line, m->valuestring);
        } else if (second && cJSON_IsString(m->child) && cJSON_IsString(second)) {
            sw_span a = sw_json_text(m->child, &left), b = sw_json_text(second, &right);
            sw_buf_add(&line, a.at, a.n);
            sw_buf_putc(&line, ' ');
            sw_buf_add(&line, b.at, b.n);
        }
        char *space = line.n ? memchr(line.at, ' ', line.n) : NULL;
        if (!space) {
            rc = sw_fail("model.merges: item %zu is no pair of tokens", n);
        } else if (!sentencepiece) {
            (*out)[n] = (sw_span){sw_arena_strndup(&v->text, line.at, line.n), line.n};
        } else {
            memmove(space, space + 1, line.n - (size_t)(space + 1 - line.at));
            int64_t id = sw_map_get(&v->ids, line.at, line.n - 1, -1);
            if (id >= 0 && v->scores[id] == -1e9f)
                v->scores[id] = (float)-(int64_t)n;
        }
    }
    sw_buf_free(&line);
    sw_buf_free(&left);
    sw_buf_free(&right);
    *n_out = n;
    return rc;
}

/* ---- special tokens and the template */

/* The id of tokenizer_config.json's "eos_token" (a string or an added token), else what the model's configuration says. */
static int64_t special_id(const vocabulary *v, const cJSON *config, const char *key, int64_t missing)
{
    const cJSON *t = sw_json_get(config, key);
    if (cJSON_IsObject(t))
        t = sw_json_get(t, "content");
    return cJSON_IsString(t) ? sw_map_gets(&v->ids, t->valuestring, missing) : missing;
}

/* Whether the post-processor puts a token before (first) or after the text. */
static bool template_adds(const cJSON *post, bool first)
{
    if (is_type(post, "Sequence")) {
        const cJSON *list = sw_json_get(post, "processors");
        for (const cJSON *p = cJSON_IsArray(list) ? list->child : NULL; p; p = p->next)
            if (template_adds(p, first))
                return true;
        return false;
    }
    const cJSON *single = is_type(post, "TemplateProcessing") ? sw_json_get(post, "single") : NULL;
    const cJSON *piece = cJSON_IsArray(single) ? single->child : NULL;
    while (piece && !first && piece->next)
        piece = piece->next;
    return sw_json_get(piece, "SpecialToken") != NULL;
}

static void put_id(sw_gguf_writer *w, const char *key, int64_t id)
{
    if (id >= 0)
        sw_gguf_put_u32(w, key, (uint32_t)id);
}

static void put_specials(sw_gguf_writer *w, const vocabulary *v, const cJSON *json, const cJSON *config, const sw_spec *s)
{
    const cJSON *post = sw_json_get(json, "post_processor"), *bos = sw_json_get(config, "add_bos_token"), *eos = sw_json_get(config, "add_eos_token");
    const cJSON *unknown = sw_json_get(sw_json_get(json, "model"), "unk_token");
    int64_t unk = cJSON_IsString(unknown) ? sw_map_gets(&v->ids, unknown->valuestring, -1) : -1;
    put_id(w, "tokenizer.ggml.bos_token_id", special_id(v, config, "bos_token", s->bos));
    put_id(w, "tokenizer.ggml.eos_token_id", special_id(v, config, "eos_token", s->eos[0]));
    put_id(w, "tokenizer.ggml.padding_token_id", special_id(v, config, "pad_token", s->pad));
    put_id(w, "tokenizer.ggml.unknown_token_id", special_id(v, config, "unk_token", unk));
    sw_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", cJSON_IsBool(bos) ? cJSON_IsTrue(bos) : template_adds(post, true));
    sw_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", cJSON_IsBool(eos) ? cJSON_IsTrue(eos) : template_adds(post, false));
}

static int put_template(sw_gguf_writer *w, const char *folder, const cJSON *config)
{
    char *path = sw_path_join(folder, "chat_template.jinja");
    const cJSON *t = sw_json_get(config, "chat_template");
    sw_buf b = {0};
    int rc = 0;
    if (sw_is_file(path)) {
        rc = sw_read_file(path, &b);
        if (!rc)
            sw_gguf_put_str(w, "tokenizer.chat_template", b.at, b.n);
    } else if (cJSON_IsString(t)) {
        sw_span s = sw_json_text(t, &b);
        sw_gguf_put_str(w, "tokenizer.chat_template", s.at, s.n);
    }
    sw_buf_free(&b);
    free(path);
    return rc;
}

/* SentencePiece's BPE puts a space before the text by a normaliser or by Metaspace. */
static bool adds_space(const cJSON *json)
{
    const cJSON *n = sw_json_get(json, "normalizer"), *list = sw_json_get(n, "normalizers"), *pre = sw_json_get(json, "pre_tokenizer");
    for (const cJSON *step = cJSON_IsArray(list) ? list->child : NULL; step; step = step->next)
        if (is_type(step, "Prepend"))
            return true;
    const cJSON *scheme = sw_json_get(pre, "prepend_scheme");
    return is_type(n, "Prepend") || (is_type(pre, "Metaspace") && !(cJSON_IsString(scheme) && !strcmp(scheme->valuestring, "never")));
}

static int put_vocabulary(sw_gguf_writer *w, vocabulary *v, const cJSON *json)
{
    const cJSON *model = sw_json_get(json, "model"), *pre = sw_json_get(json, "pre_tokenizer");
    bool sentencepiece = cJSON_IsTrue(sw_json_get(model, "byte_fallback"));
    const cJSON *normal = sw_json_get(json, "normalizer"), *ignores = sw_json_get(model, "ignore_merges");
    char splitter[SW_GGUF_PRE_NAME] = "default";
    bool named = sentencepiece || sw_gguf_pre_name(pre, is_type(normal, "NFC"), cJSON_IsTrue(ignores), splitter);
    const char *type = is_type(model, "BPE") ? NULL : "a model that is no BPE";
    if (type)
        return sw_fail("has %s: GGUF files are written for byte-level and SentencePiece BPE", type);
    if (!named)
        return sw_fail("its pre_tokenizer is none of those that GGUF has a name for");
    sw_span *merges = NULL;
    size_t n_merges = 0;
    int rc = read_vocabulary(v, json, sentencepiece);
    for (int64_t i = 0; !rc && i < v->n; i++) /* what no merge makes must never look like one */
        v->scores[i] = v->types[i] == NORMAL ? -1e9f : v->types[i] == BYTE ? 0 : -1000;
    if (!rc)
        rc = read_merges(v, sw_json_get(model, "merges"), sentencepiece, &merges, &n_merges);
    if (!rc) {
        const char *kind = sentencepiece ? "llama" : "gpt2";
        sw_gguf_put_str(w, "tokenizer.ggml.model", kind, strlen(kind));
        sw_gguf_put_str(w, "tokenizer.ggml.pre", splitter, strlen(splitter));
        sw_gguf_put_strs(w, "tokenizer.ggml.tokens", (uint64_t)v->n, v->tokens);
        sw_gguf_put_array(w, "tokenizer.ggml.token_type", SW_GGUF_I32, (uint64_t)v->n, v->types);
        if (sentencepiece)
            sw_gguf_put_array(w, "tokenizer.ggml.scores", SW_GGUF_F32, (uint64_t)v->n, v->scores);
        else
            sw_gguf_put_strs(w, "tokenizer.ggml.merges", n_merges, merges);
        sw_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", sentencepiece && adds_space(json));
    }
    free(merges);
    return rc;
}

/* A folder without tokenizer.json (sentencepiece, tiktoken, vocab.json and merges.txt) in the words of one. */
static cJSON *translated(const char *folder)
{
    sw_tokenizer *t = sw_tokenizer_load(folder);
    sw_buf json = {0}, config = {0};
    cJSON *o = t && !sw_tokenizer_to_json(t, &json, &config) ? sw_json_parse(json.at, json.n) : NULL;
    sw_buf_free(&json);
    sw_buf_free(&config);
    sw_tokenizer_free(t);
    return o;
}

int sw_gguf_put_tokenizer(sw_gguf_writer *w, const char *folder, const sw_spec *s, int64_t rows)
{
    if (rows < 1 || rows > INT_MAX)
        return sw_fail("an embedding of %lld rows", (long long)rows);
    char *path = sw_path_join(folder, "tokenizer.json"), *config_path = sw_path_join(folder, "tokenizer_config.json");
    vocabulary v = {.n = rows, .tokens = SW_NEW_ARRAY(sw_span, (size_t)rows), .types = SW_NEW_ARRAY(int32_t, (size_t)rows),
                    .scores = SW_NEW_ARRAY(float, (size_t)rows)};
    cJSON *json = sw_is_file(path) ? sw_json_load(path) : translated(folder), *config = json && sw_is_file(config_path) ? sw_json_load(config_path) : NULL;
    int rc = !json || (!config && sw_is_file(config_path)) ? -1 : 0;
    if (!rc && put_vocabulary(w, &v, json))
        rc = sw_fail_in("%s", path);
    if (!rc) {
        put_specials(w, &v, json, config, s);
        rc = put_template(w, folder, config);
    }
    cJSON_Delete(json);
    cJSON_Delete(config);
    free(v.tokens);
    free(v.types);
    free(v.scores);
    sw_map_free(&v.ids);
    sw_arena_free(&v.text);
    free(path);
    free(config_path);
    return rc;
}
