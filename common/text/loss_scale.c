#include "text/loss_scale.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/memory.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

/* Presets, as the files would say it. */
static const struct preset {
    const char *name, *json;
} presets[] = {
    {"react", "{\"Action:\": [2, 2], \"Action Input:\": [2, 2], \"Thought:\": [1, 1], \"Final Answer:\": [1, 1], "
              "\"Observation:\": [2, 0]}"},
    {"alpha_umi", "{\"Action:\": [2, 2], \"Action Input:\": [2, 2], \"Thought:\": [1, 1], \"Final Answer:\": [1, 1], "
                  "\"Observation:\": [2, 0], \"Next:\": [2, 2]}"},
    {"agentflan",
     "{\"response\": {\"Name:\": [1, 3], \"Action:\": [1, 3], \"ACTION:\": [1, 3], \"Tool:\": [1, 3], \"Command\": [1, "
     "3], "
     "\"Arguments:\": [1, 3], \"action input\": [1, 3], \"ACTION_INPUT:\": [1, 3], \"Action Input:\": [1, 3], "
     "\"Thought:\": [1, 1], "
     "\"Final Answer:\": [1, 1], \"Observation:\": [2, 0]}, \"query\": {\"What is the tool you want to use\": 3, "
     "\"What are the required parameter names\": 3, \"What is the value of\": 3, "
     "\"What are the required parameter names for this tool\": 3}}"},
    {"qwen", "{\"✿FUNCTION✿:\": [2, 2], \"✿ARGS✿:\": [2, 2], \"✿RETURN✿:\": [1, 1], \"✿RESULT✿:\": [2, 0]}"},
    {"hermes", "{\"<tool_call>.+?</tool_call>\": 2}"},
    {"ignore_empty_think",
     "{\"^<think>\\\\s*</think>\\\\s*\": 0, \"^</think>\\\\s*\": 0, \"^</mm:think>\\\\s*\": 0, "
     "\"^<\\\\|channel>thought\\\\s*<channel\\\\|>\\\\s*\": 0, "
     "\"^<seed:think>\\\\s*<seed:cot_budget_reflect>[^<]*</seed:cot_budget_reflect>\\\\s*</seed:think>\\\\s*\": 0}"},
    {"ignore_think_prefix", "{\"^<think>\\\\n?\": 0}"},
};

typedef struct key {
    char *text;
    size_t n;
    float own, after;
} key;
typedef struct pattern {
    pcre2_code *code;
    float weight;
} pattern;
typedef struct rule {
    struct {
        key *at;
        size_t n, cap;
    } keys, queries;
    struct {
        pattern *at;
        size_t n, cap;
    } patterns;
} rule;

struct sw_loss_scale {
    struct {
        rule *at;
        size_t n, cap;
    } rules;
    pcre2_match_context *limits;
};

const char *const *sw_loss_scale_presets(void)
{
    static const char *names[SW_COUNT(presets) + 1];
    for (size_t i = 0; i < SW_COUNT(presets); i++)
        names[i] = presets[i].name;
    return names;
}

/* ---- loading */

static int add_pattern(rule *r, const char *text, double weight)
{
    int error;
    PCRE2_SIZE offset;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_DOTALL | PCRE2_UTF | PCRE2_UCP,
                                     &error, &offset, NULL);
    if (!code) {
        char why[120];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)why, sizeof why);
        return sw_fail("\"%s\": no regular expression at character %zu: %s", text, (size_t)offset + 1, why);
    }
    SW_PUSH(r->patterns, ((pattern){code, (float)weight}));
    return 0;
}

static int add_entry(rule *r, const cJSON *entry, bool query)
{
    const cJSON *one = cJSON_IsArray(entry) ? entry->child : entry,
                *two = cJSON_IsArray(entry) && one ? one->next : NULL;
    bool good = one && cJSON_IsNumber(one) && (!two || (cJSON_IsNumber(two) && !two->next && !query));
    for (const cJSON *v = one; v && good; v = cJSON_IsArray(entry) ? v->next : NULL)
        good = v->valuedouble >= 0 && v->valuedouble <= 1e6;
    if (!good)
        return sw_fail("\"%s\": %s from 0 to 1000000 is wanted", entry->string,
                       query ? "a number" : "one number, or a list of two,");
    if (!*entry->string)
        return sw_fail("an empty text finds nothing");
    key k = {sw_strdup(entry->string), strlen(entry->string), (float)one->valuedouble,
             (float)(two ? two->valuedouble : one->valuedouble)};
    if (query)
        SW_PUSH(r->queries, k);
    else if (two)
        SW_PUSH(r->keys, k);
    else
        free(k.text);
    return query || two ? 0 : add_pattern(r, entry->string, one->valuedouble);
}

static int add_entries(rule *r, const cJSON *o, bool query)
{
    if (o && !cJSON_IsObject(o))
        return sw_fail("an object of texts and weights is wanted, not %s", sw_json_kind(o));
    for (const cJSON *e = o ? o->child : NULL; e; e = e->next)
        if (add_entry(r, e, query))
            return -1;
    return 0;
}

static int read_rule(rule *r, const cJSON *o)
{
    const cJSON *query = sw_json_get(o, "query"), *response = sw_json_get(o, "response");
    if (!cJSON_IsObject(query) && !cJSON_IsObject(response))
        return add_entries(r, o, false);
    return add_entries(r, query, true) || add_entries(r, response, false) ? -1 : 0;
}

static int add_rule(sw_loss_scale *s, const char *name)
{
    cJSON *o = NULL;
    for (size_t i = 0; i < SW_COUNT(presets) && !o; i++)
        if (!strcmp(presets[i].name, name))
            o = sw_json_parse(presets[i].json, strlen(presets[i].json));
    if (!o && sw_is_file(name)) {
        if (!(o = sw_json_load(name)))
            return -1;
    } else if (!o) {
        sw_buf b = {0};
        for (size_t i = 0; i < SW_COUNT(presets); i++)
            sw_buf_printf(&b, ", %s", presets[i].name);
        sw_fail("loss scale '%s': neither a JSON file nor one of default, last_round, all%s", name, b.at);
        sw_buf_free(&b);
        return -1;
    }
    rule r = {0};
    int bad = read_rule(&r, o);
    cJSON_Delete(o);
    SW_PUSH(s->rules, r); /* freed with the rest */
    return bad ? sw_fail_in("loss scale %s", name) : 0;
}

static char base_of(const char *name)
{
    static const char *const names[] = {"default", "last_round", "all"};
    for (size_t i = 0; i < SW_COUNT(names); i++)
        if (!strcmp(names[i], name))
            return *name;
    return 0;
}

sw_loss_scale *sw_loss_scale_load(const char *spec, char *base)
{
    sw_loss_scale *s = SW_NEW(sw_loss_scale);
    char *copy = sw_strdup(spec), *at = copy;
    bool whole = sw_is_file(spec);
    int bad = 0;
    *base = 0;
    s->limits = pcre2_match_context_create(NULL);
    pcre2_set_match_limit(s->limits, 1000000);
    for (bool first = true; at && !bad; first = false) {
        char *plus = whole ? NULL : strchr(at, '+');
        if (plus)
            *plus++ = 0;
        char b = base_of(at);
        if (b && !first)
            bad = sw_fail("loss scale '%s': '%s' is to come first", spec, at);
        else if (b)
            *base = b;
        else
            bad = add_rule(s, at);
        at = plus;
    }
    free(copy);
    if (bad) {
        sw_loss_scale_free(s);
        return NULL;
    }
    return s;
}

static void free_keys(key *at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(at[i].text);
    free(at);
}

void sw_loss_scale_free(sw_loss_scale *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->rules.n; i++) {
        rule *r = &s->rules.at[i];
        free_keys(r->keys.at, r->keys.n);
        free_keys(r->queries.at, r->queries.n);
        for (size_t k = 0; k < r->patterns.n; k++)
            pcre2_code_free(r->patterns.at[k].code);
        free(r->patterns.at);
    }
    free(s->rules.at);
    pcre2_match_context_free(s->limits);
    free(s);
}

bool sw_loss_scale_is_plain(const sw_loss_scale *s) { return !s->rules.n; }

/* ---- weights */

static void multiply(float *w, size_t from, size_t to, float by)
{
    for (size_t i = from; i < to; i++)
        w[i] *= by;
}

/* The key that stands at text[at], in the order of the file. */
static const key *key_at(const rule *r, const char *text, size_t at, size_t n)
{
    for (size_t k = 0; k < r->keys.n; k++)
        if (n - at >= r->keys.at[k].n && !memcmp(text + at, r->keys.at[k].text, r->keys.at[k].n))
            return &r->keys.at[k];
    return NULL;
}

static void apply_keys(const rule *r, const char *text, size_t n, float *w)
{
    const key *open = NULL;
    for (size_t at = 0, from = 0; at <= n;) {
        const key *k = at < n ? key_at(r, text, at, n) : NULL;
        if (k || at == n)
            multiply(w, from, at, open ? open->after : 1);
        if (k) {
            multiply(w, at, at + k->n, k->own);
            open = k;
            from = at + k->n;
        }
        at += k ? k->n : 1;
    }
}

/* The text is cut at matches: the first that begins, of two that begin together the one that the file names first. */
static int apply_patterns(const sw_loss_scale *s, const rule *r, const char *text, size_t n, float *w)
{
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    size_t *next = SW_NEW_ARRAY(size_t, 2 * r->patterns.n); /* each pattern's next match; a start of n + 1: none */
    int bad = 0;
    for (size_t at = 0; at <= n && !bad;) {
        size_t best = 0;
        for (size_t k = 0; k < r->patterns.n && !bad; k++) {
            if (at && next[2 * k] >= at) {
                best = next[2 * k] < next[2 * best] ? k : best;
                continue;
            }
            int got =
                pcre2_match(r->patterns.at[k].code, (PCRE2_SPTR)text, n, at, at ? PCRE2_NO_UTF_CHECK : 0, m, s->limits);
            const PCRE2_SIZE *range = pcre2_get_ovector_pointer(m);
            if (got < 0 && got != PCRE2_ERROR_NOMATCH)
                bad = sw_fail(
                    "a regular expression of the loss scale takes too long on this answer, or the answer is no UTF-8");
            next[2 * k] = got < 0 ? n + 1 : range[0];
            next[2 * k + 1] = got < 0 ? n + 1 : range[1];
            best = next[2 * k] < next[2 * best] ? k : best;
        }
        if (bad || !r->patterns.n || next[2 * best] > n)
            break;
        size_t from = next[2 * best], to = next[2 * best + 1];
        multiply(w, from, to, r->patterns.at[best].weight);
        at = to > from ? to : to + 1;
        while (at < n && ((unsigned char)text[at] & 0xc0) == 0x80)
            at++;
    }
    free(next);
    pcre2_match_data_free(m);
    return bad;
}

int sw_loss_scale_apply(const sw_loss_scale *s, const char *query, size_t query_n, const char *answer, size_t n,
                        float *w)
{
    for (size_t i = 0; i < s->rules.n; i++) {
        const rule *r = &s->rules.at[i];
        const key *asked = NULL;
        for (size_t k = 0; k < r->queries.n && !asked; k++)
            if (query_n && memmem(query, query_n, r->queries.at[k].text, r->queries.at[k].n))
                asked = &r->queries.at[k];
        if (asked)
            multiply(w, 0, n, asked->own);
        else if (r->keys.n)
            apply_keys(r, answer, n, w);
        else if (r->patterns.n && apply_patterns(s, r, answer, n, w))
            return -1;
    }
    return 0;
}
