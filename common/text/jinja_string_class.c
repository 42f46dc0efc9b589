/* Methods of strings about case and about what kind of characters stand where. */
#include "text/jinja_internal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static utf8proc_category_t kind_of(uint32_t cp) { return utf8proc_category((utf8proc_int32_t)cp); }

static bool is_upper(uint32_t cp) { return kind_of(cp) == UTF8PROC_CATEGORY_LU || kind_of(cp) == UTF8PROC_CATEGORY_LT; }
static bool is_lower(uint32_t cp) { return utf8proc_islower((utf8proc_int32_t)cp); }

/* ---- case */

static bool is_cased(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT;
}
static bool is_capital(uint32_t cp) { return kind_of(cp) == UTF8PROC_CATEGORY_LU; }
static bool is_small(uint32_t cp) { return kind_of(cp) == UTF8PROC_CATEGORY_LL; }

static void put_case(sw_buf *b, uint32_t cp, jcase how)
{
    static const struct { /* letters whose other case is several (SpecialCasing.txt of Unicode) */
        uint32_t cp;
        const char *upper, *title;
    } many[] = {{0xdf, "SS", "Ss"}, {0x149, "\u02bcN", "\u02bcN"}, {0x1f0, "J\u030c", "J\u030c"},
                {0x390, "\u0399\u0308\u0301", "\u0399\u0308\u0301"}, {0x3b0, "\u03a5\u0308\u0301", "\u03a5\u0308\u0301"},
                {0x587, "\u0535\u0552", "\u0535\u0582"}, {0x1e96, "H\u0331", "H\u0331"}, {0x1e97, "T\u0308", "T\u0308"},
                {0x1e98, "W\u030a", "W\u030a"}, {0x1e99, "Y\u030a", "Y\u030a"}, {0x1e9a, "A\u02be", "A\u02be"},
                {0xfb00, "FF", "Ff"}, {0xfb01, "FI", "Fi"}, {0xfb02, "FL", "Fl"}, {0xfb03, "FFI", "Ffi"},
                {0xfb04, "FFL", "Ffl"}, {0xfb05, "ST", "St"}, {0xfb06, "ST", "St"}};
    char s[4];
    for (size_t i = 0; how != JC_LOWER && cp >= 0xdf && i < SW_COUNT(many); i++)
        if (many[i].cp == cp) {
            sw_buf_puts(b, how == JC_UPPER ? many[i].upper : many[i].title);
            return;
        }
    if (cp == 0x130 && how == JC_LOWER) {
        sw_buf_puts(b, "i\u0307");
        return;
    }
    utf8proc_int32_t c = (utf8proc_int32_t)cp;
    c = how == JC_UPPER ? utf8proc_toupper(c) : how == JC_TITLE ? utf8proc_totitle(c) : utf8proc_tolower(c);
    sw_buf_add(b, s, (size_t)sw_utf8_encode((uint32_t)c, s));
}

/* A letter stands before text[at], and none after it. */
static bool ends_word(jv v, size_t at, int len)
{
    size_t before = at, after = at + (size_t)SW_MAX(len, 1);
    uint32_t cp = 0;
    while (before && ((unsigned char)v.u.s[--before] & 0xc0) == 0x80) {}
    bool word = at && sw_utf8_decode(v.u.s + before, at - before, &cp) && is_cased(cp);
    return word && !(after < v.n && sw_utf8_decode(v.u.s + after, v.n - after, &cp) && is_cased(cp));
}

int jinja_change_case(jrun *r, jv v, jcase how, jv *out)
{
    sw_buf b = {0};
    bool inside = false; /* a word has begun */
    for (size_t at = 0; at < v.n;) {
        uint32_t cp = (unsigned char)v.u.s[at];
        int len = sw_utf8_decode(v.u.s + at, v.n - at, &cp);
        jcase one = how == JC_UPPER || how == JC_LOWER ? how
                    : how == JC_SWAP                   ? (is_capital(cp) ? JC_LOWER : is_small(cp) ? JC_UPPER : JC_LOWER)
                    : inside                           ? JC_LOWER
                                                       : JC_TITLE;
        if (cp == 0x3a3 && one == JC_LOWER && ends_word(v, at, len)) /* a sigma that ends a word */
            sw_buf_puts(&b, "ς");
        else
            put_case(&b, cp, one);
        inside = how == JC_TITLE ? is_cased(cp) : true;
        at += (size_t)SW_MAX(len, 1);
    }
    return jinja_charge(r, v.n / 4) || jinja_take(r, &b, v.flags, out) ? -1 : 0;
}

int jinja_str_upper(jrun *r, jv s, const jargs *a, jv *out) { (void)a; return jinja_change_case(r, s, JC_UPPER, out); }
int jinja_str_lower(jrun *r, jv s, const jargs *a, jv *out) { (void)a; return jinja_change_case(r, s, JC_LOWER, out); }
int jinja_str_title(jrun *r, jv s, const jargs *a, jv *out) { (void)a; return jinja_change_case(r, s, JC_TITLE, out); }
int jinja_str_capitalize(jrun *r, jv s, const jargs *a, jv *out) { (void)a; return jinja_change_case(r, s, JC_CAPITALIZE, out); }
int jinja_str_swapcase(jrun *r, jv s, const jargs *a, jv *out) { (void)a; return jinja_change_case(r, s, JC_SWAP, out); }

int jinja_str_casefold(jrun *r, jv s, const jargs *a, jv *out)
{
    utf8proc_uint8_t *folded = NULL;
    (void)a;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)s.u.s, (utf8proc_ssize_t)s.n, &folded, UTF8PROC_CASEFOLD);
    if (n < 0)
        return sw_fail("casefold: %s", utf8proc_errmsg(n));
    int bad = jinja_copy_text(r, (const char *)folded, (size_t)n, out);
    out->flags = s.flags;
    free(folded);
    return bad;
}

/* ---- what kind of characters */

static bool is_alpha(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}
static bool is_decimal(uint32_t cp) { return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND; }
static bool is_digit(uint32_t cp)
{
    return is_decimal(cp) || cp == 0xb2 || cp == 0xb3 || cp == 0xb9 || cp == 0x2070 || (cp >= 0x2074 && cp <= 0x2079) ||
           (cp >= 0x2080 && cp <= 0x2089) || (cp >= 0x2460 && cp <= 0x2468);
}
static bool is_numeric(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}
bool jinja_is_alnum(uint32_t cp) { return is_alpha(cp) || is_numeric(cp); }
static bool is_ascii(uint32_t cp) { return cp < 128; }

static int all_are(jv s, bool (*is)(uint32_t), bool when_empty, jv *out)
{
    bool yes = s.n || when_empty;
    for (size_t at = 0; at < s.n && yes;) {
        uint32_t cp = 0;
        int len = sw_utf8_decode(s.u.s + at, s.n - at, &cp);
        yes = is(cp);
        at += (size_t)SW_MAX(len, 1);
    }
    *out = jbool(yes);
    return 0;
}
int jinja_str_isalpha(jrun *r, jv s, const jargs *a, jv *out) { (void)r, (void)a; return all_are(s, is_alpha, false, out); }
int jinja_str_isdigit(jrun *r, jv s, const jargs *a, jv *out) { (void)r, (void)a; return all_are(s, is_digit, false, out); }
int jinja_str_isdecimal(jrun *r, jv s, const jargs *a, jv *out) { (void)r, (void)a; return all_are(s, is_decimal, false, out); }
int jinja_str_isnumeric(jrun *r, jv s, const jargs *a, jv *out) { (void)r, (void)a; return all_are(s, is_numeric, false, out); }
int jinja_str_isalnum(jrun *r, jv s, const jargs *a, jv *out) { (void)r, (void)a; return all_are(s, jinja_is_alnum, false, out); }
int jinja_str_isspace(jrun *r, jv s, const jargs *a, jv *out) { (void)r, (void)a; return all_are(s, jinja_is_space, false, out); }
int jinja_str_isascii(jrun *r, jv s, const jargs *a, jv *out) { (void)r, (void)a; return all_are(s, is_ascii, true, out); }

/* Some letter has case, and none has the other one. */
static int one_case(jv s, bool (*wanted)(uint32_t), bool (*other)(uint32_t), jv *out)
{
    bool some = false;
    for (size_t at = 0; at < s.n;) {
        uint32_t cp = 0;
        int len = sw_utf8_decode(s.u.s + at, s.n - at, &cp);
        if (other(cp)) {
            some = false;
            break;
        }
        some |= wanted(cp);
        at += (size_t)SW_MAX(len, 1);
    }
    *out = jbool(some);
    return 0;
}
int jinja_str_isupper(jrun *r, jv s, const jargs *a, jv *out) { (void)r, (void)a; return one_case(s, is_capital, is_small, out); }
int jinja_str_islower(jrun *r, jv s, const jargs *a, jv *out) { (void)r, (void)a; return one_case(s, is_small, is_capital, out); }

/* Words begin with an upper case letter and go on in lower case; there is one at least. */
int jinja_str_istitle(jrun *r, jv s, const jargs *a, jv *out)
{
    bool some = false, inside = false, good = true;
    (void)r, (void)a;
    for (size_t at = 0; at < s.n && good;) {
        uint32_t cp = 0;
        int len = sw_utf8_decode(s.u.s + at, s.n - at, &cp);
        bool upper = is_upper(cp), lower = is_lower(cp);
        good = !(upper && inside) && !(lower && !inside);
        inside = upper || lower;
        some |= inside;
        at += (size_t)SW_MAX(len, 1);
    }
    *out = jbool(good && some);
    return 0;
}

/* Python's: neither controls nor separators but the space. */
int jinja_str_isprintable(jrun *r, jv s, const jargs *a, jv *out)
{
    bool good = true;
    (void)r, (void)a;
    for (size_t at = 0; at < s.n && good;) {
        uint32_t cp = 0;
        int len = sw_utf8_decode(s.u.s + at, s.n - at, &cp);
        utf8proc_category_t k = kind_of(cp);
        good = cp == ' ' || (k != UTF8PROC_CATEGORY_CC && k != UTF8PROC_CATEGORY_CF && k != UTF8PROC_CATEGORY_CS &&
                             k != UTF8PROC_CATEGORY_CO && k != UTF8PROC_CATEGORY_CN && k != UTF8PROC_CATEGORY_ZL &&
                             k != UTF8PROC_CATEGORY_ZP && k != UTF8PROC_CATEGORY_ZS);
        at += (size_t)SW_MAX(len, 1);
    }
    *out = jbool(good);
    return 0;
}

int jinja_str_isidentifier(jrun *r, jv s, const jargs *a, jv *out)
{
    bool good = s.n > 0;
    (void)r, (void)a;
    for (size_t at = 0; at < s.n && good;) {
        uint32_t cp = 0;
        int len = sw_utf8_decode(s.u.s + at, s.n - at, &cp);
        utf8proc_category_t k = kind_of(cp);
        bool letter =
            cp == '_' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) || k == UTF8PROC_CATEGORY_NL;
        bool more = k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC ||
                    k == UTF8PROC_CATEGORY_PC;
        good = letter || (at && more);
        at += (size_t)SW_MAX(len, 1);
    }
    *out = jbool(good);
    return 0;
}

int jinja_str_expandtabs(jrun *r, jv s, const jargs *a, jv *out)
{
    jv size;
    if (JINJA_BIND("expandtabs", a, 0, &size, "tabsize"))
        return -1;
    if (size.kind && !jis_int(size))
        return sw_fail("'%s' object cannot be interpreted as an integer", jinja_type_name(size));
    int64_t width = size.kind ? jinja_index(size) : 8, column = 0;
    if (width > 10000)
        return sw_fail("expandtabs: a size of up to 10000 is wanted");
    sw_buf b = {0};
    int bad = jinja_charge(r, s.n / 4);
    for (size_t i = 0; i < s.n && !bad; i++) {
        char c = s.u.s[i];
        if (c == '\t') {
            for (int64_t n = width > 0 ? width - column % width : 0; n > 0; n--, column++)
                sw_buf_putc(&b, ' ');
        } else {
            sw_buf_putc(&b, c);
            column = c == '\n' || c == '\r' ? 0 : column + (((unsigned char)c & 0xc0) != 0x80);
        }
        if (b.n > JINJA_MAX_OUTPUT)
            bad = sw_fail("a text is too long (more than %d MiB)", JINJA_MAX_OUTPUT >> 20);
    }
    bad = bad || jinja_copy_text(r, b.n ? b.at : "", b.n, out);
    sw_buf_free(&b);
    return bad ? -1 : 0;
}

/* '{a}'.format_map({'a': 1}) */
int jinja_str_format_map(jrun *r, jv s, const jargs *a, jv *out)
{
    jv map;
    if (JINJA_BIND("format_map", a, 1, &map, "mapping"))
        return -1;
    if (map.kind != J_DICT)
        return sw_fail("format_map wants a dict, not %s", jinja_type_name(map));
    size_t n = map.u.dict->n;
    jkw *kw = jinja_alloc(r, (n + 1) * sizeof *kw);
    if (!kw)
        return -1;
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        if (map.u.dict->at[i].key.kind == J_STR)
            kw[used++] = (jkw){{map.u.dict->at[i].key.u.s, map.u.dict->at[i].key.n}, map.u.dict->at[i].value};
    return jinja_format(r, s, &(jargs){NULL, 0, kw, used}, out);
}
