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
#define WORDS_ALONE WORDS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" /* outside of brackets these belong to it, too */
#define DIGITS "\\p{Nd}"
#define HEX "0-9a-fA-F"
#define GRAPHIC "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Cf}\\p{Co}"

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
static const char *set_of(char c, bool alone)
{
    switch (tolower((unsigned char)c)) {
    case 's': return SPACES;
    case 'w': return alone ? WORDS_ALONE : WORDS;
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
        {"alnum", "\\p{Alphabetic}\\p{Nd}"},
        {"alpha", "\\p{Alphabetic}"},
        {"ascii", "\\x00-\\x7f"},
        {"blank", "\\p{Zs}\\x09"},
        {"cntrl", "\\p{Cc}"},
        {"digit", DIGITS},
        {"graph", GRAPHIC},
        {"lower", "\\p{Lowercase}"},
        {"print", GRAPHIC "\\p{Zs}"},
        {"punct", "\\p{P}\\p{S}"},
        {"space", SPACES},
        {"upper", "\\p{Uppercase}"},
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

/* The newer characters of a category, or of all that begin with its letter. LC: letters with a case. */
static void add_newer(const char *name, size_t n, sw_buf *out)
{
    static const char *const names[] = {"Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps",
                                        "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"};
    pthread_once(&newer_once, find_newer);
    bool cased = n == 2 && !strncasecmp(name, "LC", 2);
    for (size_t i = 0; i < n_newer; i++) {
        int c = newer[i].category;
        if (cased ? c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LT : !strncasecmp(names[c], name, n))
            sw_buf_printf(out, "\\x{%x}-\\x{%x}", newer[i].first, newer[i].last);
    }
}

/* What else became alphabetic or lower case, and characters of scripts, in Unicode 15 and 16. */
static const struct {
    const char *name, *set;
} newer_sets[] = {
    {"Alphabetic", "\\x{363}-\\x{36f}\\x{897}\\x{c04}\\x{cf3}\\x{f82}\\x{f83}\\x{1dd3}-\\x{1de6}\\x{10d69}\\x{10efc}\\x{11080}\\x{11081}\\x{11241}\\x{113b8}-\\x{113c0}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}"
                   "\\x{113cc}\\x{113cd}\\x{11f00}\\x{11f01}\\x{11f03}\\x{11f34}-\\x{11f3a}\\x{11f3e}-\\x{11f40}\\x{1611e}-\\x{1612e}"
                   "\\x{1e08f}"},
    {"Arabic", "\\x{897}\\x{10ec2}-\\x{10ec4}\\x{10efc}-\\x{10eff}"},
    {"Cyrillic", "\\x{1c89}\\x{1c8a}\\x{1e030}-\\x{1e06d}\\x{1e08f}"},
    {"Devanagari", "\\x{11b00}-\\x{11b09}"},
    {"Han", "\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"},
    {"Lowercase", "\\x{10fc}\\x{a7f2}-\\x{a7f4}\\x{ab69}\\x{1e030}-\\x{1e06d}"},
    {"Hiragana", "\\x{1b132}"},
    {"Kannada", "\\x{cf3}"},
    {"Katakana", "\\x{1b155}"},
    {"Lao", "\\x{ece}"},
    {"Latin", "\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{1df25}-\\x{1df2a}"},
};

static bool same_name(const char *a, const char *b, size_t n) { return strlen(a) == n && !strncasecmp(a, b, n); }

/* A set as written out here, and the newer characters that belong to it. */
static void put_set(const char *set, sw_buf *out)
{
    sw_buf_puts(out, set);
    for (const char *s = set; (s = strstr(s, "\\p{")); s += 3) {
        const char *name = s + 3;
        size_t n = strcspn(name, "}");
        for (size_t i = 0; i < SW_COUNT(newer_sets); i++)
            if (same_name(newer_sets[i].name, strncmp(name, "sc:", 3) ? name : name + 3, strncmp(name, "sc:", 3) ? n : n - 3))
                sw_buf_puts(out, newer_sets[i].set);
        if (n <= 2)
            add_newer(name, n, out);
        else if (same_name("Alphabetic", name, n))
            add_newer("L", 1, out);
        else if (same_name("Uppercase", name, n) || same_name("Lowercase", name, n))
            add_newer(*name == 'U' || *name == 'u' ? "Lu" : "Ll", 2, out);
    }
}

static bool pcre_knows(const char *property)
{
    int code;
    PCRE2_SIZE where;
    pcre2_code *regex = pcre2_compile((PCRE2_SPTR)property, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &where, NULL);
    pcre2_code_free(regex);
    return regex;
}

/* The name of a category without its long form: Letter, Uppercase_Letter ...; what is none of these stays. */
static void short_category(char *name)
{
    static const char *const longer[][2] = {
        {"letter", "L"}, {"mark", "M"}, {"number", "N"}, {"punctuation", "P"}, {"symbol", "S"}, {"separator", "Z"}, {"other", "C"},
        {"uppercaseletter", "Lu"}, {"lowercaseletter", "Ll"}, {"titlecaseletter", "Lt"}, {"casedletter", "LC"}, {"modifierletter", "Lm"},
        {"otherletter", "Lo"}, {"nonspacingmark", "Mn"}, {"spacingmark", "Mc"}, {"enclosingmark", "Me"}, {"decimalnumber", "Nd"},
        {"letternumber", "Nl"}, {"othernumber", "No"}, {"connectorpunctuation", "Pc"}, {"dashpunctuation", "Pd"},
        {"openpunctuation", "Ps"}, {"closepunctuation", "Pe"}, {"initialpunctuation", "Pi"}, {"finalpunctuation", "Pf"},
        {"otherpunctuation", "Po"}, {"mathsymbol", "Sm"}, {"currencysymbol", "Sc"}, {"modifiersymbol", "Sk"}, {"othersymbol", "So"},
        {"spaceseparator", "Zs"}, {"lineseparator", "Zl"}, {"paragraphseparator", "Zp"}, {"control", "Cc"}, {"format", "Cf"},
        {"privateuse", "Co"}, {"unassigned", "Cn"}};
    for (size_t i = 0; i < SW_COUNT(longer); i++)
        if (!strcasecmp(longer[i][0], name))
            strcpy(name, longer[i][1]);
}

/* \p{...} with r->i behind the p: what a bracket holds of it, or, where only its complement can be said, "|[^...]" in more.
 * Scripts are meant where PCRE2 would take their extensions. */
static int property(reader *r, bool negated, bool alone, sw_buf *plain, sw_buf *more)
{
    if (r->i >= r->n || r->s[r->i] != '{')
        return fail(r, "a property needs braces");
    char name[64], text[80];
    size_t n = 0;
    for (r->i++; r->i < r->n && r->s[r->i] != '}'; r->i++) {
        char c = r->s[r->i];
        if (c == '^' && !n)
            negated = !negated;
        else if (!isalnum((unsigned char)c) && c != '_' && c != ' ' && c != '-')
            return fail(r, "a property's name is wrong");
        else if (c != '_' && c != ' ' && c != '-') {
            if (n + 1 == sizeof name)
                return fail(r, "a property's name is too long");
            name[n++] = c;
        }
    }
    if (r->i++ >= r->n)
        return fail(r, "a property has no closing brace");
    name[n] = 0;
    short_category(name);
    n = strlen(name);
    const char *set = posix(name, n);
    if (same_name("punct", name, n))
        set = "\\p{P}";
    else if (same_name("word", name, n))
        set = alone ? WORDS_ALONE : WORDS;
    else if (same_name("whitespace", name, n))
        set = SPACES;
    else if (same_name("any", name, n))
        set = "\\x00-\\x{10ffff}";
    else if (same_name("c", name, n) || same_name("cn", name, n)) { /* what PCRE2 takes for unassigned may be newer */
        set = n == 1 ? "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Z}" : GRAPHIC "\\p{Z}\\p{Cc}\\p{Cs}";
        negated = !negated;
    } else if (!set) {
        snprintf(text, sizeof text, n <= 2 ? "\\p{%s}" : "\\p{sc:%s}", name);
        if (n > 2 && !pcre_knows(text))
            snprintf(text, sizeof text, "\\p{%s}", name);
        set = text;
    }
    sw_buf_puts(negated ? more : plain, negated ? "|[^" : "");
    put_set(set, negated ? more : plain);
    sw_buf_puts(negated ? more : plain, negated ? "]" : "");
    return 0;
}

/* What was gathered for one character as an expression. */
static void put_one(const sw_buf *plain, const sw_buf *more, sw_buf *out)
{
    if (!more->n)
        sw_buf_printf(out, plain->n ? "[%s]" : "(*F)%s", plain->n ? plain->at : "");
    else if (!plain->n)
        sw_buf_printf(out, "(?:%s)", more->at + 1);
    else
        sw_buf_printf(out, "(?:[%s]%s)", plain->at, more->at);
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
            const char *set = set_of(e, false);
            if (set) {
                bool negated = isupper((unsigned char)e);
                sw_buf_puts(&more, negated ? "|[^" : "");
                put_set(set, negated ? &more : &plain);
                sw_buf_puts(&more, negated ? "]" : "");
                r->i += 2;
            } else if (e == 'p' || e == 'P') {
                r->i += 2;
                rc = property(r, e == 'P', false, &plain, &more);
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
    if (!rc)
        put_one(&plain, &more, out);
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
            const char *set = set_of(e, true);
            atom = here;
            if (set) {
                sw_buf_puts(out, isupper((unsigned char)e) ? "[^" : "[");
                put_set(set, out);
                sw_buf_putc(out, ']');
                r.i += 2;
            } else if (e == 'p' || e == 'P') {
                sw_buf plain = {0}, more = {0};
                r.i += 2;
                rc = property(&r, e == 'P', true, &plain, &more);
                if (!rc)
                    put_one(&plain, &more, out);
                sw_buf_free(&plain);
                sw_buf_free(&more);
            } else if (e == 'b' || e == 'B') { /* between what \w is and what it is not, or else */
                sw_buf word = {0};
                put_set(WORDS_ALONE, &word);
                sw_buf_printf(out, e == 'b' ? "(?:(?<=[%s])(?![%s])|(?<![%s])(?=[%s]))" : "(?:(?<=[%s])(?=[%s])|(?<![%s])(?![%s]))",
                              word.at, word.at, word.at, word.at);
                sw_buf_free(&word);
                r.i += 2;
            } else if (e == 'O') {
                sw_buf_puts(out, "(?s:.)");
                r.i += 2;
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
