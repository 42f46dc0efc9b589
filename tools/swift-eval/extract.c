#define PCRE2_CODE_UNIT_WIDTH 8
#include "extract.h"

#include "base/memory.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct eval_rule {
    pcre2_code *regex, *when;
    bool first;
};

static pcre2_code *compile(const char *source, const char *what)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *c = pcre2_compile((PCRE2_SPTR)source, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (!c) {
        char why[200];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return sw_fail_null("%s: regular expression '%s': character %zu: %s", what, source, (size_t)at, why);
    }
    (void)pcre2_jit_compile(c, PCRE2_JIT_COMPLETE); /* without it matches are only slower */
    return c;
}

static int read_rule(const cJSON *v, const char *what, struct eval_rule *r)
{
    const char *regex = v->valuestring, *when = NULL, *which = "last";
    if (cJSON_IsObject(v)) {
        for (const cJSON *m = v->child; m; m = m->next)
            if (strcmp(m->string, "regex") && strcmp(m->string, "when") && strcmp(m->string, "which"))
                return sw_fail("%s: a rule has regex, which and when, not \"%s\"", what, m->string);
        if (sw_json_str(v, "regex", NULL, &regex) || sw_json_str(v, "when", NULL, &when) || sw_json_str(v, "which", "last", &which))
            return sw_fail_in("%s", what);
    } else if (!cJSON_IsString(v)) {
        return sw_fail("%s: a regular expression, a rule {regex, which, when} or a list of these is needed, not %s", what, sw_json_kind(v));
    }
    if (!regex)
        return sw_fail("%s: the rule has no \"regex\"", what);
    r->first = !strcmp(which, "first");
    if (!r->first && strcmp(which, "last"))
        return sw_fail("%s: \"which\" is first or last, not '%s'", what, which);
    r->regex = compile(regex, what);
    r->when = when ? compile(when, what) : NULL;
    return r->regex && (!when || r->when) ? 0 : -1;
}

int eval_rules_read(const cJSON *v, const char *what, eval_rules *out)
{
    *out = (eval_rules){0};
    if (!v)
        return 0;
    bool list = cJSON_IsArray(v);
    out->at = SW_NEW_ARRAY(struct eval_rule, list ? (size_t)cJSON_GetArraySize(v) : 1);
    for (const cJSON *c = list ? v->child : v; c; c = list ? c->next : NULL)
        if (read_rule(c, what, &out->at[out->n++])) {
            eval_rules_free(out);
            return -1;
        }
    return 0;
}

void eval_rules_free(eval_rules *r)
{
    for (size_t i = 0; i < r->n; i++) {
        pcre2_code_free(r->at[i].regex);
        pcre2_code_free(r->at[i].when);
    }
    free(r->at);
    *r = (eval_rules){0};
}

/* 1 with the range of the match, 0, or -1. */
static int match(const pcre2_code *c, sw_span text, size_t from, pcre2_match_data *data)
{
    int n = pcre2_match(c, (PCRE2_SPTR)(text.at ? text.at : ""), text.n, from, from ? PCRE2_NO_UTF_CHECK : 0, data, NULL);
    if (n >= 0)
        return 1;
    if (n == PCRE2_ERROR_NOMATCH)
        return 0;
    char why[200];
    pcre2_get_error_message(n, (PCRE2_UCHAR *)why, sizeof why);
    return sw_fail("extracting the answer: %s", why);
}

static int apply(const struct eval_rule *r, sw_span text, sw_span right, sw_buf *out)
{
    int found = 1, any = 0;
    if (r->when) {
        pcre2_match_data *data = pcre2_match_data_create_from_pattern(r->when, NULL);
        found = match(r->when, right, 0, data);
        pcre2_match_data_free(data);
        if (found <= 0)
            return found;
    }
    pcre2_match_data *data = pcre2_match_data_create_from_pattern(r->regex, NULL);
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(data);
    for (size_t from = 0; from <= text.n && (found = match(r->regex, text, from, data)) > 0;) {
        size_t group = pcre2_get_ovector_count(data) - 1;
        while (group && range[2 * group] == PCRE2_UNSET)
            group--;
        /* \K in a lookahead can put the start behind the end. */
        size_t start = range[2 * group], end = SW_MAX(range[2 * group + 1], start);
        sw_buf_clear(out);
        sw_buf_add(out, text.at + start, end - start);
        any = 1;
        if (r->first)
            break;
        if (range[1] > from) {
            from = range[1];
        } else { /* an empty match: on by one character */
            uint32_t cp;
            int step = from < text.n ? sw_utf8_decode(text.at + from, text.n - from, &cp) : 1;
            from += step ? (size_t)step : 1;
        }
    }
    pcre2_match_data_free(data);
    return found < 0 ? -1 : any;
}

int eval_extract(const eval_rules *r, sw_span text, sw_span right, sw_buf *out)
{
    if (!r->n) {
        sw_buf_clear(out);
        sw_buf_add(out, text.at ? text.at : "", text.n);
        return 1;
    }
    for (size_t i = 0; i < r->n; i++) {
        int found = apply(&r->at[i], text, right, out);
        if (found)
            return found;
    }
    return 0;
}

/* ---- spellings */

static const struct {
    const char *name;
    unsigned bit;
} normalisers[] = {{"case", EVAL_CASE}, {"punctuation", EVAL_PUNCTUATION}, {"whitespace", EVAL_WHITESPACE}, {"number", EVAL_NUMBER}, {"letter", EVAL_LETTER}};

static int add_normaliser(const char *name, size_t n, unsigned *out)
{
    for (size_t i = 0; i < SW_COUNT(normalisers); i++)
        if (strlen(normalisers[i].name) == n && !memcmp(normalisers[i].name, name, n)) {
            *out |= normalisers[i].bit;
            return 0;
        }
    return sw_fail("normalise: '%.*s' is not one of case, punctuation, whitespace, number, letter", (int)SW_MIN(n, (size_t)100), name);
}

int eval_normalise_read(const cJSON *v, unsigned *out)
{
    *out = 0;
    if (!v)
        return 0;
    if (!cJSON_IsArray(v))
        return sw_fail("\"normalise\": a list is needed, not %s", sw_json_kind(v));
    for (const cJSON *c = v->child; c; c = c->next)
        if (!cJSON_IsString(c) ? sw_fail("\"normalise\": a list of strings is needed") : add_normaliser(c->valuestring, strlen(c->valuestring), out))
            return -1;
    return 0;
}

int eval_normalise_parse(const char *list, unsigned *out)
{
    *out = 0;
    for (const char *s = list; *s;) {
        size_t n = strcspn(s, ",");
        if (add_normaliser(s, n, out))
            return -1;
        s += n + (s[n] == ',');
    }
    return 0;
}

static bool is_space(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return (cp >= 9 && cp <= 13) || (cp >= 0x1c && cp <= 0x1f) || cp == 0x85 || c == UTF8PROC_CATEGORY_ZS || c == UTF8PROC_CATEGORY_ZL ||
           c == UTF8PROC_CATEGORY_ZP;
}

static bool is_punctuation(uint32_t cp)
{
    if (cp < 128)
        return cp > 32 && cp < 127 && !(cp >= '0' && cp <= '9') && !((cp | 32) >= 'a' && (cp | 32) <= 'z');
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

size_t eval_words(sw_span text)
{
    size_t words = 0;
    bool inside = false;
    for (size_t i = 0; i < text.n;) {
        uint32_t cp;
        int n = sw_utf8_decode(text.at + i, text.n - i, &cp);
        bool space = n && is_space(cp);
        words += !space && !inside;
        inside = !space;
        i += n ? (size_t)n : 1;
    }
    return words;
}

/* The number that fills b, in the one spelling of its value; false and b unchanged where it is none. */
static bool one_number(sw_buf *b)
{
    sw_buf digits = {0};
    const char *s = b->at ? b->at : "", *end = s + b->n;
    bool negative = false, any = false, point = false;
    size_t whole = 0;
    static const char minus[] = "\u2212"; /* as it is typeset */
    for (size_t n; s < end; s += n) {
        n = (size_t)(end - s) >= sizeof minus - 1 && !memcmp(s, minus, sizeof minus - 1) ? sizeof minus - 1 : 1;
        if (n == 1 && *s != '$' && *s != '-' && *s != '+')
            break;
        negative |= n > 1 || *s == '-';
    }
    for (; s < end; s++) {
        if (*s >= '0' && *s <= '9') {
            any = true;
            sw_buf_putc(&digits, *s);
            whole += !point;
        } else if (*s == '.' && !point) {
            point = true;
        } else if (!(*s == ',' && !point && any)) {
            break;
        }
    }
    if (s < end && *s == '%')
        s++;
    if (s < end && *s == '.' && s + 1 == end)
        s++;
    if (s < end || !any) {
        sw_buf_free(&digits);
        return false;
    }
    size_t from = 0, to = digits.n;
    while (from < whole && digits.at[from] == '0')
        from++;
    while (to > whole && digits.at[to - 1] == '0')
        to--;
    sw_buf_clear(b);
    if (negative && to > from)
        sw_buf_putc(b, '-');
    if (from == whole)
        sw_buf_putc(b, '0');
    sw_buf_add(b, digits.at + from, whole - from);
    if (to > whole) {
        sw_buf_putc(b, '.');
        sw_buf_add(b, digits.at + whole, to - whole);
    }
    sw_buf_free(&digits);
    return true;
}

static void fold(uint32_t cp, sw_buf *out)
{
    utf8proc_int32_t many[8];
    int boundary = UTF8PROC_BOUNDCLASS_START;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, many, (utf8proc_ssize_t)SW_COUNT(many), UTF8PROC_CASEFOLD, &boundary);
    for (utf8proc_ssize_t i = 0; i < n && i < (utf8proc_ssize_t)SW_COUNT(many); i++) {
        char one[4];
        sw_buf_add(out, one, (size_t)sw_utf8_encode((uint32_t)many[i], one));
    }
}

/* The letter in b alone, without what may stand around it. */
static bool one_letter(sw_buf *b)
{
    const char *s = b->at ? b->at : "", *end = s + b->n;
    bool open = s < end && *s == '(';
    s += open;
    if (s >= end || !((*s | 32) >= 'a' && (*s | 32) <= 'z'))
        return false;
    char letter = *s++;
    bool closed = s < end && *s == ')';
    s += closed;
    if (open && !closed)
        return false;
    s += s < end && (*s == '.' || *s == ':');
    if (s < end)
        return false;
    sw_buf_clear(b);
    sw_buf_putc(b, letter);
    return true;
}

/* Case, punctuation and white space, in one pass. */
static void simplify(unsigned what, sw_span text, sw_buf *out)
{
    sw_buf_clear(out);
    size_t kept = 0; /* end of the last character that is no white space */
    for (size_t i = 0; i < text.n;) {
        uint32_t cp;
        int n = sw_utf8_decode(text.at + i, text.n - i, &cp);
        if (is_space(cp)) {
            if (out->n && !(what & EVAL_WHITESPACE))
                sw_buf_add(out, text.at + i, (size_t)n);
            else if (out->n && out->n == kept)
                sw_buf_putc(out, ' ');
        } else if (!(what & EVAL_PUNCTUATION) || !is_punctuation(cp)) {
            if (what & EVAL_CASE)
                fold(cp, out);
            else
                sw_buf_add(out, text.at + i, (size_t)n);
            kept = out->n;
        }
        i += (size_t)SW_MAX(n, 1);
    }
    if (out->at) {
        out->n = kept;
        out->at[kept] = 0;
    }
}

void eval_normalise(unsigned what, sw_span text, sw_buf *out)
{
    /* Numbers and letters first: a number keeps its sign and point. */
    simplify(what & ~(unsigned)EVAL_PUNCTUATION, text, out);
    if (((what & EVAL_NUMBER) && one_number(out)) || ((what & EVAL_LETTER) && one_letter(out)) || !(what & EVAL_PUNCTUATION))
        return;
    sw_buf bare = {0};
    simplify(what, text, &bare);
    if (bare.n) {
        sw_buf swap = *out;
        *out = bare;
        bare = swap;
    }
    sw_buf_free(&bare);
}
