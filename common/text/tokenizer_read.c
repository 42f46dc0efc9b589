/* Tokenizers from tokenizer.json and from GGUF metadata. A part that is not known is refused by name. */
#include "text/tokenizer_parts.h"

#include "base/json.h"
#include "store/gguf.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TOKENS = 1 << 24 };

static const char *type_of(const cJSON *o)
{
    const cJSON *t = sw_json_get(o, "type");
    return cJSON_IsString(t) ? t->valuestring : "";
}

static int refuse(const char *part, const cJSON *o)
{
    return sw_fail("\"%s\": type '%s' is not known here", part, *type_of(o) ? type_of(o) : sw_json_kind(o));
}

static int read_vocabulary(sw_tokenizer *t, const cJSON *model, const cJSON *added)
{
    const cJSON *vocab = sw_json_get(model, "vocab");
    if (!cJSON_IsObject(vocab))
        return sw_fail("\"model.vocab\": an object of token ids is needed, not %s", sw_json_kind(vocab));
    int64_t most = -1;
    for (int pass = 0; pass < 2; pass++) {
        for (const cJSON *v = vocab->child; v; v = v->next) {
            if (!cJSON_IsNumber(v) || v->valuedouble < 0 || v->valuedouble >= MOST_TOKENS || v->valuedouble != (int64_t)v->valuedouble)
                return sw_fail("\"model.vocab\": '%s' has no token id between 0 and %d", v->string, MOST_TOKENS - 1);
            if (pass)
                sw_tokenizer_set_word(t, (int32_t)v->valuedouble, v->string, strlen(v->string));
            else
                most = SW_MAX(most, (int64_t)v->valuedouble);
        }
        for (const cJSON *a = added ? added->child : NULL; a && !pass; a = a->next) {
            int64_t id;
            if (sw_json_i64(a, "id", 0, MOST_TOKENS - 1, -1, &id) || (id < 0 && sw_fail("\"id\" is missing")))
                return sw_fail_in("\"added_tokens\"");
            most = SW_MAX(most, id);
        }
        if (!pass)
            sw_tokenizer_size_is(t, most + 1);
    }
    return 0;
}

static int read_added(sw_tokenizer *t, const cJSON *list)
{
    if (list && !cJSON_IsArray(list))
        return sw_fail("\"added_tokens\": a list is needed, not %s", sw_json_kind(list));
    for (const cJSON *a = list ? list->child : NULL; a; a = a->next) {
        sw_added one = {0};
        int64_t id;
        const char *content;
        if (sw_json_i64(a, "id", 0, t->size - 1, -1, &id) || sw_json_str(a, "content", NULL, &content) ||
            sw_json_bool(a, "special", false, &one.special) || sw_json_bool(a, "lstrip", false, &one.lstrip) ||
            sw_json_bool(a, "rstrip", false, &one.rstrip) || sw_json_bool(a, "single_word", false, &one.single_word) ||
            sw_json_bool(a, "normalized", !one.special, &one.normalized))
            return sw_fail_in("\"added_tokens\"");
        if (id < 0 || !content)
            return sw_fail("\"added_tokens\": \"id\" and \"content\" are needed");
        one.id = (int32_t)id;
        one.n = strlen(content);
        one.text = sw_strdup(content);
        sw_tokenizer_set_added(t, &one);
    }
    return 0;
}

static int read_merges(sw_tokenizer *t, const cJSON *list)
{
    if (!cJSON_IsArray(list))
        return sw_fail("\"model.merges\": a list is needed, not %s", sw_json_kind(list));
    sw_tokenizer_reserve_merges(t, (size_t)cJSON_GetArraySize(list));
    int32_t rank = 0;
    for (const cJSON *m = list->child; m; m = m->next, rank++) {
        const char *a = NULL, *b = NULL;
        size_t na = 0;
        if (cJSON_IsString(m)) { /* the older form, "a b" */
            a = m->valuestring;
            b = strchr(a, ' ');
            na = b ? (size_t)(b++ - a) : 0;
        } else if (cJSON_IsArray(m) && cJSON_IsString(m->child) && cJSON_IsString(m->child->next)) {
            a = m->child->valuestring;
            b = m->child->next->valuestring;
            na = strlen(a);
        }
        if (!a || !b)
            return sw_fail("\"model.merges\": merge %d is no pair of strings", rank);
        if (sw_tokenizer_add_merge(t, a, na, b, strlen(b), rank))
            return sw_fail_in("\"model.merges\"");
    }
    return 0;
}

static int read_model(sw_tokenizer *t, const cJSON *root)
{
    const cJSON *model = sw_json_get(root, "model");
    const char *type = type_of(model);
    if (strcmp(type, "BPE") && !(!*type && sw_json_get(model, "merges")))
        return refuse("model", model);
    bool fallback, fuse;
    const char *text;
    if (sw_json_bool(model, "byte_fallback", false, &fallback) || sw_json_bool(model, "fuse_unk", false, &fuse) ||
        sw_json_bool(model, "ignore_merges", false, &t->ignore_merges))
        return sw_fail_in("\"model\"");
    static const char *const strings[] = {"unk_token", "continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < SW_COUNT(strings); i++) {
        if (sw_json_str(model, strings[i], "", &text))
            return sw_fail_in("\"model\"");
        if (*text)
            return sw_fail("\"model.%s\": a byte-level model has none; other BPE models are not known here", strings[i]);
    }
    if (fallback)
        return sw_fail("\"model.byte_fallback\": true is not known here");
    const cJSON *added = sw_json_get(root, "added_tokens");
    return read_vocabulary(t, model, added) || read_added(t, added) || read_merges(t, sw_json_get(model, "merges")) ? -1 : 0;
}

static int read_normalizer(sw_tokenizer *t, const cJSON *o)
{
    if (!o)
        return 0;
    if (!strcmp(type_of(o), "NFC")) {
        t->nfc = true;
        return 0;
    }
    const cJSON *list = sw_json_get(o, "normalizers");
    if (!strcmp(type_of(o), "Sequence") && cJSON_IsArray(list) && (!list->child || !list->child->next))
        return read_normalizer(t, list->child);
    return refuse("normalizer", o);
}

static int read_pre(sw_tokenizer *t, const cJSON *o, int depth, bool *byte_level)
{
    bool flag;
    if (!o)
        return 0;
    if (!strcmp(type_of(o), "Sequence") && depth < 4) {
        const cJSON *list = sw_json_get(o, "pretokenizers");
        for (const cJSON *p = list ? list->child : NULL; p; p = p->next)
            if (read_pre(t, p, depth + 1, byte_level))
                return -1;
        return 0;
    }
    if (!strcmp(type_of(o), "ByteLevel")) {
        *byte_level = true;
        if (sw_json_bool(o, "add_prefix_space", true, &flag))
            return sw_fail_in("\"pre_tokenizer\"");
        if (flag)
            return sw_fail("\"pre_tokenizer.add_prefix_space\": true is not known here");
        if (sw_json_bool(o, "use_regex", true, &flag))
            return sw_fail_in("\"pre_tokenizer\"");
        if (flag)
            sw_cut_simple(t, SW_CUT_GPT2, 0);
        return 0;
    }
    if (!strcmp(type_of(o), "Digits")) {
        if (sw_json_bool(o, "individual_digits", false, &flag))
            return sw_fail_in("\"pre_tokenizer\"");
        sw_cut_simple(t, SW_CUT_DIGITS, flag);
        return 0;
    }
    if (!strcmp(type_of(o), "Split")) {
        const cJSON *pattern = sw_json_get(sw_json_get(o, "pattern"), "Regex"), *behavior = sw_json_get(o, "behavior");
        if (sw_json_bool(o, "invert", false, &flag))
            return sw_fail_in("\"pre_tokenizer\"");
        if (!cJSON_IsString(pattern) || flag || !cJSON_IsString(behavior) || strcmp(behavior->valuestring, "Isolated"))
            return sw_fail("\"pre_tokenizer\": a Split by something else than a Regex, or with another behavior than Isolated, is not known here");
        return sw_cut_from_regex(t, pattern->valuestring) ? sw_fail_in("\"pre_tokenizer\"") : 0;
    }
    return refuse("pre_tokenizer", o);
}

/* The pieces of a TemplateProcessing: special tokens before and after the sequence. */
static int read_pieces(sw_tokenizer *t, const cJSON *o, const cJSON *pieces, const char *sequence, sw_ids *before, sw_ids *after)
{
    bool seen = false;
    if (!cJSON_IsArray(pieces))
        return sw_fail("\"post_processor\": a list of pieces is needed");
    for (const cJSON *p = pieces->child; p; p = p->next) {
        const cJSON *s = sw_json_get(p, "SpecialToken"), *q = sw_json_get(p, "Sequence"), *id = sw_json_get(s ? s : q, "id");
        if (!cJSON_IsString(id))
            return sw_fail("\"post_processor\": a piece has no \"id\"");
        if (q) {
            if (!strcmp(id->valuestring, sequence))
                seen = true;
            else
                before->n = 0; /* what stood before the other sequence is not ours */
            continue;
        }
        const cJSON *ids = sw_json_get(sw_json_get(sw_json_get(o, "special_tokens"), id->valuestring), "ids");
        for (const cJSON *i = ids ? ids->child : NULL; i; i = i->next) {
            if (!cJSON_IsNumber(i) || i->valuedouble < 0 || i->valuedouble >= (double)t->size)
                return sw_fail("\"post_processor\": the special token '%s' has no valid id", id->valuestring);
            SW_PUSH(*(seen ? after : before), (int32_t)i->valuedouble);
        }
    }
    return 0;
}

static int read_post(sw_tokenizer *t, const cJSON *o, int depth)
{
    if (!o)
        return 0;
    if (!strcmp(type_of(o), "Sequence") && depth < 4) {
        const cJSON *list = sw_json_get(o, "processors");
        for (const cJSON *p = list ? list->child : NULL; p; p = p->next)
            if (read_post(t, p, depth + 1))
                return -1;
        return 0;
    }
    if (!strcmp(type_of(o), "ByteLevel"))
        return sw_json_bool(o, "trim_offsets", true, &t->trim_offsets) || sw_json_bool(o, "add_prefix_space", true, &t->trim_keeps_first)
                   ? sw_fail_in("\"post_processor\"")
                   : 0;
    if (!strcmp(type_of(o), "TemplateProcessing")) {
        sw_ids after = {0};
        int rc = read_pieces(t, o, sw_json_get(o, "single"), "A", &t->prefix, &t->suffix);
        if (!rc && sw_json_get(o, "pair"))
            rc = read_pieces(t, o, sw_json_get(o, "pair"), "B", &t->pair_prefix, &after);
        free(after.at);
        return rc;
    }
    return refuse("post_processor", o);
}

/* bos_token and its like: a string, or an object with "content". */
static int32_t named(const sw_tokenizer *t, const cJSON *config, const char *key)
{
    const cJSON *v = sw_json_get(config, key);
    if (cJSON_IsObject(v))
        v = sw_json_get(v, "content");
    return cJSON_IsString(v) ? sw_token_id(t, v->valuestring, strlen(v->valuestring)) : -1;
}

static int read_config(sw_tokenizer *t, const cJSON *config)
{
    t->bos = named(t, config, "bos_token");
    t->eos = named(t, config, "eos_token");
    t->pad = named(t, config, "pad_token");
    t->unk = named(t, config, "unk_token");
    const cJSON *c = sw_json_get(config, "chat_template");
    if (cJSON_IsArray(c)) { /* several, by name: the default one */
        for (const cJSON *one = c->child; one; one = one->next) {
            const cJSON *name = sw_json_get(one, "name");
            if (cJSON_IsString(name) && !strcmp(name->valuestring, "default"))
                c = sw_json_get(one, "template");
        }
    }
    if (cJSON_IsString(c))
        t->chat_template = sw_strdup(c->valuestring);
    return 0;
}

sw_tokenizer *sw_tokenizer_from_json(const char *text, size_t n, const char *config_text, size_t config_n)
{
    cJSON *root = sw_json_parse(text, n), *config = NULL;
    sw_tokenizer *t = sw_tokenizer_new();
    int rc = root ? 0 : -1;
    bool byte_level = false;
    if (!rc && config_n && !(config = sw_json_parse(config_text, config_n)))
        rc = sw_fail_in("tokenizer_config.json");
    if (!rc)
        rc = read_model(t, root) || read_normalizer(t, sw_json_get(root, "normalizer")) ||
             read_pre(t, sw_json_get(root, "pre_tokenizer"), 0, &byte_level) || read_post(t, sw_json_get(root, "post_processor"), 0)
                 ? -1
                 : 0;
    if (!rc && !byte_level)
        rc = sw_fail("\"pre_tokenizer\": only byte-level BPE is known here");
    if (!rc && config)
        rc = read_config(t, config);
    if (!rc) {
        t->unk = -1; /* a byte-level model leaves out what it has no byte for */
        rc = sw_tokenizer_finish(t);
        t->adds_bos = t->prefix.n && t->prefix.at[0] == t->bos;
        t->adds_eos = t->suffix.n && t->suffix.at[t->suffix.n - 1] == t->eos;
    }
    cJSON_Delete(root);
    cJSON_Delete(config);
    if (rc) {
        sw_tokenizer_free(t);
        return NULL;
    }
    return t;
}

/* ---- GGUF: tokenizer.ggml.pre names the pre-tokenizer of llama.cpp's list */

static const struct {
    const char *name;
    bool digits, cl100k;
    int group;
    bool nfc, ignore_merges;
} pres[] = {
    {"gpt-2", false, false, 0, false, false},   {"default", false, false, 0, false, false},  {"smollm", true, false, 0, false, false},
    {"llama-bpe", false, true, 3, false, true}, {"llama3", false, true, 3, false, true},     {"llama-v3", false, true, 3, false, true},
    {"qwen2", false, true, 1, true, false},     {"deepseek-r1-qwen", false, true, 1, true, false}, {"starcoder", true, false, 0, false, false},
    {"refact", true, false, 0, false, false},   {"command-r", true, false, 0, false, false}, {"mpt", false, false, 0, false, false},
    {"olmo", false, false, 0, false, false},    {"dbrx", false, true, 3, false, false},
};

static int gguf_pre(sw_tokenizer *t, sw_span name)
{
    for (size_t i = 0; i < SW_COUNT(pres); i++) {
        if (strlen(pres[i].name) != name.n || memcmp(pres[i].name, name.at, name.n))
            continue;
        t->pre_name = pres[i].name;
        t->nfc = pres[i].nfc;
        t->ignore_merges = pres[i].ignore_merges;
        if (pres[i].digits)
            sw_cut_simple(t, SW_CUT_DIGITS, 1);
        sw_cut_simple(t, pres[i].cl100k ? SW_CUT_CL100K : SW_CUT_GPT2, pres[i].group);
        return 0;
    }
    return sw_fail("\"tokenizer.ggml.pre\": '%.*s' is not known here", (int)name.n, name.n ? name.at : "");
}

static int gguf_read(sw_tokenizer *t, const struct sw_gguf *g)
{
    sw_span model = sw_gguf_str(g, "tokenizer.ggml.model"), pre = sw_gguf_str(g, "tokenizer.ggml.pre"), s;
    if (model.n != 4 || memcmp(model.at, "gpt2", 4))
        return sw_fail("\"tokenizer.ggml.model\": '%.*s' is not known here; gpt2 (byte-level BPE) is", (int)model.n, model.n ? model.at : "");
    const sw_gguf_value *tokens = sw_gguf_find(g, "tokenizer.ggml.tokens"), *types = sw_gguf_find(g, "tokenizer.ggml.token_type"),
                        *merges = sw_gguf_find(g, "tokenizer.ggml.merges");
    if (!tokens || tokens->type != SW_GGUF_ARRAY || tokens->item != SW_GGUF_STR || !tokens->count || tokens->count > MOST_TOKENS)
        return sw_fail("\"tokenizer.ggml.tokens\": a list of 1 to %d strings is needed", MOST_TOKENS);
    if (!merges || merges->type != SW_GGUF_ARRAY || merges->item != SW_GGUF_STR || merges->count > MOST_TOKENS)
        return sw_fail("\"tokenizer.ggml.merges\": a list of strings is needed");
    if (gguf_pre(t, pre.n ? pre : (sw_span){"default", 7}))
        return -1;
    sw_tokenizer_size_is(t, (int64_t)tokens->count);
    sw_gguf_iter it = sw_gguf_items(tokens);
    sw_gguf_iter kind = types ? sw_gguf_items(types) : (sw_gguf_iter){0};
    for (int32_t id = 0; sw_gguf_next_str(&it, &s); id++) {
        double k = 1;
        if (types && !sw_gguf_next_f64(&kind, &k))
            k = 1;
        if (sw_utf8_valid_prefix(s.at, s.n) < s.n)
            return sw_fail("\"tokenizer.ggml.tokens\": token %d is no valid UTF-8", id);
        if (k == 5) /* unused: a filler row */
            continue;
        sw_tokenizer_set_word(t, id, s.at, s.n);
        if (k == 3 || k == 4)
            sw_tokenizer_set_added(t, &(sw_added){.text = sw_strndup(s.at, s.n), .n = s.n, .id = id, .special = k == 3});
    }
    sw_tokenizer_reserve_merges(t, merges->count);
    it = sw_gguf_items(merges);
    for (int32_t rank = 0; sw_gguf_next_str(&it, &s); rank++) {
        const char *space = s.n > 1 ? memchr(s.at + 1, ' ', s.n - 1) : NULL;
        if (!space)
            return sw_fail("\"tokenizer.ggml.merges\": merge %d is no pair", rank);
        if (sw_tokenizer_add_merge(t, s.at, (size_t)(space - s.at), space + 1, s.n - (size_t)(space - s.at) - 1, rank))
            return sw_fail_in("\"tokenizer.ggml.merges\"");
    }
    const struct {
        const char *key;
        int32_t *id;
    } ids[] = {{"tokenizer.ggml.bos_token_id", &t->bos}, {"tokenizer.ggml.eos_token_id", &t->eos}, {"tokenizer.ggml.padding_token_id", &t->pad}};
    for (size_t i = 0; i < SW_COUNT(ids); i++) {
        int64_t id;
        if (sw_gguf_i64(g, ids[i].key, 0, t->size - 1, -1, &id))
            return -1;
        *ids[i].id = (int32_t)id;
    }
    if (sw_gguf_bool(g, "tokenizer.ggml.add_bos_token", t->ignore_merges, &t->adds_bos) ||
        sw_gguf_bool(g, "tokenizer.ggml.add_eos_token", false, &t->adds_eos))
        return -1;
    if (t->adds_bos && t->bos >= 0)
        SW_PUSH(t->prefix, t->bos);
    if (t->adds_eos && t->eos >= 0)
        SW_PUSH(t->suffix, t->eos);
    s = sw_gguf_str(g, "tokenizer.chat_template");
    if (s.n && sw_utf8_valid_prefix(s.at, s.n) == s.n)
        t->chat_template = sw_strndup(s.at, s.n);
    return sw_tokenizer_finish(t);
}

sw_tokenizer *sw_tokenizer_from_gguf(const struct sw_gguf *g)
{
    sw_tokenizer *t = sw_tokenizer_new();
    if (gguf_read(t, g)) {
        sw_fail_in("%s", sw_gguf_path(g));
        sw_tokenizer_free(t);
        return NULL;
    }
    return t;
}
