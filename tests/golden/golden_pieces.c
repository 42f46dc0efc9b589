#include "golden_pieces.h"

#include "base/json.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

typedef struct encoding {
    const sw_tokenizer *tokenizer;
    sw_encoder *encoder;
    const cJSON *tokens;  /* bos_token, eos_token by spelling */
    sw_buf text;          /* joined pieces of one weight that wait to be tokenised */
    float weight;
    sw_ids *ids;
    sw_weights *weights;
} encoding;

static void put_weights(encoding *c, float weight)
{
    while (c->weights->n < c->ids->n)
        SW_PUSH(*c->weights, weight);
}

static int flush(encoding *c)
{
    int bad = c->text.n ? sw_encode(c->encoder, c->text.at, c->text.n, false, c->ids, NULL) : 0;
    put_weights(c, c->weight);
    sw_buf_clear(&c->text);
    return bad;
}

static int put_text(encoding *c, const char *s, size_t n, float weight)
{
    if (n && c->weight != weight && flush(c))
        return -1;
    if (n)
        c->weight = weight;
    sw_buf_add(&c->text, s, n);
    return 0;
}

/* ["eos_token_id"] */
static int put_id(encoding *c, const cJSON *names, float weight)
{
    if (flush(c))
        return -1;
    for (const cJSON *name = names->child; name; name = name->next) {
        const char *spelling;
        char *key = sw_strdup(name->valuestring);
        char *tail = strstr(key, "_id");
        if (tail)
            *tail = 0;
        int bad = sw_json_str(c->tokens, key, "", &spelling);
        free(key);
        int32_t id = bad ? -1 : sw_token_id(c->tokenizer, spelling, strlen(spelling));
        if (id < 0)
            return sw_fail("no token for %s", name->valuestring);
        SW_PUSH(*c->ids, id);
    }
    put_weights(c, weight);
    return 0;
}

/* A list of pieces with {{KEY}} replaced by value. */
static int put_pieces(encoding *c, const cJSON *pieces, const char *key, sw_span value, float weight)
{
    for (const cJSON *p = pieces ? pieces->child : NULL; p; p = p->next) {
        if (cJSON_IsArray(p)) {
            if (put_id(c, p, weight))
                return -1;
            continue;
        }
        const char *at = p->valuestring, *hit;
        while (key && (hit = strstr(at, key))) {
            if (put_text(c, at, (size_t)(hit - at), weight) || put_text(c, value.at, value.n, weight))
                return -1;
            at = hit + strlen(key);
        }
        if (put_text(c, at, strlen(at), weight))
            return -1;
    }
    return 0;
}

static sw_span content(const cJSON *message, sw_buf *scratch) { return sw_json_text(sw_json_get(message, "content"), scratch); }

/* A run of unlabelled tokens after labelled ones that begins with the suffix's ids has those labelled. */
static int label_separators(encoding *c, const cJSON *suffix)
{
    sw_ids ids = {0};
    sw_weights none = {0};
    encoding s = {.tokenizer = c->tokenizer, .encoder = c->encoder, .tokens = c->tokens, .ids = &ids, .weights = &none};
    int bad = put_pieces(&s, suffix, NULL, (sw_span){0}, 0) || flush(&s);
    float *w = c->weights->at;
    for (size_t i = 1; i < c->ids->n && !bad; i++) {
        size_t end = i;
        if (!w[i - 1] || w[i])
            continue;
        while (end < c->ids->n && !w[end])
            end++;
        if (end - i >= ids.n && !memcmp(c->ids->at + i, ids.at, ids.n * sizeof *ids.at))
            for (size_t k = 0; k < ids.n; k++)
                w[i + k] = 1;
        i = end;
    }
    sw_buf_free(&s.text);
    free(ids.at);
    free(none.at);
    return bad;
}

int golden_pieces_encode(const cJSON *template, const sw_tokenizer *t, sw_encoder *e, const cJSON *messages,
                         const cJSON *tokens, sw_ids *ids, sw_weights *weights)
{
    if (!template)
        return sw_fail("no such template of pieces");
    encoding c = {.tokenizer = t, .encoder = e, .tokens = tokens, .ids = ids, .weights = weights};
    sw_buf scratch = {0};
    const cJSON *m = messages->child;
    const char *role = "", *fallback = "";
    bool auto_bos;
    int bad = sw_json_str(template, "default_system", "", &fallback) || sw_json_bool(template, "auto_bos", false, &auto_bos) ||
              (m && sw_json_str(m, "role", "", &role));
    sw_span system = {fallback, strlen(fallback)};
    if (!bad && auto_bos && sw_tokenizer_adds_bos(t)) {
        SW_PUSH(*ids, sw_tokenizer_bos(t));
        put_weights(&c, 0);
    }
    if (!bad && !strcmp(role, "system")) {
        system = content(m, &scratch);
        m = m->next;
    }
    if (!bad)
        bad = put_pieces(&c, sw_json_get(template, system.n ? "system_prefix" : "prefix"), "{{SYSTEM}}", system, 0);
    for (; m && m->next && !bad; m = m->next->next) {
        bool last = !m->next->next || !m->next->next->next;
        bad = put_pieces(&c, sw_json_get(template, "prompt"), "{{QUERY}}", content(m, &scratch), 0);
        sw_span answer = content(m->next, &scratch);
        bad = bad || put_text(&c, answer.at, answer.n, 1) ||
              put_pieces(&c, sw_json_get(template, last ? "suffix" : "chat_sep"), NULL, (sw_span){0}, last);
    }
    bad = bad || flush(&c) || label_separators(&c, sw_json_get(template, "suffix"));
    sw_buf_free(&c.text);
    sw_buf_free(&scratch);
    return bad ? -1 : 0;
}
