/* Oniguruma's syntax (as Ruby has it) in the words of PCRE2. Where the two mean other characters by a name, ranges are
 * written out; what a bracket of PCRE2 cannot hold (brackets within, intersections, complements) becomes an alternative
 * or a look-ahead at one character, which is the same. */
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <pcre2.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define SPACES "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define WORDS                                                                                                          \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{"    \
    "1f189}"
#define DIGITS "\\p{Nd}"
#define HEX "0-9a-fA-F"

typedef struct reader {
    const char *s;
    size_t n, i;
    int depth;
} reader;

static int fail(const reader *r, const char *what)
{
    return sw_fail("the expression '%.200s': %s at character %zu", r->s, what, r->i);
}

/* The set that a letter after a backslash names; upper case: all but it. */
static const char *set_of(char c)
{
    switch (tolower((unsigned char)c)) {
    case 's': return SPACES;
    case 'w': return WORDS;
    case 'd': return DIGITS;
    case 'h': return HEX;
    default: return NULL;
    }
}

static const char *posix(const char *name, size_t n)
{
    static const struct {
        const char *name, *set;
    } sets[] = {
        {"alnum", "\\p{L}\\p{M}\\p{Nd}\\p{Nl}"},
        {"alpha", "\\p{L}\\p{M}\\p{Nl}"},
        {"ascii", "\\x00-\\x7f"},
        {"blank", "\\p{Zs}\\x09"},
        {"cntrl", "\\p{Cc}"},
        {"digit", DIGITS},
        {"lower", "\\p{Ll}"},
        {"punct", "\\p{P}\\p{S}"},
        {"space", SPACES},
        {"upper", "\\p{Lu}"},
        {"xdigit", HEX},
        {"word", WORDS},
    };
    for (size_t i = 0; i < SW_COUNT(sets); i++)
        if (strlen(sets[i].name) == n && !strncasecmp(sets[i].name, name, n))
            return sets[i].set;
    return NULL;
}

/* PCRE2 may know an older Unicode: characters that it takes for unassigned, and their categories. */
static struct newer {
    uint32_t first, last;
    int category;
} * newer;
static size_t n_newer;
static pthread_once_t newer_once = PTHREAD_ONCE_INIT;

static void find_newer(void)
{
    sw_buf all = {0};
    const uint8_t *table = sw_class_table();
    for (uint32_t cp = 0x80; cp < SW_CLASS_LIMIT; cp++) {
        char c[4];
        if (table[cp] && table[cp] != UTF8PROC_CATEGORY_CS)
            sw_buf_add(&all, c, (size_t)sw_utf8_encode(cp, c));
    }
    int code;
    PCRE2_SIZE where;
    pcre2_code *regex =
        pcre2_compile((PCRE2_SPTR) "\\p{Cn}", PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &where, NULL);
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    struct {
        struct newer *at;
        size_t n, cap;
    } found = {0};
    for (size_t i = 0; regex && pcre2_match(regex, (PCRE2_SPTR)all.at, all.n, i, PCRE2_NO_UTF_CHECK, m, NULL) > 0;) {
        i = pcre2_get_ovector_pointer(m)[1];
        int len;
        uint32_t cp = sw_char_at(all.at + pcre2_get_ovector_pointer(m)[0], &len);
        struct newer *last = found.n ? &found.at[found.n - 1] : NULL;
        if (last && last->last + 1 == cp && last->category == table[cp])
            last->last = cp;
        else
            SW_PUSH(found, ((struct newer){cp, cp, table[cp]}));
    }
    newer = found.at;
    n_newer = found.n;
    pcre2_match_data_free(m);
    pcre2_code_free(regex);
    sw_buf_free(&all);
}

/* The newer characters of a category, or of all that begin with its letter. */
static void add_newer(const char *name, size_t n, sw_buf *out)
{
    pthread_once(&newer_once, find_newer);
    for (size_t i = 0; i < n_newer; i++) {
        const char *category = utf8proc_category_string((utf8proc_int32_t)newer[i].first);
        if (!strncasecmp(category, name, n))
            sw_buf_printf(out, "\\x{%x}-\\x{%x}", newer[i].first, newer[i].last);
    }
}

/* A set written out above, and the newer characters that belong to it. */
static void put_set(const char *set, sw_buf *out)
{
    sw_buf_puts(out, set);
    for (const char *s = set; (s = strstr(s, "\\p{")); s += 3)
        add_newer(s + 3, strcspn(s + 3, "}"), out);
}

/* \p{...} with r->i behind the p. Scripts are meant where PCRE2 would take their extensions. */
static int property(reader *r, bool negated, sw_buf *out)
{
    if (r->i >= r->n || r->s[r->i] != '{')
        return fail(r, "a property needs braces");
    size_t from = ++r->i;
    while (r->i < r->n && r->s[r->i] != '}')
        r->i++;
    if (r->i >= r->n)
        return fail(r, "a property has no closing brace");
    size_t n = r->i++ - from;
    const char *name = r->s + from, *set;
    if (n && *name == '^') {
        negated = !negated;
        name++;
        n--;
    }
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '_' && name[i] != ' ' && name[i] != '-')
            return fail(r, "a property's name is wrong");
    if (n <= 2) {
        sw_buf_printf(out, "\\%c{%.*s}", negated ? 'P' : 'p', (int)n, name);
        if (!negated)
            add_newer(name, n, out);
    } else if ((set = posix(name, n)) && !negated)
        put_set(set, out);
    else if (n == 10 && !strncasecmp(name, "alphabetic", 10))
        sw_buf_printf(out, "\\%c{Alphabetic}", negated ? 'P' : 'p');
    else if (set)
        return fail(r, "the complement of this property is not known here");
    else
        sw_buf_printf(out, "\\%c{sc:%.*s}", negated ? 'P' : 'p', (int)n, name);
    return 0;
}

static int bracket(reader *r, sw_buf *out);

/* What a bracket holds up to ] or &&, as an expression for one character. */
static int bracket_items(reader *r, sw_buf *out)
{
    sw_buf plain = {0}, more = {0};
    int rc = 0;
    bool first = true;
    for (; !rc; first = false) {
        if (r->i >= r->n) {
            rc = fail(r, "a bracket is not closed");
            break;
        }
        char c = r->s[r->i];
        if (c == ']' && !first)
            break;
        if (c == '&' && r->i + 1 < r->n && r->s[r->i + 1] == '&')
            break;
        if (c == '[') {
            const char *end = r->i + 1 < r->n && r->s[r->i + 1] == ':' ? strstr(r->s + r->i + 2, ":]") : NULL;
            if (end) {
                const char *name = r->s + r->i + 2;
                bool negated = *name == '^';
                name += negated;
                const char *set = posix(name, (size_t)(end - name));
                if (!set) {
                    rc = fail(r, "a bracket's name is not known");
                    break;
                }
                sw_buf_puts(&more, negated ? "|[^" : "");
                put_set(set, negated ? &more : &plain);
                sw_buf_puts(&more, negated ? "]" : "");
                r->i = (size_t)(end + 2 - r->s);
                continue;
            }
            sw_buf_puts(&more, "|");
            rc = bracket(r, &more);
            continue;
        }
        if (c == '\\' && r->i + 1 < r->n) {
            char e = r->s[r->i + 1];
            const char *set = set_of(e);
            if (set) {
                bool negated = isupper((unsigned char)e);
                sw_buf_puts(&more, negated ? "|[^" : "");
                put_set(set, negated ? &more : &plain);
                sw_buf_puts(&more, negated ? "]" : "");
                r->i += 2;
            } else if (e == 'p' || e == 'P') {
                r->i += 2;
                rc = property(r, e == 'P', &plain);
            } else if (e == 'u' && r->i + 5 < r->n) {
                sw_buf_printf(&plain, "\\x{%.4s}", r->s + r->i + 2);
                r->i += 6;
            } else if (e == 'v') {
                sw_buf_puts(&plain, "\\x0b");
                r->i += 2;
            } else {
                sw_buf_add(&plain, r->s + r->i, 2);
                r->i += 2;
            }
            continue;
        }
        if (c == '^' || c == ']')
            sw_buf_putc(&plain, '\\');
        sw_buf_putc(&plain, c);
        r->i++;
    }
    if (!rc && !more.n)
        sw_buf_printf(out, plain.n ? "[%s]" : "(*F)%s", plain.n ? plain.at : "");
    else if (!rc && !plain.n)
        sw_buf_printf(out, "(?:%s)", more.at + 1);
    else if (!rc)
        sw_buf_printf(out, "(?:[%s]%s)", plain.at, more.at);
    sw_buf_free(&plain);
    sw_buf_free(&more);
    return rc;
}

/* r->i at the opening bracket. */
static int bracket(reader *r, sw_buf *out)
{
    if (++r->depth > SW_DEEPEST_SEQUENCE)
        return fail(r, "brackets are nested too deep");
    r->i++;
    bool negated = r->i < r->n && r->s[r->i] == '^';
    r->i += negated;
    sw_buf all = {0};
    int rc = bracket_items(r, &all);
    while (!rc && r->i < r->n && r->s[r->i] == '&') {
        sw_buf next = {0};
        r->i += 2;
        rc = bracket_items(r, &next);
        char *both = rc ? NULL : sw_strfmt("(?:(?=%s)%s)", all.at, next.at);
        sw_buf_clear(&all);
        if (both)
            sw_buf_puts(&all, both);
        free(both);
        sw_buf_free(&next);
    }
    if (!rc) {
        r->i++; /* ] */
        if (negated && all.at[0] == '[')
            sw_buf_printf(out, "[^%s", all.at + 1);
        else if (negated)
            sw_buf_printf(out, "(?:(?!%s)(?s:.))", all.at);
        else
            sw_buf_puts(out, all.at);
    }
    sw_buf_free(&all);
    r->depth--;
    return rc;
}

/* (?imx-imx: and (?imx-imx): what Ruby calls m is PCRE2's s. Anything else after (? passes. */
static int group(reader *r, sw_buf *out)
{
    size_t i = r->i + 2;
    while (i < r->n && (strchr("imx-", r->s[i]) && r->s[i]))
        i++;
    bool options = i > r->i + 2 && i < r->n && (r->s[i] == ':' || r->s[i] == ')');
    if (r->s[r->i + 2] == '~')
        return fail(r, "the absence operator is not known here");
    if (!options) {
        sw_buf_add(out, "(?", 2);
        r->i += 2;
        if (r->i < r->n && (r->s[r->i] == '<' ||
                            r->s[r->i] == '\'')) { /* a name, or a look behind: up to here nothing is translated */
            sw_buf_putc(out, r->s[r->i++]);
            while (r->i < r->n && (isalnum((unsigned char)r->s[r->i]) || r->s[r->i] == '_' || r->s[r->i] == '>' ||
                                   r->s[r->i] == '=' || r->s[r->i] == '!')) {
                bool last = strchr(">=!", r->s[r->i]) != NULL;
                sw_buf_putc(out, r->s[r->i++]);
                if (last)
                    break;
            }
        } else if (r->i < r->n) {
            sw_buf_putc(out, r->s[r->i++]);
        }
        return 0;
    }
    sw_buf_puts(out, "(?");
    for (r->i += 2; r->i <= i; r->i++)
        sw_buf_putc(out, r->s[r->i] == 'm' ? 's' : r->s[r->i]);
    return 0;
}

int sw_regex_translate(const char *expression, sw_buf *out)
{
    reader r = {.s = expression, .n = strlen(expression)};
    struct {
        size_t *at;
        size_t n, cap;
    } open = {0};    /* where groups begin in `out` */
    size_t atom = 0; /* where what a quantifier would repeat begins */
    int rc = 0;
    while (!rc && r.i < r.n) {
        char c = r.s[r.i];
        size_t here = out->n;
        if (c == '[') {
            rc = bracket(&r, out);
            atom = here;
        } else if (c == '(') {
            SW_PUSH(open, here);
            if (r.i + 2 < r.n && r.s[r.i + 1] == '?') {
                rc = group(&r, out);
                if (!rc && out->at[out->n - 1] == ')' && open.n)
                    open.n--;
            } else {
                sw_buf_putc(out, c);
                r.i++;
            }
        } else if (c == ')') {
            atom = open.n ? open.at[--open.n] : here;
            sw_buf_putc(out, c);
            r.i++;
        } else if (c == '\\' && r.i + 1 < r.n) {
            char e = r.s[r.i + 1];
            const char *set = set_of(e);
            atom = here;
            if (set) {
                sw_buf_puts(out, isupper((unsigned char)e) ? "[^" : "[");
                put_set(set, out);
                sw_buf_putc(out, ']');
                r.i += 2;
            } else if (e == 'p' || e == 'P') {
                r.i += 2;
                sw_buf_putc(out, '[');
                rc = property(&r, e == 'P', out);
                sw_buf_putc(out, ']');
            } else if (e == 'u' && r.i + 5 < r.n) {
                sw_buf_printf(out, "\\x{%.4s}", r.s + r.i + 2);
                r.i += 6;
            } else if (e == 'v') {
                sw_buf_puts(out, "\\x0b");
                r.i += 2;
            } else {
                sw_buf_add(out, r.s + r.i, 2);
                r.i += 2;
            }
        } else if (c == '{') {
            size_t i = r.i + 1, digits = 0, comma = 0;
            while (i < r.n && (isdigit((unsigned char)r.s[i]) || r.s[i] == ',')) {
                comma += r.s[i] == ',';
                digits += r.s[i] != ',';
                i++;
            }
            if (i >= r.n || r.s[i] != '}' || !digits || comma > 1) { /* no interval: itself */
                sw_buf_puts(out, "\\{");
                atom = here;
                r.i++;
                continue;
            }
            sw_buf_printf(out, "{%s%.*s", r.s[r.i + 1] == ',' ? "0" : "", (int)(i - r.i), r.s + r.i + 1);
            r.i = i + 1;
            if (r.i < r.n && r.s[r.i] == '+') { /* not possessive after an interval: the whole is repeated */
                char *tail = sw_strdup(out->at + atom);
                out->n = atom;
                sw_buf_printf(out, "(?:%s)", tail);
                free(tail);
            }
        } else {
            if (!strchr("*+?", c)) {
                if (((unsigned char)c & 0xc0) != 0x80)
                    atom = here;
            }
            sw_buf_putc(out, c);
            r.i++;
        }
    }
    free(open.at);
    return rc;
}
