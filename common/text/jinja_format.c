/* '%s' % x and '{}'.format(x): Python's two ways of formatting, with their numbers and paddings. */
#include "text/jinja_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WIDTH = 10000 };

typedef struct spec {
    sw_span fill;
    char align; /* < > ^ = or 0 */
    char sign;  /* + space - or 0 */
    bool alternate, comma;
    int width, precision; /* -1: none */
    char type;            /* 0: none */
} spec;

static int read_count(const char **at, const char *end, int *out)
{
    int64_t n = 0;
    for (; *at < end && **at >= '0' && **at <= '9'; (*at)++) {
        n = n * 10 + (**at - '0');
        if (n > MAX_WIDTH)
            return sw_fail("a width or precision beyond %d in a format", MAX_WIDTH);
    }
    *out = (int)n;
    return 0;
}

/* number in base 2, 8, 10 or 16, without sign */
static void digits_of(sw_buf *b, unsigned __int128 u, int base, bool upper)
{
    char text[136], *at = text + sizeof text;
    do
        *--at = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[(int)(u % (unsigned)base)];
    while (u /= (unsigned)base);
    sw_buf_add(b, at, (size_t)(text + sizeof text - at));
}

/* Thousands separators into the whole digits at the start of text. */
static void group_digits(sw_buf *text)
{
    size_t whole = 0;
    while (whole < text->n && text->at[whole] >= '0' && text->at[whole] <= '9')
        whole++;
    sw_buf out = {0};
    for (size_t i = 0; i < whole; i++) {
        if (i && (whole - i) % 3 == 0)
            sw_buf_putc(&out, ',');
        sw_buf_putc(&out, text->at[i]);
    }
    sw_buf_add(&out, text->at + whole, text->n - whole);
    sw_buf_free(text);
    *text = out;
}

/* Appends sign and body in the width of the spec. right: numbers stand right unless told otherwise. */
static void put_padded(sw_buf *b, const spec *s, const char *sign, const char *body, size_t n, bool right)
{
    size_t shown = sw_utf8_count(body, n) + strlen(sign), more = s->width > 0 && (size_t)s->width > shown ? (size_t)s->width - shown : 0;
    char align = s->align ? s->align : right ? '>' : '<';
    size_t left = align == '>' ? more : align == '^' ? more / 2 : 0, inner = align == '=' ? more : 0;
    sw_span fill = s->fill.n ? s->fill : (sw_span){" ", 1};
    for (size_t i = 0; i < left; i++)
        sw_buf_add(b, fill.at, fill.n);
    sw_buf_puts(b, sign);
    for (size_t i = 0; i < inner; i++)
        sw_buf_add(b, fill.at, fill.n);
    sw_buf_add(b, body, n);
    for (size_t i = left + inner; i < more; i++)
        sw_buf_add(b, fill.at, fill.n);
}

static const char *sign_text(const spec *s, bool negative)
{
    return negative ? "-" : s->sign == '+' ? "+" : s->sign == ' ' ? " " : "";
}

static int put_int(sw_buf *b, const spec *s, __int128 i)
{
    sw_buf text = {0};
    char sign[4];
    int base = s->type == 'x' || s->type == 'X' ? 16 : s->type == 'o' ? 8 : s->type == 'b' ? 2 : 10;
    snprintf(sign, sizeof sign, "%s%s", sign_text(s, i < 0),
             !s->alternate || base == 10 ? "" : base == 16 ? (s->type == 'X' ? "0X" : "0x") : base == 8 ? "0o" : "0b");
    digits_of(&text, i < 0 ? -(unsigned __int128)i : (unsigned __int128)i, base, s->type == 'X');
    if (s->comma)
        group_digits(&text);
    put_padded(b, s, sign, text.at, text.n, true);
    sw_buf_free(&text);
    return 0;
}

static int put_float(sw_buf *b, const spec *s, double f)
{
    sw_buf text = {0};
    int precision = s->precision < 0 ? 6 : SW_MIN(s->precision, 400);
    double size = fabs(f);
    char type = s->type ? s->type : s->precision < 0 ? 'r' : 'g', format[16];
    if (isnan(f) || isinf(f)) {
        sw_buf_puts(&text, isnan(f) ? "nan" : "inf");
    } else if (type == 'r') {
        jinja_print_float(&text, size);
    } else if (type == '%') {
        sw_buf_printf(&text, "%.*f%%", precision, size * 100);
    } else {
        snprintf(format, sizeof format, s->alternate ? "%%#.*%c" : "%%.*%c", type);
        sw_buf_reserve(&text, 1000);
        int n = snprintf(text.at, 1000, format, precision, size);
        text.n = (size_t)SW_MIN(SW_MAX(n, 0), 999);
        if (!s->type && !memchr(text.at, '.', text.n) && !memchr(text.at, 'e', text.n))
            sw_buf_puts(&text, ".0");
    }
    if (s->comma)
        group_digits(&text);
    put_padded(b, s, sign_text(s, signbit(f) && !isnan(f)), text.at, text.n, true);
    sw_buf_free(&text);
    return 0;
}

static int put_text(sw_buf *b, const spec *s, jv text)
{
    size_t n = s->precision >= 0 ? jinja_offset(text, (size_t)s->precision) : text.n;
    put_padded(b, s, "", text.u.s, n, false);
    return 0;
}

/* ---- % */

static int percent_one(jrun *r, sw_buf *b, spec *s, jv v)
{
    jv text;
    switch (s->type) {
    case 's':
        return jinja_to_text(r, v, &text) || put_text(b, s, text) ? -1 : 0;
    case 'r':
    case 'a': {
        sw_buf repr = {0};
        int bad = jinja_repr(r, &repr, v);
        if (!bad)
            put_text(b, s, jspan(repr.at, repr.n));
        sw_buf_free(&repr);
        return bad;
    }
    case 'c':
        if (v.kind == J_STR && sw_utf8_count(v.u.s, v.n) == 1)
            return put_text(b, s, v);
        if (jis_int(v)) {
            char c[4];
            int n = sw_utf8_encode((uint32_t)jinja_index(v), c);
            return n ? put_text(b, s, jspan(c, (size_t)n)) : sw_fail("%%c arg not in range(0x110000)");
        }
        return sw_fail("%%c requires int or char");
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        if (v.kind == J_FLOAT && fabs(v.u.f) < 1e38 && s->type != 'x' && s->type != 'X' && s->type != 'o')
            v = jinja_from_int((__int128)v.u.f);
        if (!jis_int(v))
            return sw_fail("%%%c format: a real number is required, not %s", s->type, jinja_type_name(v));
        return put_int(b, s, jinja_int(v));
    default:
        if (!jis_number(v))
            return sw_fail("must be real number, not %s", jinja_type_name(v));
        return put_float(b, s, jinja_double(v));
    }
}

int jinja_percent(jrun *r, jv format, jv args, jv *out)
{
    sw_buf b = {0};
    const char *at = format.u.s, *end = at + format.n;
    const jv *items = args.kind == J_TUPLE ? args.u.items : &args;
    size_t n = args.kind == J_TUPLE ? args.n : 1, used = 0;
    bool named = false;
    int bad = 0;
    while (at < end && !bad) {
        const char *mark = memchr(at, '%', (size_t)(end - at));
        sw_buf_add(&b, at, (size_t)((mark ? mark : end) - at));
        if (!mark)
            break;
        at = mark + 1;
        spec s = {.width = -1, .precision = -1};
        const jv *value = NULL;
        if (at < end && *at == '(') {
            const char *close = memchr(at, ')', (size_t)(end - at));
            if (!close || args.kind != J_DICT) {
                bad = sw_fail(close ? "format requires a mapping" : "incomplete format key");
                break;
            }
            value = jinja_dict_find(r, args.u.dict, jspan(at + 1, (size_t)(close - at) - 1));
            if (!value) {
                bad = sw_fail("a key that the format names is not in the dict");
                break;
            }
            named = true;
            at = close + 1;
        }
        for (bool flag = true; at < end && flag; at += flag) {
            switch (*at) {
            case '0':
                if (s.align != '<') {
                    s.fill = (sw_span){"0", 1};
                    s.align = '=';
                }
                break;
            case '-': s.align = '<'; s.fill = (sw_span){" ", 1}; break;
            case '+': s.sign = '+'; break;
            case ' ': s.sign = s.sign ? s.sign : ' '; break;
            case '#': s.alternate = true; break;
            default: flag = false;
            }
        }
        if (s.align == 0)
            s.align = '>';
        bad = read_count(&at, end, &s.width);
        if (!bad && at < end && *at == '.') {
            at++;
            bad = read_count(&at, end, &s.precision);
        }
        if (bad)
            break;
        if (at == end) {
            bad = sw_fail("incomplete format");
            break;
        }
        s.type = *at++;
        if (s.type == '%') {
            sw_buf_putc(&b, '%');
            continue;
        }
        if (!strchr("sracdiuxXofFeEgG", s.type)) {
            bad = sw_fail("unsupported format character '%c'", s.type);
            break;
        }
        if (!value && used == n) {
            bad = sw_fail("not enough arguments for format string");
            break;
        }
        bad = percent_one(r, &b, &s, value ? *value : items[used++]);
        if (b.n > JINJA_MAX_OUTPUT)
            bad = sw_fail("a formatted text is too long (more than %d MiB)", JINJA_MAX_OUTPUT >> 20);
    }
    bool keyed = args.kind == J_DICT || args.kind == J_LIST || args.kind == J_VIEW || args.kind == J_UNDEFINED; /* what can be subscripted */
    if (!bad && used < n && !named && !keyed)
        bad = sw_fail("not all arguments converted during string formatting");
    if (!bad)
        bad = jinja_copy_text(r, b.n ? b.at : "", b.n, out);
    sw_buf_free(&b);
    return bad;
}

/* ---- str.format */

static bool is_align(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static int read_spec(const char *at, const char *end, spec *s)
{
    *s = (spec){.width = -1, .precision = -1};
    size_t first = jinja_offset(jspan(at, (size_t)(end - at)), 1);
    if (at < end && at + first < end && is_align(at[first])) {
        s->fill = (sw_span){at, first};
        s->align = at[first];
        at += first + 1;
    } else if (at < end && is_align(*at)) {
        s->align = *at++;
    }
    if (at < end && (*at == '+' || *at == '-' || *at == ' '))
        s->sign = *at++;
    if (at < end && *at == '#') {
        s->alternate = true;
        at++;
    }
    if (at < end && *at == '0') {
        if (!s->align) {
            s->align = '=';
            s->fill = (sw_span){"0", 1};
        }
        at++;
    }
    if (read_count(&at, end, &s->width))
        return -1;
    if (at < end && *at == ',') {
        s->comma = true;
        at++;
    }
    if (at < end && *at == '.') {
        at++;
        if (at == end || *at < '0' || *at > '9')
            return sw_fail("Format specifier missing precision");
        if (read_count(&at, end, &s->precision))
            return -1;
    }
    if (at < end)
        s->type = *at++;
    return at < end ? sw_fail("Invalid format specifier") : 0;
}

static int put_value(jrun *r, sw_buf *b, const spec *s, jv v)
{
    jv text;
    bool plain = !s->type && s->width < 0 && s->precision < 0 && !s->sign && !s->comma;
    if (jis_number(v) && !(v.kind == J_BOOL && plain) && s->type != 's') { /* True is a word only by itself */
        if (jis_int(v) && (!s->type || strchr("dxXobn", s->type)))
            return put_int(b, s, jinja_int(v));
        if (!s->type || strchr("fFeEgG%n", s->type))
            return put_float(b, s, jinja_double(v));
        return sw_fail("Unknown format code '%c' for object of type '%s'", s->type, jinja_type_name(v));
    }
    if (s->type && s->type != 's')
        return sw_fail("Unknown format code '%c' for object of type '%s'", s->type, jinja_type_name(v));
    if (s->align == '=')
        return sw_fail("'=' alignment not allowed in string format specifier");
    return jinja_to_text(r, v, &text) || put_text(b, s, text) ? -1 : 0;
}

typedef struct formatter {
    jrun *r;
    const jargs *a;
    int64_t next; /* automatic numbers; -1 once a manual one was seen */
    bool automatic;
} formatter;

/* The value of "0", "", "name" with ".attribute" and "[index]" after it. */
static int field_value(formatter *f, const char *at, const char *end, jv *out)
{
    const char *name = at;
    while (at < end && *at != '.' && *at != '[')
        at++;
    size_t n = (size_t)(at - name);
    int number = -1;
    const char *p = name;
    if (n && *name >= '0' && *name <= '9') {
        if (read_count(&p, at, &number))
            return -1;
        if (f->automatic)
            return sw_fail("cannot switch from automatic field numbering to manual field specification");
        f->next = -1;
    } else if (!n) {
        if (f->next < 0)
            return sw_fail("cannot switch from manual field specification to automatic field numbering");
        f->automatic = true;
        number = (int)f->next++;
    }
    if (number >= 0) {
        if ((size_t)number >= f->a->n)
            return sw_fail("Replacement index %d out of range for positional args tuple", number);
        *out = f->a->at[number];
    } else {
        size_t k = 0;
        while (k < f->a->n_kw && (f->a->kw[k].name.n != n || memcmp(f->a->kw[k].name.at, name, n)))
            k++;
        if (k == f->a->n_kw)
            return sw_fail("format has no argument '%.*s'", (int)SW_MIN(n, 100), name);
        *out = f->a->kw[k].value;
    }
    while (at < end) {
        bool index = *at++ == '[';
        const char *from = at;
        while (at < end && (index ? *at != ']' : *at != '.' && *at != '['))
            at++;
        jv key = jspan(from, (size_t)(at - from));
        if (!index) {
            if (jinja_getattr(f->r, *out, key, jinja_find_method(key.u.s, key.n), out))
                return -1;
        } else {
            if (key.n && key.u.s[0] >= '0' && key.u.s[0] <= '9') {
                const char *digits = from;
                int i = 0;
                if (read_count(&digits, at, &i))
                    return -1;
                key = jint(i);
            }
            if (jinja_getitem(f->r, *out, key, out))
                return -1;
            at += at < end;
        }
        if (out->kind == J_UNDEFINED)
            return jinja_use_undefined(*out);
    }
    return 0;
}

/* One replacement field, after its brace; *at ends after the closing one. */
static int format_field(formatter *f, sw_buf *b, const char **at, const char *end)
{
    const char *close = *at, *name_end = NULL;
    for (; close < end && *close != '}'; close++) {
        if (*close == '{')
            return sw_fail("a format whose width is itself a field is refused");
        if (!name_end && (*close == '!' || *close == ':'))
            name_end = close;
    }
    if (close == end)
        return sw_fail("expected '}' before end of string");
    if (!name_end)
        name_end = close;
    jv v;
    if (field_value(f, *at, name_end, &v))
        return -1;
    const char *p = name_end;
    int bad = 0;
    if (p < close && *p == '!') {
        char how = p + 1 < close ? p[1] : 0;
        p += 2;
        if (how == 'r' || how == 'a') {
            sw_buf text = {0};
            bad = jinja_repr(f->r, &text, v) || jinja_copy_text(f->r, text.at, text.n, &v);
            sw_buf_free(&text);
        } else if (how == 's') {
            bad = jinja_to_text(f->r, v, &v);
        } else {
            bad = sw_fail("Unknown conversion specifier '%c'", how ? how : ' ');
        }
    }
    spec s;
    if (bad || (p < close && *p != ':') || read_spec(p + (p < close), close, &s))
        return bad ? -1 : p < close && *p != ':' ? sw_fail("expected ':' after conversion specifier") : -1;
    *at = close + 1;
    return put_value(f->r, b, &s, v);
}

int jinja_format(jrun *r, jv format, const jargs *a, jv *out)
{
    sw_buf b = {0};
    formatter f = {.r = r, .a = a};
    const char *at = format.u.s, *end = at + format.n;
    int bad = 0;
    while (at < end && !bad) {
        char c = *at++;
        if (c != '{' && c != '}') {
            sw_buf_putc(&b, c);
        } else if (at < end && *at == c) {
            sw_buf_putc(&b, c);
            at++;
        } else if (c == '}') {
            bad = sw_fail("Single '}' encountered in format string");
        } else {
            bad = format_field(&f, &b, &at, end);
        }
        if (b.n > JINJA_MAX_OUTPUT)
            bad = sw_fail("a formatted text is too long (more than %d MiB)", JINJA_MAX_OUTPUT >> 20);
    }
    if (!bad)
        bad = jinja_copy_text(r, b.n ? b.at : "", b.n, out);
    sw_buf_free(&b);
    return bad;
}
