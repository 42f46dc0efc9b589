/* Kind tokenizer: ids, offsets and decoding of Hugging Face tokenizers (shared INDEX.md "tokenizer/"). */
#include "golden_text.h"

#include "base/fileio.h"
#include "base/json.h"
#include "store/gguf.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int has(const char *dir, const char *name)
{
    char *packed = sw_strfmt("%s.xz", name);
    int there = golden_has(dir, name) || golden_has(dir, packed);
    free(packed);
    return there;
}

static int is_case(const char *dir)
{
    return (has(dir, "cases.jsonl") && has(dir, "tokenizer.json")) ||
           (has(dir, "spm_cases.jsonl") && has(dir, "tokenizer.model"));
}

/* A file of the case. 1 read, 0 not there. */
static int slurp(const char *dir, const char *name, sw_buf *out)
{
    if (!has(dir, name))
        return 0;
    return golden_slurp(dir, name, out) ? -1 : 1;
}

typedef struct tally {
    size_t n, bad;
    char first[400];
} tally;

static void count(tally *t, bool good, const char *what, const cJSON *line)
{
    t->n++;
    if (good)
        return;
    if (!t->bad++) {
        const cJSON *text = sw_json_get(line, "text");
        snprintf(t->first, sizeof t->first, "%s of '%.120s'", what, cJSON_IsString(text) ? text->valuestring : "...");
    }
}

static bool same_ids(const cJSON *want, const sw_ids *got)
{
    size_t i = 0;
    for (const cJSON *v = want ? want->child : NULL; v; v = v->next, i++)
        if (i >= got->n || got->at[i] != (int32_t)v->valuedouble)
            return false;
    return want && i == got->n;
}

/* Byte offsets as code points. */
static bool same_offsets(const cJSON *want, const sw_ids *got, const char *text)
{
    size_t i = 0;
    for (const cJSON *v = want->child; v; v = v->next, i += 2) {
        if (i + 1 >= got->n || !v->child || !v->child->next)
            return false;
        if ((size_t)v->child->valuedouble != sw_utf8_count(text, (size_t)got->at[i]) ||
            (size_t)v->child->next->valuedouble != sw_utf8_count(text, (size_t)got->at[i + 1]))
            return false;
    }
    return i == got->n;
}

static bool same_text(const cJSON *want, const sw_buf *got)
{
    sw_buf b = {0};
    sw_span s = sw_json_text(want, &b);
    bool same = s.n == got->n && (!s.n || !memcmp(s.at, got->at, s.n));
    sw_buf_free(&b);
    return same;
}

static bool decodes(const sw_tokenizer *t, const cJSON *line, const sw_ids *ids)
{
    bool good = true;
    for (int skip = 0; skip < 2; skip++) {
        sw_buf whole = {0}, stream = {0};
        const cJSON *want = sw_json_get(line, skip ? "decoded_skip_special" : "decoded");
        sw_stream_decoder d = {0};
        good &= !sw_decode(t, ids->at, ids->n, skip, &whole) && same_text(want, &whole);
        for (size_t i = 0; i < ids->n; i++)
            good &= !sw_stream_decode(&d, t, ids->at[i], skip, &stream);
        good &= !sw_stream_finish(&d, t, skip, &stream) && same_text(want, &stream);
        sw_buf_free(&whole);
        sw_buf_free(&stream);
    }
    return good;
}

static void check_line(const sw_tokenizer *t, sw_encoder *e, const cJSON *line, tally *n)
{
    sw_ids ids = {0}, special = {0}, again = {0}, offsets = {0};
    sw_buf b = {0};
    sw_span text = sw_json_text(sw_json_get(line, "text"), &b);
    const char *s = text.at ? text.at : "";
    count(n, !sw_encode(e, s, text.n, false, &ids, NULL) && same_ids(sw_json_get(line, "ids"), &ids), "ids", line);
    count(n,
          !sw_encode(e, s, text.n, true, &special, NULL) && same_ids(sw_json_get(line, "ids_with_special"), &special),
          "ids_with_special", line);
    const cJSON *want = sw_json_get(line, "offsets");
    if (want)
        count(n, !sw_encode(e, s, text.n, false, &again, &offsets) && same_offsets(want, &offsets, s), "offsets", line);
    if (sw_json_get(line, "decoded"))
        count(n, decodes(t, line, &special), "decoded", line);
    free(ids.at);
    free(special.at);
    free(again.at);
    free(offsets.at);
    sw_buf_free(&b);
}

static void check_decode(const sw_tokenizer *t, const cJSON *line, tally *n)
{
    sw_ids ids = {0};
    for (const cJSON *v = sw_json_get(line, "ids") ? sw_json_get(line, "ids")->child : NULL; v; v = v->next)
        SW_PUSH(ids, (int32_t)v->valuedouble);
    count(n, decodes(t, line, &ids), "decode.jsonl", line);
    free(ids.at);
}

static int each_line(const char *dir, const char *name, const sw_tokenizer *t, sw_encoder *e, tally *n,
                     void (*check)(const sw_tokenizer *, sw_encoder *, const cJSON *, tally *))
{
    sw_buf b = {0};
    int rc = slurp(dir, name, &b);
    for (char *s = b.at, *end; rc > 0 && s && *s; s = end + 1) {
        end = strchr(s, '\n');
        if (!end)
            end = s + strlen(s);
        cJSON *line = sw_json_parse(s, (size_t)(end - s));
        if (!line) {
            rc = sw_fail_in("%s", name);
            break;
        }
        check(t, e, line, n);
        cJSON_Delete(line);
        if (!*end)
            break;
    }
    sw_buf_free(&b);
    return rc < 0 ? -1 : 0;
}

static void decode_line(const sw_tokenizer *t, sw_encoder *e, const cJSON *line, tally *n)
{
    (void)e;
    check_decode(t, line, n);
}

/* Ids of the same vocabulary read from GGUF; where its special tokens have other numbers, their spelling counts. */
static const sw_tokenizer *json_tokenizer;
static void gguf_line(const sw_tokenizer *t, sw_encoder *e, const cJSON *line, tally *n)
{
    sw_ids ids = {0};
    sw_buf b = {0};
    sw_span text = sw_json_text(sw_json_get(line, "text"), &b);
    bool good = !sw_encode(e, text.at ? text.at : "", text.n, false, &ids, NULL);
    size_t i = 0;
    for (const cJSON *v = sw_json_get(line, "ids")->child; v && good; v = v->next, i++) {
        int32_t want = (int32_t)v->valuedouble;
        sw_span a = sw_token_piece(json_tokenizer, want), c = i < ids.n ? sw_token_piece(t, ids.at[i]) : (sw_span){0};
        good = i < ids.n &&
               (ids.at[i] == want || (sw_token_is_special(t, ids.at[i]) && a.n == c.n && !memcmp(a.at, c.at, a.n)));
    }
    count(n, good && i == ids.n, "ids by vocab.gguf", line);
    free(ids.at);
    sw_buf_free(&b);
}

static int check_ids(const char *dir, sw_tokenizer *t, const sw_tokenizer *json, tally *n)
{
    if (!t)
        return -1;
    sw_encoder *e = sw_encoder_new(t);
    json_tokenizer = json;
    int rc = each_line(dir, "cases.jsonl", t, e, n, gguf_line);
    sw_encoder_free(e);
    sw_tokenizer_free(t);
    return rc;
}

static int check_gguf(const char *dir, const sw_tokenizer *json, tally *n)
{
    sw_buf b = {0};
    int rc = slurp(dir, "vocab.gguf", &b);
    if (rc > 0) {
        sw_gguf *g = sw_gguf_from_bytes(b.at, b.n, "vocab.gguf");
        sw_tokenizer *t = g ? sw_tokenizer_from_gguf(g) : NULL;
        sw_buf again = {0}, config = {0};
        rc = t && !sw_tokenizer_to_json(t, &again, &config) ? check_ids(dir, t, json, n) : -1;
        if (!rc) /* and what is written of it */
            rc = check_ids(dir, sw_tokenizer_from_json(again.at, again.n, config.at, config.n), json, n);
        sw_buf_free(&again);
        sw_buf_free(&config);
        if (g)
            sw_gguf_close(g);
    }
    sw_buf_free(&b);
    return rc ? sw_fail_in("by vocab.gguf") : 0;
}

/* The tiktoken file with the pattern and special tokens of ranks.json. */
static int check_ranks(const char *dir, const sw_tokenizer *json, tally *n)
{
    sw_buf b = {0}, text = {0};
    int rc = slurp(dir, "ranks.tiktoken", &b);
    cJSON *about = rc > 0 && slurp(dir, "ranks.json", &text) > 0 ? sw_json_parse(text.at, text.n) : NULL;
    if (rc > 0) {
        const cJSON *list = sw_json_get(about, "special_tokens"), *pattern = sw_json_get(about, "pattern"),
                    *normal = sw_json_get(about, "normalizer");
        struct {
            sw_special_token *at;
            size_t n, cap;
        } special = {0};
        for (const cJSON *s = list ? list->child : NULL; s; s = s->next)
            SW_PUSH(special, ((sw_special_token){s->string, (int32_t)s->valuedouble}));
        char *normalizer = cJSON_IsString(normal) ? sw_strfmt("{\"type\": \"%s\"}", normal->valuestring) : NULL;
        rc = check_ids(dir,
                       sw_tokenizer_from_tiktoken(b.at, b.n, cJSON_IsString(pattern) ? pattern->valuestring : NULL,
                                                  normalizer, special.at, special.n),
                       json, n);
        free(normalizer);
        free(special.at);
        if (rc)
            sw_fail_in("ranks.tiktoken");
    }
    cJSON_Delete(about);
    sw_buf_free(&b);
    sw_buf_free(&text);
    return rc;
}

static void pair_line(const sw_tokenizer *t, sw_encoder *e, const cJSON *line, tally *n)
{
    (void)t;
    sw_buf x = {0}, y = {0};
    sw_ids plain = {0}, ids = {0}, types = {0}, special = {0};
    sw_span a = sw_json_text(sw_json_get(line, "text"), &x), b = sw_json_text(sw_json_get(line, "pair"), &y);
    count(n,
          !sw_encode_pair(e, a.at ? a.at : "", a.n, b.at ? b.at : "", b.n, false, &plain, NULL, NULL) &&
              same_ids(sw_json_get(line, "ids"), &plain),
          "ids of a pair", line);
    count(n,
          !sw_encode_pair(e, a.at ? a.at : "", a.n, b.at ? b.at : "", b.n, true, &ids, &types, &special) &&
              same_ids(sw_json_get(line, "ids_with_special"), &ids) &&
              same_ids(sw_json_get(line, "type_ids"), &types) &&
              same_ids(sw_json_get(line, "special_tokens_mask"), &special),
          "a pair", line);
    free(plain.at);
    free(ids.at);
    free(types.at);
    free(special.at);
    sw_buf_free(&x);
    sw_buf_free(&y);
}

/* A line of sentencepiece: its own ids, pieces and text. The spelling of control symbols is plain text there. */
static void spm_line(const sw_tokenizer *t, sw_encoder *e, const cJSON *line, tally *n)
{
    sw_ids ids = {0}, special = {0};
    sw_buf b = {0}, out = {0};
    sw_span text = sw_json_text(sw_json_get(line, "text"), &b);
    const char *s = text.at ? text.at : "";
    count(n, !sw_encode(e, s, text.n, false, &ids, NULL) && same_ids(sw_json_get(line, "ids"), &ids), "ids", line);
    sw_ids again = {0}, offsets = {0}; /* with offsets, no word is remembered */
    count(n, !sw_encode(e, s, text.n, false, &again, &offsets) && same_ids(sw_json_get(line, "ids"), &again), "ids with offsets", line);
    free(again.at);
    free(offsets.at);
    const cJSON *want = sw_json_get(line, "ids_with_special");
    if (sw_tokenizer_bos(t) >= 0)
        SW_PUSH(special, sw_tokenizer_bos(t));
    for (size_t i = 0; i < ids.n; i++)
        SW_PUSH(special, ids.at[i]);
    if (sw_tokenizer_eos(t) >= 0)
        SW_PUSH(special, sw_tokenizer_eos(t));
    count(n, same_ids(want, &special), "ids_with_special", line);
    count(n, !sw_decode(t, ids.at, ids.n, false, &out) && same_text(sw_json_get(line, "decoded"), &out), "decoded",
          line);
    sw_stream_decoder d = {0};
    sw_buf_clear(&out);
    bool good = true;
    for (size_t i = 0; i < ids.n; i++)
        good &= !sw_stream_decode(&d, t, ids.at[i], false, &out);
    count(n, !sw_stream_finish(&d, t, false, &out) && good && same_text(sw_json_get(line, "decoded"), &out),
          "decoded as a stream", line);
    free(ids.at);
    free(special.at);
    sw_buf_free(&b);
    sw_buf_free(&out);
}

static int run_spm(const char *dir, tally *n)
{
    sw_buf b = {0};
    int rc = slurp(dir, "tokenizer.model", &b);
    sw_tokenizer *t = rc > 0 ? sw_tokenizer_from_sentencepiece(b.at, b.n, NULL, 0) : NULL;
    if (t) {
        sw_encoder *e = sw_encoder_new(t);
        rc = each_line(dir, "spm_cases.jsonl", t, e, n, spm_line);
        sw_encoder_free(e);
    }
    sw_tokenizer_free(t);
    sw_buf_free(&b);
    return t ? rc : -1;
}

/* The tokenizer written to JSON and read back gives the same ids. */
static int check_written(const char *dir, const sw_tokenizer *t, tally *n)
{
    sw_buf json = {0}, config = {0};
    int rc = sw_tokenizer_to_json(t, &json, &config);
    sw_tokenizer *again = rc ? NULL : sw_tokenizer_from_json(json.at, json.n, config.at, config.n);
    rc = -1;
    if (again) {
        sw_encoder *e = sw_encoder_new(again);
        json_tokenizer = t;
        rc = each_line(dir, "cases.jsonl", again, e, n, gguf_line);
        sw_encoder_free(e);
        sw_tokenizer_free(again);
    }
    sw_buf_free(&json);
    sw_buf_free(&config);
    return rc ? sw_fail_in("written and read back") : 0;
}

static int run(const char *dir, double *worst)
{
    sw_buf json = {0}, config = {0};
    tally n = {0};
    int rc = slurp(dir, "tokenizer.json", &json) < 0 || slurp(dir, "tokenizer_config.json", &config) < 0 ? -1 : 0;
    bool spm = !rc && !has(dir, "tokenizer.json");
    sw_tokenizer *t = rc || spm ? NULL : sw_tokenizer_from_json(json.at, json.n, config.at, config.n);
    if (spm) {
        rc = run_spm(dir, &n);
    } else if (t) {
        sw_encoder *e = sw_encoder_new(t);
        rc = each_line(dir, "cases.jsonl", t, e, &n, check_line) ||
             each_line(dir, "decode.jsonl", t, e, &n, decode_line) ||
             each_line(dir, "pairs.jsonl", t, e, &n, pair_line) || check_gguf(dir, t, &n) || check_ranks(dir, t, &n) ||
             check_written(dir, t, &n);
        sw_encoder_free(e);
        sw_tokenizer_free(t);
    } else {
        rc = -1;
    }
    sw_buf_free(&json);
    sw_buf_free(&config);
    *worst = (double)n.bad;
    if (!rc && (n.bad || !n.n))
        rc = sw_fail("%zu of %zu differ; first: %s", n.bad, n.n, n.first);
    return rc ? -1 : 0;
}

const golden_kind golden_tokenizer = {"tokenizer", is_case, run, NULL};
