/* The filter urlize: addresses in a text become links, by the rules of Jinja 3. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/jinja_internal.h"

#include <pcre2.h>
#include <pthread.h>
#include <string.h>

/* A word that is an address of the web, of mail, or a scheme that a template names. */
#define WEB                                                                                                         \
    "^((https?://|www\\.)(([\\w%-]+\\.)+)?([a-z]{2,63}|xn--[\\w%]{2,59})|([\\w%-]{2,63}\\.)+"                         \
    "(com|net|int|edu|gov|org|info|mil)|(https?://)((([\\d]{1,3})(\\.[\\d]{1,3}){3})|"                                \
    "(\\[([\\da-f]{0,4}:){2}([\\da-f]{0,4}:?){1,6}])))(?::[\\d]{1,5})?(?:[/?#]\\S*)?$"
#define MAIL "^\\S+@\\w[\\w.-]*\\.\\w+$"
#define SCHEME "^([\\w.+-]{2,}:(/){0,2})$"

static pcre2_code *web, *mail, *scheme;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void compile(void)
{
    int error;
    size_t at;
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY;
    web = pcre2_compile((PCRE2_SPTR)WEB, PCRE2_ZERO_TERMINATED, options | PCRE2_CASELESS, &error, &at, NULL);
    mail = pcre2_compile((PCRE2_SPTR)MAIL, PCRE2_ZERO_TERMINATED, options, &error, &at, NULL);
    scheme = pcre2_compile((PCRE2_SPTR)SCHEME, PCRE2_ZERO_TERMINATED, options, &error, &at, NULL);
}

static bool matches(const pcre2_code *code, const char *s, size_t n)
{
    pcre2_match_data *m = code ? pcre2_match_data_create(1, NULL) : NULL;
    bool yes = m && pcre2_match(code, (PCRE2_SPTR)s, n, 0, PCRE2_NO_UTF_CHECK, m, NULL) >= 0;
    pcre2_match_data_free(m);
    return yes;
}

static bool begins(const char *s, size_t n, const char *with) { return n >= strlen(with) && !memcmp(s, with, strlen(with)); }
static bool ends(const char *s, size_t n, const char *with)
{
    return n >= strlen(with) && !memcmp(s + n - strlen(with), with, strlen(with));
}

static size_t count(const char *s, size_t n, const char *what)
{
    size_t found = 0;
    for (const char *at = s; (at = memmem(at, n - (size_t)(at - s), what, strlen(what))); at += strlen(what))
        found++;
    return found;
}

/* Signs in front of a word, or behind it. */
static size_t lead(const char *s, size_t n)
{
    size_t at = 0;
    for (;;) {
        if (at < n && (s[at] == '(' || s[at] == '<'))
            at++;
        else if (begins(s + at, n - at, "&lt;"))
            at += 4;
        else
            return at;
    }
}
static size_t without_tail(const char *s, size_t n)
{
    for (;;) {
        if (n && strchr(")>.,\n", s[n - 1]) && s[n - 1])
            n--;
        else if (ends(s, n, "&gt;"))
            n -= 4;
        else
            return n;
    }
}

typedef struct links {
    int64_t limit; /* of what is shown; -1: none */
    sw_buf attributes;
    const jv *schemes;
    size_t n_schemes;
} links;

enum { PLAIN, ATTRIBUTES, SHORTENED }; /* what a link has: that, and all before */

static void put_link(sw_buf *b, const links *l, const char *before, const char *s, size_t n, size_t hidden, int has)
{
    const char *shown = s + hidden;
    size_t n_shown = n - hidden;
    sw_buf_printf(b, "<a href=\"%s", before);
    sw_buf_add(b, s, n);
    sw_buf_putc(b, '"');
    if (has >= ATTRIBUTES && l->attributes.n)
        sw_buf_add(b, l->attributes.at, l->attributes.n);
    sw_buf_putc(b, '>');
    jv text = jspan(shown, n_shown);
    bool cut = has == SHORTENED && l->limit >= 0 && (int64_t)sw_utf8_count(shown, n_shown) > l->limit;
    sw_buf_add(b, shown, cut ? jinja_offset(text, (size_t)l->limit) : n_shown);
    sw_buf_puts(b, cut ? "...</a>" : "</a>");
}

static void put_word(sw_buf *b, const links *l, const char *s, size_t n)
{
    static const char *const pairs[][2] = {{"(", ")"}, {"<", ">"}, {"&lt;", "&gt;"}};
    size_t head = lead(s, n);
    sw_buf_add(b, s, head);
    s += head;
    n -= head;
    size_t end = without_tail(s, n); /* s[end..n) is the tail */
    for (size_t i = 0; i < SW_COUNT(pairs); i++) { /* what closes a bracket of the address belongs to it */
        size_t opened = count(s, end, pairs[i][0]);
        if (opened <= count(s, end, pairs[i][1]))
            continue;
        for (size_t k = SW_MIN(opened, count(s + end, n - end, pairs[i][1])); k; k--) {
            const char *close = memmem(s + end, n - end, pairs[i][1], strlen(pairs[i][1]));
            end = (size_t)(close - s) + strlen(pairs[i][1]);
        }
    }
    const char *colon = memchr(s, ':', end);
    bool at_sign = memchr(s, '@', end) != NULL;
    if (matches(web, s, end)) {
        bool whole = begins(s, end, "https://") || begins(s, end, "http://");
        put_link(b, l, whole ? "" : "https://", s, end, 0, SHORTENED);
    } else if (begins(s, end, "mailto:") && matches(mail, s + 7, end - 7)) {
        put_link(b, l, "", s, end, 7, PLAIN);
    } else if (at_sign && !begins(s, end, "www.") && s[0] != '@' && !colon && matches(mail, s, end)) {
        put_link(b, l, "mailto:", s, end, 0, PLAIN);
    } else {
        size_t k = 0;
        while (k < l->n_schemes && !(end != l->schemes[k].n && end > l->schemes[k].n && !memcmp(s, l->schemes[k].u.s, l->schemes[k].n)))
            k++;
        if (k < l->n_schemes)
            put_link(b, l, "", s, end, 0, ATTRIBUTES);
        else
            sw_buf_add(b, s, end);
    }
    sw_buf_add(b, s + end, n - end);
}

/* rel's words once each, in order, with nofollow and noopener. */
static int put_rel(jrun *r, sw_buf *b, jv rel, bool nofollow)
{
    jv words = jlist(J_LIST, NULL, 0), all[2] = {JSTR("noopener"), JSTR("nofollow")}, sorted, text;
    const jv *items;
    size_t n, parts = nofollow ? 2 : 1;
    if (rel.kind == J_STR && jinja_find_method("split", 5)->str(r, rel, &(jargs){0}, &words))
        return -1;
    jv *list = jinja_items(r, words.n + parts);
    if (!list)
        return -1;
    memcpy(list, words.u.items, words.n * sizeof *list);
    memcpy(list + words.n, all, parts * sizeof *list);
    jv given = jlist(J_LIST, list, words.n + parts);
    static const char *const names[] = {"unique", "sort"};
    for (int i = 0; i < 2; i++) {
        jkw kw = {{"case_sensitive", 14}, jbool(true)};
        if (jinja_find_filter(names[i], strlen(names[i]))(r, &(jargs){&given, 1, &kw, 1}, &sorted))
            return -1;
        given = sorted;
    }
    if (jinja_iterate(r, given, &items, &n) || jinja_join(r, JSTR(" "), items, n, false, &text) || jinja_escape(r, text, &text))
        return -1;
    sw_buf_puts(b, " rel=\"");
    sw_buf_add(b, text.u.s, text.n);
    sw_buf_putc(b, '"');
    return 0;
}

static int read_options(jrun *r, const jv p[6], links *l)
{
    jv text;
    l->limit = -1;
    if (p[1].kind > J_NONE && (jinja_optional_int("urlize", p[1], -1, &l->limit) || l->limit < 0))
        return sw_fail("urlize: trim_url_limit is a number from 0");
    if (put_rel(r, &l->attributes, p[4], jinja_truth(p[2])))
        return -1;
    if (p[3].kind > J_NONE && jinja_truth(p[3])) {
        if (jinja_to_text(r, p[3], &text) || jinja_escape(r, text, &text))
            return -1;
        sw_buf_puts(&l->attributes, " target=\"");
        sw_buf_add(&l->attributes, text.u.s, text.n);
        sw_buf_putc(&l->attributes, '"');
    }
    if (p[5].kind > J_NONE && jinja_iterate(r, p[5], &l->schemes, &l->n_schemes))
        return -1;
    for (size_t i = 0; i < l->n_schemes; i++)
        if (l->schemes[i].kind != J_STR || !matches(scheme, l->schemes[i].u.s, l->schemes[i].n))
            return sw_fail("urlize: extra_schemes holds what is no scheme (as in 'tel:')");
    return 0;
}

int jinja_urlize(jrun *r, const jargs *a, jv *out)
{
    jv p[6], text;
    links l = {0};
    sw_buf b = {0};
    pthread_once(&once, compile);
    if (JINJA_BIND("urlize", a, 1, p, "value", "trim_url_limit", "nofollow", "target", "rel", "extra_schemes") ||
        jinja_escape(r, p[0], &text))
        return -1;
    int bad = read_options(r, p, &l);
    for (size_t at = 0; at < text.n && !bad;) {
        size_t end = at;
        bool space = false;
        while (end < text.n) {
            uint32_t cp = 0;
            int len = sw_utf8_decode(text.u.s + end, text.n - end, &cp);
            if (end == at)
                space = jinja_is_space(cp);
            else if (jinja_is_space(cp) != space)
                break;
            end += (size_t)SW_MAX(len, 1);
        }
        if (space)
            sw_buf_add(&b, text.u.s + at, end - at);
        else
            put_word(&b, &l, text.u.s + at, end - at);
        bad = jinja_charge(r, 1 + (end - at));
        if (b.n > JINJA_MAX_OUTPUT)
            bad = sw_fail("the output is too long (more than %d MiB)", JINJA_MAX_OUTPUT >> 20);
        at = end;
    }
    sw_buf_free(&l.attributes);
    if (bad) {
        sw_buf_free(&b);
        return -1;
    }
    return jinja_take(r, &b, 0, out);
}
