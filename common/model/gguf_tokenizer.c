/* A tokenizer.json in the words of GGUF: byte-level BPE with merges ("gpt2"), SentencePiece's BPE with scores ("llama"), its
 * Unigram ("t5") and BERT's WordPiece ("bert"). */
#include "model/gguf_export.h"

#include "base/json.h"
#include "base/log.h"
#include "base/map.h"
#include "base/memory.h"
#include "text/tokenizer.h"
#include "text/tokenizer_base64.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

typedef enum kind_of_model { BYTE_LEVEL, SENTENCEPIECE, UNIGRAM, WORDPIECE } kind_of_model;

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

/* BERT's pieces as GGUF has them: ▁ before what begins a word, and no ## before what goes on with one. */
static int add_piece(vocabulary *v, const cJSON *entry, const char *prefix, int type)
{
    const char *s = entry->string;
    size_t n = strlen(prefix);
    char *marked = n && !strncmp(s, prefix, n) && s[n] ? sw_strdup(s + n) : sw_strfmt("\xe2\x96\x81%s", s);
    int rc = add_token(v, NULL, type == NORMAL ? marked : s, entry, type);
    if (!rc)
        sw_map_put(&v->ids, s, strlen(s), (int64_t)entry->valuedouble); /* special tokens are named as they were */
    free(marked);
    return rc;
}

static bool is_byte_token(const char *s) { return strlen(s) == 6 && !strncmp(s, "<0x", 3) && s[5] == '>'; }

/* Unigram's list of pieces and scores: a place is an id. */
static int read_pieces(vocabulary *v, const cJSON *model, const cJSON *vocab)
{
    int64_t unk, id = 0;
    bool bytes = cJSON_IsTrue(sw_json_get(model, "byte_fallback"));
    if (sw_json_i64(model, "unk_id", 0, INT_MAX, -1, &unk))
        return sw_fail_in("model");
    for (const cJSON *t = vocab->child; t; t = t->next, id++) {
        const cJSON *piece = cJSON_IsArray(t) ? t->child : NULL, *score = piece ? piece->next : NULL;
        if (!cJSON_IsString(piece) || !cJSON_IsNumber(score))
            return sw_fail("model.vocab: item %lld is no pair of a piece and its score", (long long)id);
        const cJSON number = {.type = cJSON_Number, .valuedouble = (double)id};
        if (add_token(v, piece, NULL, &number, id == unk ? UNKNOWN : bytes && is_byte_token(piece->valuestring) ? BYTE : NORMAL))
            return -1;
        v->scores[id] = (float)score->valuedouble;
    }
    return 0;
}

static int read_words(vocabulary *v, const cJSON *model, const cJSON *vocab, kind_of_model kind)
{
    const char *unknown, *prefix;
    bool sentencepiece = kind == SENTENCEPIECE;
    if (sw_json_str(model, "unk_token", "", &unknown) || sw_json_str(model, "continuing_subword_prefix", kind == WORDPIECE ? "##" : "", &prefix))
        return sw_fail_in("model");
    for (const cJSON *t = vocab->child; t; t = t->next) {
        int type = sentencepiece && is_byte_token(t->string) ? BYTE : *unknown && !strcmp(t->string, unknown) && sentencepiece ? UNKNOWN : NORMAL;
        if (kind == WORDPIECE ? add_piece(v, t, prefix, type) : add_token(v, NULL, t->string, t, type))
            return -1;
    }
    return 0;
}

static int read_vocabulary(vocabulary *v, const cJSON *json, kind_of_model kind)
{
    const cJSON *model = sw_json_get(json, "model"), *vocab = sw_json_get(model, "vocab"), *added = sw_json_get(json, "added_tokens");
    const char *unknown;
    bool sentencepiece = kind == SENTENCEPIECE;
    if (kind == UNIGRAM ? !cJSON_IsArray(vocab) : !cJSON_IsObject(vocab))
        return sw_fail("model.vocab is %s, an %s is needed", sw_json_kind(vocab), kind == UNIGRAM ? "array" : "object");
    if (kind == UNIGRAM ? read_pieces(v, model, vocab) : read_words(v, model, vocab, kind))
        return -1;
    if (sw_json_str(model, "unk_token", "", &unknown))
        return sw_fail_in("model");
    for (const cJSON *t = cJSON_IsArray(added) ? added->child : NULL; t; t = t->next) {
        const cJSON *content = sw_json_get(t, "content"), *id = sw_json_get(t, "id");
        bool special = cJSON_IsTrue(sw_json_get(t, "special"));
        if (!cJSON_IsString(content))
            return sw_fail("added_tokens: content is %s, a string is needed", sw_json_kind(content));
        if (cJSON_IsNumber(id) && id->valuedouble >= (double)v->n) {
            sw_warn("the token '%.60s' has no row in the model, and none in the file", content->valuestring);
            continue;
        }
        bool is_unknown = kind == UNIGRAM && cJSON_IsNumber(id) && id->valuedouble >= 0 && id->valuedouble < (double)v->n &&
                          v->types[(int64_t)id->valuedouble] == UNKNOWN;
        int type = is_unknown || (sentencepiece && !strcmp(content->valuestring, unknown)) ? UNKNOWN : special ? CONTROL : USER_DEFINED;
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
    if (is_type(post, "BertProcessing") || is_type(post, "RobertaProcessing"))
        return true;
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

/* The token that stands around texts: before them (first) or after. -1: none. */
static int64_t token_around(const vocabulary *v, const cJSON *post, bool first)
{
    const cJSON *pair = sw_json_get(post, first ? "cls" : "sep");
    if (is_type(post, "BertProcessing") || is_type(post, "RobertaProcessing"))
        return cJSON_IsArray(pair) && cJSON_IsString(pair->child) ? sw_map_gets(&v->ids, pair->child->valuestring, -1) : -1;
    const cJSON *single = is_type(post, "TemplateProcessing") ? sw_json_get(post, "single") : NULL;
    const cJSON *piece = cJSON_IsArray(single) ? single->child : NULL;
    while (piece && !first && piece->next)
        piece = piece->next;
    const cJSON *id = sw_json_get(sw_json_get(piece, "SpecialToken"), "id");
    return cJSON_IsString(id) ? sw_map_gets(&v->ids, id->valuestring, -1) : -1;
}

static void put_specials(sw_gguf_writer *w, const vocabulary *v, const cJSON *json, const cJSON *config, const sw_spec *s, kind_of_model kind)
{
    const cJSON *post = sw_json_get(json, "post_processor"), *bos = sw_json_get(config, "add_bos_token"), *eos = sw_json_get(config, "add_eos_token");
    const cJSON *unknown = sw_json_get(sw_json_get(json, "model"), "unk_token");
    int64_t unk = cJSON_IsString(unknown) ? sw_map_gets(&v->ids, unknown->valuestring, -1) : -1;
    int64_t first = s->bos >= 0 ? s->bos : token_around(v, post, true), last = s->eos[0] >= 0 ? s->eos[0] : token_around(v, post, false);
    for (int64_t i = 0; i < v->n && kind == UNIGRAM && unk < 0; i++)
        unk = v->types[i] == UNKNOWN ? i : -1;
    if (kind == WORDPIECE) { /* what stands around texts begins and ends them */
        first = special_id(v, config, "cls_token", token_around(v, post, true));
        last = special_id(v, config, "sep_token", token_around(v, post, false));
        put_id(w, "tokenizer.ggml.cls_token_id", first);
        put_id(w, "tokenizer.ggml.bos_token_id", first);
        put_id(w, "tokenizer.ggml.eos_token_id", last);
    } else {
        put_id(w, "tokenizer.ggml.bos_token_id", special_id(v, config, "bos_token", first));
        put_id(w, "tokenizer.ggml.eos_token_id", special_id(v, config, "eos_token", last));
    }
    put_id(w, "tokenizer.ggml.seperator_token_id", special_id(v, config, "sep_token", kind == WORDPIECE ? last : -1));
    put_id(w, "tokenizer.ggml.mask_token_id", special_id(v, config, "mask_token", -1));
    put_id(w, "tokenizer.ggml.padding_token_id", special_id(v, config, "pad_token", s->pad));
    put_id(w, "tokenizer.ggml.unknown_token_id", special_id(v, config, "unk_token", unk));
    sw_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", cJSON_IsBool(bos) ? cJSON_IsTrue(bos) : template_adds(post, true));
    sw_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", cJSON_IsBool(eos) ? cJSON_IsTrue(eos) : template_adds(post, false));
}

static int put_template(sw_gguf_writer *w, const char *folder)
{
    sw_buf b = {0};
    int rc = sw_tokenizer_template_in(folder, &b);
    if (!rc && b.n)
        sw_gguf_put_str(w, "tokenizer.chat_template", b.at, b.n);
    sw_buf_free(&b);
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

/* A step of a normaliser or pre-tokenizer, or all of a sequence's, in turn; i from 0. */
static const cJSON *step_at(const cJSON *part, const char *list, int i)
{
    const cJSON *steps = is_type(part, "Sequence") ? sw_json_get(part, list) : NULL;
    return steps ? cJSON_GetArrayItem(steps, i) : i == 0 && cJSON_IsObject(part) ? part : NULL;
}

/* What sentencepiece does to texts: a table of characters, and spaces at the ends and beside others that go. */
static int put_unigram(sw_gguf_writer *w, const cJSON *json)
{
    const cJSON *normal = sw_json_get(json, "normalizer"), *pre = sw_json_get(json, "pre_tokenizer"), *step;
    bool squeeze = false, metaspace = false, prefix = false, cuts = false;
    sw_buf map = {0};
    int rc = 0;
    for (int i = 0; (step = step_at(normal, "normalizers", i)) && !rc; i++) {
        const cJSON *text = sw_json_get(step, "precompiled_charsmap"), *type = sw_json_get(step, "type");
        if (is_type(step, "Precompiled") && cJSON_IsString(text))
            rc = sw_base64_decode(text->valuestring, strlen(text->valuestring), &map);
        else if (is_type(step, "Precompiled") && cJSON_IsNull(text))
            continue;
        else if (is_type(step, "Strip") || (is_type(step, "Replace") && sw_json_get(sw_json_get(step, "pattern"), "Regex")))
            squeeze = true;
        else
            rc = sw_fail("normalizer: %s has no place in GGUF's Unigram: Precompiled, Strip and Replace of spaces have",
                         cJSON_IsString(type) ? type->valuestring : "a step without type");
    }
    for (int i = 0; (step = step_at(pre, "pretokenizers", i)) && !rc; i++) {
        const cJSON *scheme = sw_json_get(step, "prepend_scheme"), *adds = sw_json_get(step, "add_prefix_space");
        if (is_type(step, "Metaspace")) {
            metaspace = true;
            prefix = cJSON_IsString(scheme) ? strcmp(scheme->valuestring, "never") != 0 : !cJSON_IsFalse(adds);
        } else if (is_type(step, "WhitespaceSplit")) {
            squeeze = cuts = true;
        } else {
            rc = sw_fail("pre_tokenizer: GGUF's Unigram has a place for Metaspace and WhitespaceSplit only");
        }
    }
    if (!rc && !metaspace)
        rc = sw_fail("pre_tokenizer: GGUF's Unigram marks spaces as Metaspace does, which is not there");
    if (!rc && cuts && !map.n) /* sentencepiece's tables make spaces of them */
        sw_warn("GGUF's Unigram cuts at spaces alone: texts with line ends or tabs will have other ids");
    if (!rc) {
        sw_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", prefix);
        sw_gguf_put_bool(w, "tokenizer.ggml.remove_extra_whitespaces", squeeze);
        if (map.n)
            sw_gguf_put_array(w, "tokenizer.ggml.precompiled_charsmap", SW_GGUF_U8, map.n, map.at);
    }
    sw_buf_free(&map);
    return rc;
}

static int put_wordpiece(sw_gguf_writer *w, const cJSON *json)
{
    const cJSON *normal = sw_json_get(json, "normalizer"), *accents = sw_json_get(normal, "strip_accents");
    bool lower = cJSON_IsTrue(sw_json_get(normal, "lowercase"));
    if (!is_type(normal, "BertNormalizer") || !is_type(sw_json_get(json, "pre_tokenizer"), "BertPreTokenizer"))
        return sw_fail("its normalizer and pre_tokenizer are not BERT's, as GGUF's WordPiece has them");
    if (cJSON_IsFalse(sw_json_get(normal, "clean_text")) || cJSON_IsFalse(sw_json_get(normal, "handle_chinese_chars")))
        return sw_fail("normalizer: GGUF's WordPiece cleans texts and cuts Chinese characters, which this one does not");
    sw_gguf_put_bool(w, "tokenizer.ggml.normalizer.lowercase", lower);
    sw_gguf_put_bool(w, "tokenizer.ggml.normalizer.strip_accents", cJSON_IsBool(accents) ? cJSON_IsTrue(accents) : lower);
    return 0;
}

static int put_vocabulary(sw_gguf_writer *w, vocabulary *v, const cJSON *json, kind_of_model *out)
{
    static const char *const names[] = {"gpt2", "llama", "t5", "bert"};
    const cJSON *model = sw_json_get(json, "model"), *pre = sw_json_get(json, "pre_tokenizer");
    const cJSON *normal = sw_json_get(json, "normalizer"), *ignores = sw_json_get(model, "ignore_merges");
    char splitter[SW_GGUF_PRE_NAME] = "default";
    bool unigram = is_type(model, "Unigram"), wordpiece = is_type(model, "WordPiece");
    if (!unigram && !wordpiece && !is_type(model, "BPE"))
        return sw_fail("model: GGUF files are written for BPE, Unigram and WordPiece only");
    kind_of_model kind = unigram ? UNIGRAM : wordpiece ? WORDPIECE : cJSON_IsTrue(sw_json_get(model, "byte_fallback")) ? SENTENCEPIECE : BYTE_LEVEL;
    bool sentencepiece = kind == SENTENCEPIECE, bpe = !unigram && !wordpiece;
    if (kind == BYTE_LEVEL && !sw_gguf_pre_name(pre, is_type(normal, "NFC"), cJSON_IsTrue(ignores), splitter))
        return sw_fail("its pre_tokenizer is none of those that GGUF has a name for");
    sw_span *merges = NULL;
    size_t n_merges = 0;
    *out = kind;
    if (unigram && cJSON_IsTrue(sw_json_get(model, "byte_fallback")))
        sw_warn("programs that run GGUF files do not spell what no piece has by bytes: its ids will differ");
    int rc = read_vocabulary(v, json, kind);
    for (int64_t i = 0; !rc && bpe && i < v->n; i++) /* what no merge makes must never look like one */
        v->scores[i] = v->types[i] == NORMAL ? -1e9f : v->types[i] == BYTE ? 0 : -1000;
    if (!rc && bpe)
        rc = read_merges(v, sw_json_get(model, "merges"), sentencepiece, &merges, &n_merges);
    if (!rc && !bpe)
        rc = unigram ? put_unigram(w, json) : put_wordpiece(w, json);
    if (!rc) {
        sw_gguf_put_str(w, "tokenizer.ggml.model", names[kind], strlen(names[kind]));
        sw_gguf_put_str(w, "tokenizer.ggml.pre", splitter, strlen(splitter));
        sw_gguf_put_strs(w, "tokenizer.ggml.tokens", (uint64_t)v->n, v->tokens);
        sw_gguf_put_array(w, "tokenizer.ggml.token_type", SW_GGUF_I32, (uint64_t)v->n, v->types);
        if (sentencepiece || unigram)
            sw_gguf_put_array(w, "tokenizer.ggml.scores", SW_GGUF_F32, (uint64_t)v->n, v->scores);
        if (kind == BYTE_LEVEL)
            sw_gguf_put_strs(w, "tokenizer.ggml.merges", n_merges, merges);
        if (bpe)
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
    kind_of_model kind = BYTE_LEVEL;
    if (!rc && put_vocabulary(w, &v, json, &kind))
        rc = sw_fail_in("%s", path);
    if (!rc) {
        put_specials(w, &v, json, config, s, kind);
        rc = put_template(w, folder);
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
