/* Filters over numbers. */
#include "text/jinja_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* The number that a text spells, white space and single underscores allowed, as Python's int() and float() do. */
static bool text_number(jv v, char *digits, size_t size)
{
    v = jinja_strip(v, NULL, 3);
    size_t k = 0;
    for (size_t i = 0; i < v.n; i++) {
        char c = v.u.s[i];
        uint32_t cp;
        int len = (unsigned char)c < 0x80 ? 0 : sw_utf8_decode(v.u.s + i, v.n - i, &cp);
        if (len && utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND) { /* digits of a script stand in a row from 0 */
            uint32_t zero = cp;
            while (utf8proc_category((utf8proc_int32_t)zero - 1) == UTF8PROC_CATEGORY_ND)
                zero--;
            c = (char)('0' + (cp - zero) % 10);
            i += (size_t)len - 1;
        }
        if (c == '_' && i && i + 1 < v.n && v.u.s[i - 1] != '_')
            continue;
        if (k + 1 == size || !c || (unsigned char)c <= ' ')
            return false;
        digits[k++] = c;
    }
    digits[k] = 0;
    return k > 0;
}

static bool text_to_float(jv v, double *out)
{
    char digits[400], *end;
    if (!text_number(v, digits, sizeof digits) || strpbrk(digits, "xXpP("))
        return false;
    *out = strtod(digits, &end);
    return !*end;
}

static bool text_to_int(jv v, int base, __int128 *out)
{
    char digits[400];
    if (!text_number(v, digits, sizeof digits))
        return false;
    const char *at = digits;
    bool negative = *at == '-';
    at += *at == '-' || *at == '+';
    char mark = base == 16 ? 'x' : base == 8 ? 'o' : base == 2 ? 'b' : 0;
    if (mark && at[0] == '0' && (at[1] | 32) == mark)
        at += 2;
    *out = 0;
    if (!*at)
        return false;
    for (; *at; at++) {
        int d = *at >= '0' && *at <= '9' ? *at - '0' : (*at | 32) >= 'a' && (*at | 32) <= 'z' ? (*at | 32) - 'a' + 10 : 99;
        if (d >= base || __builtin_mul_overflow(*out, base, out) || __builtin_add_overflow(*out, d, out))
            return false;
    }
    *out = negative ? -*out : *out;
    return true;
}

static int filter_int(jrun *r, const jargs *a, jv *out)
{
    jv p[3];
    int64_t base;
    __int128 i;
    double f;
    (void)r;
    if (JINJA_BIND("int", a, 1, p, "value", "default", "base") || jinja_optional_int("int", p[2], 10, &base))
        return -1;
    *out = p[1].kind ? p[1] : jint(0);
    if (base < 2 || base > 36)
        return sw_fail("int() base must be >= 2 and <= 36");
    if (p[0].kind == J_UNDEFINED)
        return jinja_use_undefined(p[0]);
    if (jis_int(p[0]))
        *out = jinja_from_int(jinja_int(p[0]));
    else if (p[0].kind == J_FLOAT && fabs(p[0].u.f) < 1e38)
        *out = jinja_from_int((__int128)p[0].u.f);
    else if (p[0].kind == J_STR && text_to_int(p[0], (int)base, &i))
        *out = jinja_from_int(i);
    else if (p[0].kind == J_STR && text_to_float(p[0], &f) && fabs(f) < 1e38)
        *out = jinja_from_int((__int128)f);
    return 0;
}

static int filter_float(jrun *r, const jargs *a, jv *out)
{
    jv p[2];
    double f;
    (void)r;
    if (JINJA_BIND("float", a, 1, p, "value", "default"))
        return -1;
    if (p[0].kind == J_UNDEFINED)
        return jinja_use_undefined(p[0]);
    *out = p[1].kind ? p[1] : jfloat(0);
    if (jis_number(p[0]))
        *out = jfloat(jinja_double(p[0]));
    else if (p[0].kind == J_STR && text_to_float(p[0], &f))
        *out = jfloat(f);
    return 0;
}

static int filter_abs(jrun *r, const jargs *a, jv *out)
{
    jv v;
    (void)r;
    if (JINJA_BIND("abs", a, 1, &v, "x"))
        return -1;
    if (!jis_number(v))
        return v.kind == J_UNDEFINED ? jinja_use_undefined(v) : sw_fail("bad operand type for abs(): '%s'", jinja_type_name(v));
    *out = jis_int(v) ? jinja_from_int(jinja_int(v)) : v;
    return (v.kind == J_FLOAT ? signbit(v.u.f) : jinja_int(v) < 0) ? jinja_negate(*out, out) : 0;
}

static int filter_round(jrun *r, const jargs *a, jv *out)
{
    jv p[3];
    int64_t precision;
    (void)r;
    if (JINJA_BIND("round", a, 1, p, "value", "precision", "method") || jinja_optional_int("round", p[1], 0, &precision))
        return -1;
    if (!jis_number(p[0]))
        return p[0].kind == J_UNDEFINED ? jinja_use_undefined(p[0]) : sw_fail("type %s doesn't define __round__", jinja_type_name(p[0]));
    double f = jinja_double(p[0]);
    bool up = p[2].kind && JTEXT_IS(p[2], "ceil"), down = p[2].kind && JTEXT_IS(p[2], "floor");
    if (p[2].kind && !up && !down && !JTEXT_IS(p[2], "common"))
        return sw_fail("method must be common, ceil or floor");
    if (precision < -300 || precision > 300)
        return sw_fail("round: a precision from -300 to 300 is wanted");
    if (up || down) {
        double scale = pow(10, (double)precision);
        *out = jfloat((up ? ceil(f * scale) : floor(f * scale)) / scale);
    } else if (jis_int(p[0]) && precision >= 0) {
        *out = jinja_from_int(jinja_int(p[0]));
    } else if (precision >= 0) { /* the decimal text is rounded half to even on the exact value */
        char text[1000];
        snprintf(text, sizeof text, "%.*f", (int)precision, f);
        *out = jfloat(isfinite(f) ? strtod(text, NULL) : f);
    } else {
        double scale = pow(10, (double)-precision);
        f = nearbyint(f / scale) * scale;
        *out = jis_int(p[0]) && fabs(f) < 1e38 ? jinja_from_int((__int128)f) : jfloat(f);
    }
    return 0;
}

static int filter_filesizeformat(jrun *r, const jargs *a, jv *out)
{
    jv p[2], number;
    if (JINJA_BIND("filesizeformat", a, 1, p, "value", "binary") || filter_float(r, &(jargs){p, 1, NULL, 0}, &number))
        return -1;
    double f;
    if (!jis_number(p[0]) && !(p[0].kind == J_STR && text_to_float(p[0], &f)))
        return sw_fail("filesizeformat wants a number, not %s", jinja_type_name(p[0]));
    bool binary = jinja_truth(p[1]);
    double bytes = jinja_double(number), base = binary ? 1024 : 1000, unit = base;
    static const char letters[] = "kMGTPEZY", upper[] = "KMGTPEZY";
    char text[400];
    if (bytes == 1) {
        snprintf(text, sizeof text, "1 Byte");
    } else if (bytes < base) {
        snprintf(text, sizeof text, "%.0f Bytes", trunc(bytes));
    } else {
        int i = 0;
        for (unit *= base; i < 7 && bytes >= unit; i++)
            unit *= base;
        snprintf(text, sizeof text, "%.1f %c%s", base * bytes / unit, binary ? upper[i] : letters[i], binary ? "iB" : "B");
    }
    return jinja_copy_text(r, text, strlen(text), out);
}

/* ---- the table */

jfunction jinja_find_number_filter(const char *name, size_t n)
{
    static const jglobal filters[] = {
        {"abs", filter_abs}, {"filesizeformat", filter_filesizeformat}, {"float", filter_float}, {"int", filter_int},
        {"round", filter_round},
    };
    for (size_t i = 0; i < SW_COUNT(filters); i++)
        if (strlen(filters[i].name) == n && !memcmp(filters[i].name, name, n))
            return filters[i].fn;
    return jinja_find_html_filter(name, n);
}
