/* Tokenizers from tokenizer.json: the model, its vocabulary, the added tokens; the other parts are
 * tokenizer_read_parts.c. */
#include "text/tokenizer_parts.h"

#include "base/json.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_id(const cJSON *v)
{
    return cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble < SW_MOST_TOKENS &&
           v->valuedouble == (int32_t)v->valuedouble;
}

/* {"piece": id, ...} */
int sw_tokenizer_read_vocabulary(sw_tokenizer *t, const cJSON *vocab)
{
    if (!cJSON_IsObject(vocab))
        return sw_fail("the vocabulary: an object of token ids is needed, not %s", sw_json_kind(vocab));
    sw_buf b = {0};
    int64_t most = -1;
    for (const cJSON *v = vocab->child; v; v = v->next) {
        if (!is_id(v))
            return sw_fail("the vocabulary: '%.100s' has no token id between 0 and %d", v->string, SW_MOST_TOKENS - 1);
        most = SW_MAX(most, (int64_t)v->valuedouble);
    }
    sw_tokenizer_size_is(t, most + 1);
    for (const cJSON *v = vocab->child; v; v = v->next) {
        sw_span s = sw_json_key(v, &b);
        sw_tokenizer_set_word(t, (int32_t)v->valuedouble, s.at, s.n);
    }
    sw_buf_free(&b);
    return 0;
}

/* [["piece", score], ...] */
static int read_scores(sw_tokenizer *t, const cJSON *vocab)
{
    if (!cJSON_IsArray(vocab) || cJSON_GetArraySize(vocab) > SW_MOST_TOKENS)
        return sw_fail("\"model.vocab\": a list of pairs of a piece and its score is needed, not %s",
                       sw_json_kind(vocab));
    sw_tokenizer_size_is(t, cJSON_GetArraySize(vocab));
    t->scores = SW_NEW_ARRAY(double, (size_t)t->size + 1);
    sw_buf b = {0};
    int32_t id = 0;
    for (const cJSON *v = vocab->child; v; v = v->next, id++) {
        const cJSON *piece = cJSON_IsArray(v) ? v->child : NULL, *score = piece ? piece->next : NULL;
        if (!cJSON_IsString(piece) || !cJSON_IsNumber(score) || isnan(score->valuedouble)) {
            sw_buf_free(&b);
            return sw_fail("\"model.vocab\": item %d is no pair of a piece and its score", id);
        }
        sw_span s = sw_json_text(piece, &b);
        sw_tokenizer_set_word(t, id, s.at, s.n);
        t->scores[id] = score->valuedouble;
    }
    sw_buf_free(&b);
    return 0;
}

static int read_merges(sw_tokenizer *t, const cJSON *list)
{
    if (!cJSON_IsArray(list))
        return sw_fail("\"model.merges\": a list is needed, not %s", sw_json_kind(list));
    sw_tokenizer_reserve_merges(t, (size_t)cJSON_GetArraySize(list));
    int32_t rank = 0;
    sw_buf left = {0}, right = {0};
    int rc = 0;
    for (const cJSON *m = list->child; m && !rc; m = m->next) {
        sw_span a = {0}, b = {0};
        if (cJSON_IsString(m)) { /* the older form, "a b" */
            a = sw_json_text(m, &left);
            if (a.n >= 8 && !memcmp(a.at, "#version", 8))
                continue;
            const char *space = memchr(a.at, ' ', a.n);
            if (space) {
                b = (sw_span){space + 1, a.n - (size_t)(space + 1 - a.at)};
                a.n = (size_t)(space - a.at);
            }
            if (b.at && memchr(b.at, ' ', b.n))
                b.at = NULL;
        } else if (cJSON_IsArray(m) && cJSON_IsString(m->child) && cJSON_IsString(m->child->next)) {
            a = sw_json_text(m->child, &left);
            b = sw_json_text(m->child->next, &right);
        }
        if (!a.at || !b.at)
            rc = sw_fail("\"model.merges\": merge %d is no pair of strings", rank);
        else if (sw_tokenizer_add_merge(t, a.at, a.n, b.at, b.n, rank))
            rc = sw_fail_in("\"model.merges\"");
        rank++;
    }
    sw_buf_free(&left);
    sw_buf_free(&right);
    return rc;
}

static int model_text(const cJSON *model, const char *key, char **out)
{
    const char *s;
    if (sw_json_str(model, key, "", &s))
        return sw_fail_in("\"model\"");
    free(*out);
    *out = sw_strdup(s);
    return 0;
}

static int read_bpe(sw_tokenizer *t, const cJSON *model)
{
    double dropout;
    if (sw_json_bool(model, "byte_fallback", false, &t->byte_fallback) ||
        sw_json_bool(model, "fuse_unk", false, &t->fuse_unk) ||
        sw_json_bool(model, "ignore_merges", false, &t->ignore_merges) || sw_json_f64(model, "dropout", 0, &dropout))
        return sw_fail_in("\"model\"");
    if (dropout != 0)
        return sw_fail("\"model.dropout\": %g makes encoding random; 0 or null is needed", dropout);
    if (model_text(model, "continuing_subword_prefix", &t->prefix_text) ||
        model_text(model, "end_of_word_suffix", &t->suffix_text) ||
        sw_tokenizer_read_vocabulary(t, sw_json_get(model, "vocab")) || read_merges(t, sw_json_get(model, "merges")))
        return -1;
    t->unk = *t->unk_text ? (int32_t)sw_map_gets(&t->model_ids, t->unk_text, -1) : -1;
    return 0;
}

static int read_unigram(sw_tokenizer *t, const cJSON *model)
{
    int64_t unk;
    if (sw_json_bool(model, "byte_fallback", false, &t->byte_fallback) || read_scores(t, sw_json_get(model, "vocab")) ||
        sw_json_i64(model, "unk_id", 0, INT_MAX, -1, &unk))
        return sw_fail_in("\"model\"");
    if (unk >= t->size)
        return sw_fail("\"model.unk_id\": %lld, and there are %lld pieces", (long long)unk, (long long)t->size);
    t->unk = (int32_t)unk;
    return 0;
}

static int read_words(sw_tokenizer *t, const cJSON *model)
{
    free(t->prefix_text);
    t->prefix_text = sw_strdup("##");
    bool has_prefix = sw_json_get(model, "continuing_subword_prefix") != NULL;
    if ((has_prefix && model_text(model, "continuing_subword_prefix", &t->prefix_text)) ||
        sw_json_i64(model, "max_input_chars_per_word", 0, INT64_MAX, 100, &t->max_chars) ||
        sw_tokenizer_read_vocabulary(t, sw_json_get(model, "vocab")))
        return -1;
    t->unk = (int32_t)sw_map_gets(&t->model_ids, t->unk_text, -1);
    return 0;
}

static int read_model(sw_tokenizer *t, const cJSON *model)
{
    static const char *const kinds[] = {"BPE", "Unigram", "WordPiece", "WordLevel"};
    const cJSON *type = sw_json_get(model, "type");
    size_t k = 0;
    if (cJSON_IsString(type)) {
        while (k < SW_COUNT(kinds) && strcmp(kinds[k], type->valuestring))
            k++;
    } else { /* files from before there were types */
        k = sw_json_get(model, "merges")                     ? SW_BPE
            : cJSON_IsArray(sw_json_get(model, "vocab"))     ? SW_UNIGRAM
            : sw_json_get(model, "max_input_chars_per_word") ? SW_WORDPIECE
                                                             : SW_WORDLEVEL;
    }
    if (k == SW_COUNT(kinds) || !cJSON_IsObject(model))
        return sw_fail("\"model\": type '%s' is not known; BPE, Unigram, WordPiece and WordLevel are",
                       cJSON_IsString(type) ? type->valuestring : sw_json_kind(model));
    t->model = (sw_model_kind)k;
    if (t->model != SW_UNIGRAM && model_text(model, "unk_token", &t->unk_text))
        return -1;
    return t->model == SW_BPE       ? read_bpe(t, model)
           : t->model == SW_UNIGRAM ? read_unigram(t, model)
                                    : read_words(t, model);
}

static int read_added(sw_tokenizer *t, const cJSON *list)
{
    if (list && !cJSON_IsArray(list))
        return sw_fail("\"added_tokens\": a list is needed, not %s", sw_json_kind(list));
    int32_t next = t->model == SW_UNIGRAM ? (int32_t)t->size : (int32_t)t->model_ids.n;
    sw_buf b = {0};
    int rc = 0;
    for (const cJSON *a = list ? list->child : NULL; a && !rc; a = a->next) {
        sw_added one = {0};
        const cJSON *content = sw_json_get(a, "content");
        int64_t id;
        if (!cJSON_IsString(content) || !cJSON_IsObject(a))
            rc = sw_fail("\"added_tokens\": \"content\" is %s, a string is needed", sw_json_kind(content));
        else if (sw_json_i64(a, "id", 0, SW_MOST_TOKENS - 1, -1, &id) ||
                 sw_json_bool(a, "special", false, &one.special) || sw_json_bool(a, "lstrip", false, &one.lstrip) ||
                 sw_json_bool(a, "rstrip", false, &one.rstrip) ||
                 sw_json_bool(a, "single_word", false, &one.single_word) ||
                 sw_json_bool(a, "normalized", !one.special, &one.normalized))
            rc = sw_fail_in("\"added_tokens\"");
        if (rc)
            break;
        sw_span s = sw_json_text(content, &b);
        one.n = s.n;
        one.text = sw_strndup(s.at, s.n);
        /* Its own id where nothing else has it; else the next free one, as the Hugging Face reader counts. */
        int32_t own = (int32_t)id;
        bool free_id = id >= 0 && (id >= t->size || !t->pieces[id].at);
        rc = sw_tokenizer_add(t, one, free_id ? &own : &next);
    }
    sw_buf_free(&b);
    return rc;
}

/* bos_token and its like: a string, or an object with "content". */
static int32_t named(const sw_tokenizer *t, const cJSON *config, const char *key)
{
    const cJSON *v = sw_json_get(config, key);
    if (cJSON_IsObject(v))
        v = sw_json_get(v, "content");
    return cJSON_IsString(v) ? sw_token_id(t, v->valuestring, strlen(v->valuestring)) : -1;
}

/* chat_template; where there are several, by name, the default one. */
const cJSON *sw_tokenizer_config_template(const cJSON *config)
{
    const cJSON *c = sw_json_get(config, "chat_template");
    for (const cJSON *one = cJSON_IsArray(c) ? c->child : NULL; one; one = one->next) {
        const cJSON *name = sw_json_get(one, "name");
        if (cJSON_IsString(name) && !strcmp(name->valuestring, "default"))
            c = sw_json_get(one, "template");
    }
    return cJSON_IsString(c) ? c : NULL;
}

int sw_tokenizer_read_config(sw_tokenizer *t, const cJSON *config)
{
    const struct {
        const char *key;
        int32_t *id;
    } ids[] = {{"bos_token", &t->bos}, {"eos_token", &t->eos}, {"pad_token", &t->pad}};
    for (size_t i = 0; i < SW_COUNT(ids); i++)
        if (sw_json_get(config, ids[i].key))
            *ids[i].id = named(t, config, ids[i].key);
    const cJSON *c = sw_tokenizer_config_template(config);
    if (c) {
        free(t->chat_template);
        t->chat_template = sw_strdup(c->valuestring);
    }
    return 0;
}

sw_tokenizer *sw_tokenizer_from_json(const char *text, size_t n, const char *config_text, size_t config_n)
{
    cJSON *root = sw_json_parse(text, n), *config = NULL;
    sw_tokenizer *t = sw_tokenizer_new();
    int rc = root ? 0 : -1;
    if (!rc && config_n && !(config = sw_json_parse(config_text, config_n)))
        rc = sw_fail_in("tokenizer_config.json");
    if (!rc)
        rc = read_model(t, sw_json_get(root, "model")) || read_added(t, sw_json_get(root, "added_tokens")) ? -1 : 0;
    for (int part = 0; part < SW_PART_COUNT && !rc; part++)
        rc = sw_tokenizer_read_part(t, part, sw_json_get(root, sw_part_names[part]));
    if (!rc && config)
        rc = sw_tokenizer_read_config(t, config);
    if (!rc)
        rc = sw_tokenizer_finish(t);
    cJSON_Delete(root);
    cJSON_Delete(config);
    if (rc) {
        sw_tokenizer_free(t);
        return NULL;
    }
    return t;
}
