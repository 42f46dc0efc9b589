/* Patterns: literals by memmem, known expressions by scanners, all others by PCRE2. */
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

int sw_pattern_literal(sw_pattern *p, const char *text, size_t n)
{
    p->literal = sw_strndup(text, n);
    p->n = n;
    return 0;
}

int sw_pattern_regex(sw_pattern *p, const char *expression)
{
    p->expression = sw_strdup(expression);
    if (sw_scan_known(p, expression))
        return 0;
    sw_buf b = {0};
    if (sw_regex_translate(expression, &b)) {
        sw_buf_free(&b);
        return -1;
    }
    int code, rc = 0;
    PCRE2_SIZE where;
    p->regex = pcre2_compile((PCRE2_SPTR)(b.at ? b.at : ""), PCRE2_ZERO_TERMINATED,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &where, NULL);
    if (!p->regex) {
        char why[120];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        rc = sw_fail("the expression '%.200s': %s", expression, why);
    } else {
        pcre2_jit_compile(p->regex, PCRE2_JIT_COMPLETE);
    }
    sw_buf_free(&b);
    return rc;
}

void sw_pattern_free(sw_pattern *p)
{
    free(p->literal);
    free(p->expression);
    if (p->regex)
        pcre2_code_free(p->regex);
    *p = (sw_pattern){0};
}

static void add(sw_matches *out, size_t start, size_t end, bool hit)
{
    SW_PUSH(*out, ((sw_match){(uint32_t)start, (uint32_t)end, hit}));
}

static int by_regex(const sw_pattern *p, const char *text, size_t n, sw_matches *out)
{
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    size_t i = 0, done = 0, last_end = (size_t)-1;
    int rc = 0;
    while (i <= n) {
        int hits = pcre2_match(p->regex, (PCRE2_SPTR)text, n, i, PCRE2_NO_UTF_CHECK, m, NULL);
        if (hits == PCRE2_ERROR_JIT_STACKLIMIT)
            hits = pcre2_match(p->regex, (PCRE2_SPTR)text, n, i, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m, NULL);
        if (hits == PCRE2_ERROR_NOMATCH)
            break;
        if (hits < 0) {
            rc = sw_fail("the expression '%.200s' failed on a text of %zu bytes (code %d of PCRE2)", p->expression, n,
                         hits);
            break;
        }
        const PCRE2_SIZE *o = pcre2_get_ovector_pointer(m);
        size_t start = o[0], end = SW_MAX(o[0], o[1]);
        if (start == end && end == last_end) { /* nothing, where a match has just ended: go on behind it */
            i = end + 1;
            while (i < n && ((unsigned char)text[i] & 0xc0) == 0x80)
                i++;
            continue;
        }
        if (start > done)
            add(out, done, start, false);
        add(out, start, end, true);
        done = last_end = end;
        i = end;
        if (start == end) {
            i++;
            while (i < n && ((unsigned char)text[i] & 0xc0) == 0x80)
                i++;
        }
    }
    if (!rc && done < n)
        add(out, done, n, false);
    pcre2_match_data_free(m);
    return rc;
}

int sw_pattern_matches(const sw_pattern *p, const char *text, size_t n, sw_matches *out)
{
    out->n = 0;
    if (!n) {
        add(out, 0, 0, false);
        return 0;
    }
    if (p->scanner != SW_SCAN_NONE) {
        for (size_t i = 0, end; i < n; i = end) {
            end = sw_scan_next(p, text, n, i);
            add(out, i, end, true);
        }
        return 0;
    }
    if (p->regex)
        return by_regex(p, text, n, out);
    size_t done = 0;
    for (const char *hit; p->n && (hit = memmem(text + done, n - done, p->literal, p->n));) {
        size_t start = (size_t)(hit - text);
        if (start > done)
            add(out, done, start, false);
        add(out, start, start + p->n, true);
        done = start + p->n;
    }
    if (done < n)
        add(out, done, n, false);
    return 0;
}
