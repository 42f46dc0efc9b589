/* Methods of strings that look at what kind of characters stand where. */
#include "text/jinja_internal.h"

#include <string.h>
#include <utf8proc.h>

static utf8proc_category_t kind_of(uint32_t cp) { return utf8proc_category((utf8proc_int32_t)cp); }

static bool is_upper(uint32_t cp) { return kind_of(cp) == UTF8PROC_CATEGORY_LU || kind_of(cp) == UTF8PROC_CATEGORY_LT; }
static bool is_lower(uint32_t cp) { return utf8proc_islower((utf8proc_int32_t)cp); }

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
