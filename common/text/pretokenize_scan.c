/* Scanners by hand for the expressions that most vocabularies are cut by: GPT-2's, and the families of cl100k and
 * o200k. Each match begins where the one before ended, so that scanning is one pass. */
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"
#include "text/tokenizer_splits.h"

#include <string.h>

const sw_pattern sw_gpt2_pattern = {.scanner = SW_SCAN_GPT2},
                 sw_gpt2_digits_pattern = {.scanner = SW_SCAN_GPT2, .digits = 1};

typedef struct view {
    const uint8_t *table;
    const char *s;
    size_t n;
} view;

static inline uint32_t at(const view *v, size_t i, size_t *next)
{
    unsigned char b = (unsigned char)v->s[i];
    if (b < 0x80) {
        *next = i + 1;
        return 1u << v->table[b];
    }
    int len;
    uint32_t cp = sw_char_at(v->s + i, &len);
    *next = i + (size_t)len;
    return sw_class_bit(v->table, cp);
}

static inline size_t run(const view *v, size_t i, uint32_t bits)
{
    size_t next;
    while (i < v->n && at(v, i, &next) & bits)
        i = next;
    return i;
}

static inline bool line_end(char c) { return c == '\r' || c == '\n'; }

/* 's 't 're 've 'm 'll 'd after an apostrophe at i: its end, or 0. */
static inline size_t contraction(const view *v, size_t i, bool any_case)
{
    const char *s = v->s;
    if (i + 1 >= v->n)
        return 0;
    int fold = any_case ? 0x20 : 0;
    char a = (char)(s[i + 1] | fold), b = i + 2 < v->n ? (char)(s[i + 2] | fold) : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return i + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
        return i + 3;
    if (any_case && i + 2 < v->n && s[i + 1] == '\xc5' && s[i + 2] == '\xbf') /* long s folds to s */
        return i + 3;
    return 0;
}

/* White space from i: all of it at the end of the text (or before a character of `stop`), else all but the last
 * character, which goes with what follows. */
static inline size_t spaces(const view *v, size_t i, uint32_t stop)
{
    size_t end = i, last = i, next;
    while (end < v->n && at(v, end, &next) & SW_SPACE) {
        last = end;
        end = next;
    }
    return end == v->n || last == i || (stop && at(v, end, &next) & stop) ? end : last;
}

/* digits: each number alone, as where they are cut out before (the Digits of StarCoder and SmolLM). */
static inline size_t next_gpt2(const view *v, size_t i, bool digits)
{
    size_t e, next;
    if (v->s[i] == '\'' && (e = contraction(v, i, false)))
        return e;
    uint32_t k = at(v, i, &next);
    if (digits && k & SW_NUMBER)
        return next;
    if (v->s[i] == ' ' && next < v->n) {
        size_t after;
        uint32_t follows = at(v, next, &after);
        if (!(digits && follows & SW_NUMBER)) {
            k = follows;
            next = after;
        }
    }
    if (k & SW_LETTER)
        return run(v, next, SW_LETTER);
    if (k & SW_SPACE)
        return spaces(v, i, digits ? SW_NUMBER : 0);
    if (k & SW_NUMBER)
        return run(v, next, SW_NUMBER);
    return run(v, next, ~(SW_LETTER | SW_NUMBER | SW_SPACE));
}

/* What cl100k and o200k have in common: numbers in groups, symbols with a space before and line ends behind, white
 * space. */
static inline size_t number_symbol_space(const view *v, const sw_pattern *p, size_t i, uint32_t k, size_t next)
{
    uint32_t not_symbol = SW_LETTER | SW_NUMBER | SW_SPACE | (p->marks ? SW_MARK : 0);
    if (k & SW_NUMBER) {
        size_t after;
        if (!p->digits)
            return run(v, next, SW_NUMBER);
        for (int d = 1; d < p->digits && next < v->n && at(v, next, &after) & SW_NUMBER; d++)
            next = after;
        return next;
    }
    size_t start = i, after;
    if (v->s[i] == ' ' && next < v->n && !(at(v, next, &after) & not_symbol)) {
        start = next;
        k = 0;
    }
    if (!(k & not_symbol)) {
        size_t e = run(v, start, ~not_symbol);
        while (e < v->n && (line_end(v->s[e]) || (p->slash && v->s[e] == '/')))
            e++;
        return e;
    }
    size_t end = run(v, i, SW_SPACE);
    for (size_t j = end; j > i; j--)
        if (line_end(v->s[j - 1]))
            return j;
    return spaces(v, i, 0);
}

static inline size_t next_cl100k(const view *v, const sw_pattern *p, size_t i)
{
    size_t e, next, after;
    if (v->s[i] == '\'' && p->contractions && (e = contraction(v, i, true)))
        return e;
    uint32_t k = at(v, i, &next), word = SW_LETTER | (p->marks ? SW_MARK : 0);
    if (k & SW_LETTER)
        return run(v, next, word);
    /* A character in front that is no letter, number or line end goes with the word. */
    if (!(k & SW_NUMBER) && !line_end(v->s[i]) && next < v->n && at(v, next, &after) & word)
        return run(v, after, word);
    if (k & word)
        return run(v, next, word);
    return number_symbol_space(v, p, i, k, next);
}

enum { UPPER = SW_LU | SW_LT | SW_LM | SW_LO | SW_MARK, LOWER = SW_LL | SW_LM | SW_LO | SW_MARK };

/* UPPER* LOWER+ from i, or 0: greedy, and if nothing lower follows, up to the last character that is both. */
static size_t upper_lower(const view *v, size_t i)
{
    size_t next, both = 0, j = i;
    uint32_t k = 0;
    while (j < v->n && (k = at(v, j, &next)) & UPPER) {
        j = next;
        if (k & LOWER)
            both = j;
    }
    if (j < v->n && k & LOWER)
        return run(v, next, LOWER);
    return both;
}

/* UPPER+ LOWER*, or 0. */
static size_t uppers(const view *v, size_t i)
{
    size_t end = run(v, i, UPPER);
    return end > i ? run(v, end, LOWER) : 0;
}

static size_t next_o200k(const view *v, const sw_pattern *p, size_t i)
{
    size_t next, e = 0;
    uint32_t k = at(v, i, &next);
    bool front = !(k & (SW_LETTER | SW_NUMBER)) && !line_end(v->s[i]);
    if (front)
        e = upper_lower(v, next);
    if (!e)
        e = upper_lower(v, i);
    if (!e && front)
        e = uppers(v, next);
    if (!e)
        e = uppers(v, i);
    if (e) {
        size_t more = p->contractions && e < v->n && v->s[e] == '\'' ? contraction(v, e, true) : 0;
        return more ? more : e;
    }
    return number_symbol_space(v, p, i, k, next);
}

size_t sw_scan_next(const sw_pattern *p, const char *text, size_t n, size_t i)
{
    view v = {sw_class_table(), text, n};
    switch (p->scanner) {
    case SW_SCAN_GPT2: return next_gpt2(&v, i, p->digits == 1);
    case SW_SCAN_CL100K: return next_cl100k(&v, p, i);
    default: return next_o200k(&v, p, i);
    }
}

size_t sw_scan_many(const sw_pattern *p, const char *text, size_t n, size_t i, uint32_t *ends, size_t most)
{
    view v = {sw_class_table(), text, n};
    size_t k = 0;
    if (p->scanner == SW_SCAN_GPT2 && p->digits == 1)
        while (i < n && k < most)
            ends[k++] = (uint32_t)(i = next_gpt2(&v, i, true));
    else if (p->scanner == SW_SCAN_GPT2)
        while (i < n && k < most)
            ends[k++] = (uint32_t)(i = next_gpt2(&v, i, false));
    else if (p->scanner == SW_SCAN_CL100K)
        while (i < n && k < most)
            ends[k++] = (uint32_t)(i = next_cl100k(&v, p, i));
    else
        while (i < n && k < most)
            ends[k++] = (uint32_t)(i = next_o200k(&v, p, i));
    return k;
}

static const struct {
    const char *expression;
    sw_scanner_kind kind;
    int digits;
    bool marks, contractions, slash;
} known[] = {
    {SW_SPLIT_GPT2, SW_SCAN_GPT2, 0, false, false, false},
    {SW_SPLIT_RAW_GPT2, SW_SCAN_GPT2, 0, false, false, false},
    {SW_SPLIT_CL100K("\\p{N}{1,3}"), SW_SCAN_CL100K, 3, false, true, false},
    {SW_SPLIT_CL100K("\\p{N}{1,2}"), SW_SCAN_CL100K, 2, false, true, false},
    {SW_SPLIT_CL100K("\\p{N}"), SW_SCAN_CL100K, 1, false, true, false},
    {SW_SPLIT_CL100K("\\p{N}+"), SW_SCAN_CL100K, 0, false, true, false},
    {SW_SPLIT_QWEN35, SW_SCAN_CL100K, 1, true, true, false},
    {SW_SPLIT_O200K, SW_SCAN_O200K, 3, false, true, true},
    {SW_SPLIT_TEKKEN, SW_SCAN_O200K, 1, false, false, true},
};

bool sw_scan_known(sw_pattern *p, const char *expression)
{
    for (size_t i = 0; i < SW_COUNT(known); i++)
        if (!strcmp(known[i].expression, expression)) {
            p->scanner = known[i].kind;
            p->digits = known[i].digits;
            p->marks = known[i].marks;
            p->contractions = known[i].contractions;
            p->slash = known[i].slash;
            return true;
        }
    return false;
}
