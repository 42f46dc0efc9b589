#include "text/tokenizer_parts.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef enum class_of { OTHER, LETTER, NUMBER, SPACE } class_of;

/* \p{L}, \p{N} and \s as the expressions mean them. */
static class_of wide_class(uint32_t c)
{
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return NUMBER;
    default: break;
    }
    if (c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
        c == 0x205f || c == 0x3000)
        return SPACE;
    return OTHER;
}

static inline class_of at(const char *s, size_t n, size_t i, int *len)
{
    unsigned char b = (unsigned char)s[i];
    if (b < 0x80) {
        *len = 1;
        if ((b | 0x20) >= 'a' && (b | 0x20) <= 'z')
            return LETTER;
        if (b >= '0' && b <= '9')
            return NUMBER;
        return b == ' ' || (b >= 9 && b <= 13) ? SPACE : OTHER;
    }
    uint32_t cp;
    *len = sw_utf8_decode(s + i, n - i, &cp);
    if (!*len) {
        *len = 1;
        return OTHER;
    }
    return wide_class(cp);
}

static size_t run(const char *s, size_t n, size_t i, class_of k)
{
    int len;
    while (i < n && at(s, n, i, &len) == k)
        i += (size_t)len;
    return i;
}

/* 's 't 're 've 'm 'll 'd after an apostrophe at i: its end, or 0. */
static size_t contraction(const char *s, size_t n, size_t i, bool any_case)
{
    if (i + 1 >= n)
        return 0;
    int fold = any_case ? 0x20 : 0;
    char a = (char)(s[i + 1] | fold), b = i + 2 < n ? (char)(s[i + 2] | fold) : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return i + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
        return i + 3;
    if (any_case && i + 2 < n && s[i + 1] == '\xc5' && s[i + 2] == '\xbf') /* long s folds to s */
        return i + 3;
    return 0;
}

/* White space from i: all of it at the end of the text, else all but the last character, which goes with what follows. */
static size_t spaces(const char *s, size_t n, size_t i)
{
    int len = 1;
    size_t end = i, last = i;
    while (end < n && at(s, n, end, &len) == SPACE) {
        last = end;
        end += (size_t)len;
    }
    return end == n || last == i ? end : last;
}

static size_t next_gpt2(const char *s, size_t n, size_t i)
{
    int len;
    size_t e;
    if (s[i] == '\'' && (e = contraction(s, n, i, false)))
        return e;
    class_of k = at(s, n, i, &len);
    size_t start = i;
    if (s[i] == ' ' && i + 1 < n) {
        k = at(s, n, i + 1, &len);
        start = i + 1;
    }
    return k == SPACE ? spaces(s, n, i) : run(s, n, start, k);
}

static size_t next_cl100k(const char *s, size_t n, size_t i, int digits)
{
    int len, next_len;
    size_t e;
    if (s[i] == '\'' && (e = contraction(s, n, i, true)))
        return e;
    class_of k = at(s, n, i, &len);
    if (k == LETTER)
        return run(s, n, i, LETTER);
    size_t after = i + (size_t)len;
    bool line_end = s[i] == '\r' || s[i] == '\n';
    if (k != NUMBER && !line_end && after < n && at(s, n, after, &next_len) == LETTER)
        return run(s, n, after, LETTER);
    if (k == NUMBER) {
        for (int d = 1; d < digits && after < n && at(s, n, after, &next_len) == NUMBER; d++)
            after += (size_t)next_len;
        return after;
    }
    size_t start = i;
    if (s[i] == ' ' && after < n && at(s, n, after, &next_len) == OTHER) {
        start = after;
        k = OTHER;
    }
    if (k == OTHER) {
        e = run(s, n, start, OTHER);
        while (e < n && (s[e] == '\r' || s[e] == '\n'))
            e++;
        return e;
    }
    size_t end = run(s, n, i, SPACE);
    for (size_t j = end; j > i; j--)
        if (s[j - 1] == '\r' || s[j - 1] == '\n')
            return j;
    return spaces(s, n, i);
}

static size_t next_digits(const char *s, size_t n, size_t i, bool alone)
{
    int len;
    bool number = at(s, n, i, &len) == NUMBER;
    if (number && alone)
        return i + (size_t)len;
    while (i < n && (at(s, n, i, &len) == NUMBER) == number)
        i += (size_t)len;
    return i;
}

static int cut_regex(const sw_cut *c, const char *text, size_t n, sw_ids *ends)
{
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    size_t i = 0, done = 0;
    int rc = 0;
    while (i <= n) {
        int hits = pcre2_match(c->regex, (PCRE2_SPTR)text, n, i, PCRE2_NO_UTF_CHECK, m, NULL);
        if (hits == PCRE2_ERROR_NOMATCH)
            break;
        if (hits < 0) {
            rc = sw_fail("the pre-tokenizer's expression failed on a text of %zu bytes (code %d)", n, hits);
            break;
        }
        const PCRE2_SIZE *o = pcre2_get_ovector_pointer(m);
        if (o[0] > done)
            SW_PUSH(*ends, (int32_t)o[0]);
        if (o[1] > o[0])
            SW_PUSH(*ends, (int32_t)o[1]);
        done = SW_MAX(done, o[1]);
        i = o[1] > o[0] ? o[1] : o[1] + 1;
        while (i < n && ((unsigned char)text[i] & 0xc0) == 0x80)
            i++;
    }
    if (!rc && done < n)
        SW_PUSH(*ends, (int32_t)n);
    pcre2_match_data_free(m);
    return rc;
}

int sw_cut_text(const sw_cut *c, const char *text, size_t n, sw_ids *ends)
{
    if (c->kind == SW_CUT_REGEX)
        return n ? cut_regex(c, text, n, ends) : 0;
    for (size_t i = 0; i < n;) {
        switch (c->kind) {
        case SW_CUT_GPT2: i = next_gpt2(text, n, i); break;
        case SW_CUT_CL100K: i = next_cl100k(text, n, i, c->digits); break;
        default: i = next_digits(text, n, i, c->digits == 1); break;
        }
        SW_PUSH(*ends, (int32_t)i);
    }
    return 0;
}

void sw_cut_simple(sw_tokenizer *t, sw_cut_kind kind, int digits)
{
    sw_cut c = {.kind = kind, .digits = digits};
    SW_PUSH(t->cuts, c);
}

static const struct {
    const char *expression;
    sw_cut_kind kind;
    int digits;
} known[] = {
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", SW_CUT_GPT2, 0},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     SW_CUT_CL100K, 3},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     SW_CUT_CL100K, 1},
};

int sw_cut_from_regex(sw_tokenizer *t, const char *expression)
{
    sw_cut c = {.kind = SW_CUT_REGEX, .expression = sw_strdup(expression)};
    for (size_t i = 0; i < SW_COUNT(known); i++)
        if (!strcmp(known[i].expression, expression)) {
            c.kind = known[i].kind;
            c.digits = known[i].digits;
        }
    if (c.kind == SW_CUT_REGEX) {
        int code;
        PCRE2_SIZE where;
        c.regex = pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &where, NULL);
        if (!c.regex) {
            free(c.expression);
            return sw_fail("the expression is wrong at character %zu", (size_t)where);
        }
        pcre2_jit_compile(c.regex, PCRE2_JIT_COMPLETE);
    }
    SW_PUSH(t->cuts, c);
    return 0;
}

void sw_cut_free(sw_cut *c)
{
    free(c->expression);
    if (c->regex)
        pcre2_code_free(c->regex);
}
