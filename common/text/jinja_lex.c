/* The lexer: template text outside tags, with white space taken off as trim_blocks and lstrip_blocks say, and the
 * tokens inside them. A trailing newline of the template is dropped (keep_trailing_newline is off). */
#include "text/jinja_internal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct lexer {
    sw_arena *arena;
    const char *s;
    size_t n, at;
    int line;
    bool line_starting; /* the last tag ended with a newline */
    jtokens *out;
} lexer;

static const char *const token_names[] = {
    [T_END] = "end of template", [T_DATA] = "template data", [T_BLOCK_BEGIN] = "begin of statement block",
    [T_BLOCK_END] = "end of statement block", [T_PRINT_BEGIN] = "begin of print statement",
    [T_PRINT_END] = "end of print statement", [T_NAME] = "name", [T_STRING] = "string", [T_INT] = "integer",
    [T_FLOAT] = "float", [T_ADD] = "+", [T_SUB] = "-", [T_DIV] = "/", [T_FLOORDIV] = "//", [T_MUL] = "*", [T_MOD] = "%",
    [T_POW] = "**", [T_TILDE] = "~", [T_LBRACKET] = "[", [T_RBRACKET] = "]", [T_LPAREN] = "(", [T_RPAREN] = ")",
    [T_LBRACE] = "{", [T_RBRACE] = "}", [T_EQ] = "==", [T_NE] = "!=", [T_GT] = ">", [T_GE] = ">=", [T_LT] = "<",
    [T_LE] = "<=", [T_ASSIGN] = "=", [T_DOT] = ".", [T_COLON] = ":", [T_PIPE] = "|", [T_COMMA] = ",",
    [T_SEMICOLON] = ";",
};
const char *jinja_token_name(jtoken_type t) { return token_names[t]; }

bool jinja_is_space(uint32_t cp)
{
    if (cp < 128)
        return cp == ' ' || (cp >= 9 && cp <= 13) || (cp >= 0x1c && cp <= 0x1f);
    return cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

static int space_at(const char *s, size_t n)
{
    uint32_t cp;
    int len = n ? sw_utf8_decode(s, n, &cp) : 0;
    return len && jinja_is_space(cp) ? len : 0;
}

static void advance(lexer *l, size_t to)
{
    for (; l->at < to; l->at++)
        l->line += l->s[l->at] == '\n';
}

static void skip_space(lexer *l)
{
    for (int len; (len = space_at(l->s + l->at, l->n - l->at));)
        advance(l, l->at + (size_t)len);
}

static jtoken *push(lexer *l, jtoken_type type, size_t from, size_t to)
{
    SW_PUSH(*l->out, ((jtoken){.type = type, .line = l->line, .text = {l->s + from, to - from}}));
    return &l->out->at[l->out->n - 1];
}

static bool has(const lexer *l, size_t at, const char *what)
{
    size_t n = strlen(what);
    return l->n - at >= n && !memcmp(l->s + at, what, n);
}

/* Text before a tag that begins at `to` with the sign after its brace. */
static void push_data(lexer *l, size_t from, size_t to, char sign, bool may_lstrip)
{
    size_t end = to;
    if (sign == '-') {
        while (end > from) {
            size_t k = end - 1;
            while (k > from && ((unsigned char)l->s[k] & 0xc0) == 0x80)
                k--;
            if (!space_at(l->s + k, end - k))
                break;
            end = k;
        }
    } else if (sign != '+' && may_lstrip) {
        size_t start = to;
        while (start > from && l->s[start - 1] != '\n')
            start--;
        if (start > from || l->line_starting) {
            size_t k = start;
            for (int len; k < to && (len = space_at(l->s + k, to - k));)
                k += (size_t)len;
            if (k == to)
                end = start;
        }
    }
    if (end > from)
        push(l, T_DATA, from, end);
    advance(l, to);
}

/* After a tag's closing mark: "-" takes all white space, "+" nothing, neither one newline. */
static void after_tag(lexer *l, char sign, bool trim_newline)
{
    if (sign == '-')
        skip_space(l);
    else if (sign != '+' && trim_newline && l->at < l->n && l->s[l->at] == '\n')
        advance(l, l->at + 1);
    l->line_starting = l->at && l->s[l->at - 1] == '\n';
}

/* Length of "[sign]%}" or "[sign]}}" or "[sign]#}" at `at`, 0 where there is none. */
static size_t closing(const lexer *l, size_t at, const char *mark, char *sign)
{
    *sign = 0;
    if (has(l, at, mark))
        return 2;
    if (at < l->n && (l->s[at] == '-' || l->s[at] == '+') && has(l, at + 1, mark)) {
        *sign = l->s[at];
        return 3;
    }
    return 0;
}

/* "{%[sign] WORD" at `at`: the offset after the word and white space, or 0. */
static size_t tag_word(const lexer *l, size_t at, const char *word, char *sign)
{
    *sign = 0;
    if (!has(l, at, "{%"))
        return 0;
    at += 2;
    if (at < l->n && (l->s[at] == '-' || l->s[at] == '+'))
        *sign = l->s[at++];
    for (int len; (len = space_at(l->s + at, l->n - at));)
        at += (size_t)len;
    if (!has(l, at, word))
        return 0;
    at += strlen(word);
    for (int len; (len = space_at(l->s + at, l->n - at));)
        at += (size_t)len;
    return at;
}

/* {% raw %} ... {% endraw %} with the cursor after the opening tag. */
static int lex_raw(lexer *l)
{
    size_t from = l->at;
    for (size_t at = from; at < l->n; at++) {
        char sign, close_sign;
        size_t end = l->s[at] == '{' ? tag_word(l, at, "endraw", &sign) : 0, close;
        if (!end || !(close = closing(l, end, "%}", &close_sign)))
            continue;
        push_data(l, from, at, sign, true);
        advance(l, end + close);
        after_tag(l, close_sign, true);
        return 0;
    }
    return sw_fail("line %d: missing end of raw directive", l->line);
}

static int lex_comment(lexer *l)
{
    for (size_t at = l->at; at < l->n; at++) {
        char sign;
        size_t close = closing(l, at, "#}", &sign);
        if (!close)
            continue;
        advance(l, at + close);
        after_tag(l, sign, true);
        return 0;
    }
    return sw_fail("line %d: missing end of comment tag", l->line);
}

static int hex_digits(const char *s, size_t n, uint32_t *out)
{
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        int d = s[i] >= '0' && s[i] <= '9'   ? s[i] - '0'
                : s[i] >= 'a' && s[i] <= 'f' ? s[i] - 'a' + 10
                : s[i] >= 'A' && s[i] <= 'F' ? s[i] - 'A' + 10
                                             : -1;
        if (d < 0)
            return -1;
        *out = *out << 4 | (uint32_t)d;
    }
    return 0;
}

/* Python's escapes; an unknown one stays as it is written. */
static int unescape(lexer *l, const char *s, size_t n, sw_span *out)
{
    *out = (sw_span){s, n};
    if (!n || !memchr(s, '\\', n))
        return 0;
    char *to = sw_arena_alloc(l->arena, n + 4);
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] != '\\' || i + 1 == n) {
            to[k++] = s[i];
            continue;
        }
        static const char from[] = "abfnrtv\\'\"", plain[] = "\a\b\f\n\r\t\v\\'\"";
        char c = s[++i];
        const char *known = memchr(from, c, sizeof from - 1);
        size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
        uint32_t cp = 0;
        if (known) {
            to[k++] = plain[known - from];
        } else if (c == '\n') {
            continue;
        } else if (digits) {
            int len = 0;
            if (n - i - 1 >= digits && !hex_digits(s + i + 1, digits, &cp))
                len = sw_utf8_encode(cp, to + k);
            if (!len)
                return sw_fail("line %d: \\%c in a string wants %zu hexadecimal digits of a character", l->line, c, digits);
            k += (size_t)len;
            i += digits;
        } else if (c >= '0' && c <= '7') {
            size_t end = i;
            while (end < n && end < i + 3 && s[end] >= '0' && s[end] <= '7')
                cp = cp * 8 + (uint32_t)(s[end++] - '0');
            k += (size_t)sw_utf8_encode(cp, to + k);
            i = end - 1;
        } else {
            to[k++] = '\\';
            to[k++] = c;
        }
    }
    *out = (sw_span){to, k};
    return 0;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Digits with single underscores between them. */
static size_t digits_at(const lexer *l, size_t at)
{
    size_t start = at;
    while (at < l->n && (is_digit(l->s[at]) || (l->s[at] == '_' && at > start && at + 1 < l->n && is_digit(l->s[at + 1]))))
        at++;
    return at - start;
}

static int lex_number(lexer *l)
{
    size_t at = l->at, start = at;
    char digits[400];
    int base = 10;
    if (l->s[at] == '0' && at + 2 < l->n) {
        char c = l->s[at + 1] | 0x20;
        base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 10;
    }
    if (base != 10) {
        __int128 value = 0;
        at += 2;
        for (uint32_t d; at < l->n && (l->s[at] == '_' || (!hex_digits(l->s + at, 1, &d) && (int)d < base)); at++)
            if (l->s[at] != '_' && (__builtin_mul_overflow(value, base, &value) || __builtin_add_overflow(value, d, &value)))
                return sw_fail("line %d: a number is too large", l->line);
        push(l, T_INT, start, at)->number = jinja_from_int(value);
        advance(l, at);
        return 0;
    }
    at += digits_at(l, at);
    bool real = false, after_dot = start && l->s[start - 1] == '.';
    if (!after_dot) {
        size_t more = at < l->n && l->s[at] == '.' ? digits_at(l, at + 1) : 0;
        size_t mantissa = more ? at + 1 + more : at, e = mantissa;
        if (e < l->n && (l->s[e] | 0x20) == 'e') {
            e++;
            if (e < l->n && (l->s[e] == '+' || l->s[e] == '-'))
                e++;
            size_t exponent = digits_at(l, e);
            e = exponent ? e + exponent : mantissa;
        }
        real = e > at;
        at = e;
    }
    size_t k = 0;
    for (size_t i = start; i < at; i++) {
        if (k + 1 == sizeof digits)
            return sw_fail("line %d: a number is too long", l->line);
        if (l->s[i] != '_')
            digits[k++] = l->s[i];
    }
    digits[k] = 0;
    if (real) {
        push(l, T_FLOAT, start, at)->number = jfloat(strtod(digits, NULL));
    } else {
        __int128 value = 0;
        for (size_t i = 0; i < k; i++)
            if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, digits[i] - '0', &value))
                return sw_fail("line %d: a number is too large", l->line);
        push(l, T_INT, start, at)->number = jinja_from_int(value);
    }
    advance(l, at);
    return 0;
}

static size_t name_at(const lexer *l, size_t at)
{
    size_t start = at;
    while (at < l->n) {
        unsigned char c = (unsigned char)l->s[at];
        uint32_t cp;
        int len = 1;
        if (c >= 128) {
            len = sw_utf8_decode(l->s + at, l->n - at, &cp);
            utf8proc_category_t g = len ? utf8proc_category((utf8proc_int32_t)cp) : UTF8PROC_CATEGORY_CN;
            if (!(g >= UTF8PROC_CATEGORY_LU && g <= UTF8PROC_CATEGORY_NL) && cp != 0xb7)
                break;
        } else if (!(c == '_' || is_digit((char)c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))) {
            break;
        }
        at += (size_t)len;
    }
    return at - start;
}

static int lex_string(lexer *l)
{
    char quote = l->s[l->at];
    size_t at = l->at + 1;
    while (at < l->n && l->s[at] != quote)
        at += l->s[at] == '\\' && at + 1 < l->n ? 2 : 1;
    if (at >= l->n)
        return sw_fail("line %d: unexpected char %c at %zu (a string without its end)", l->line, quote, l->at);
    sw_span text;
    if (unescape(l, l->s + l->at + 1, at - l->at - 1, &text))
        return -1;
    push(l, T_STRING, l->at, at)->text = text;
    advance(l, at + 1);
    return 0;
}

static int lex_operator(lexer *l, char *open, size_t *depth, size_t max_depth)
{
    static const struct {
        char text[3];
        jtoken_type type;
    } operators[] = {
        {"//", T_FLOORDIV}, {"**", T_POW}, {"==", T_EQ}, {"!=", T_NE}, {">=", T_GE}, {"<=", T_LE}, {"+", T_ADD},
        {"-", T_SUB}, {"/", T_DIV}, {"*", T_MUL}, {"%", T_MOD}, {"~", T_TILDE}, {"[", T_LBRACKET}, {"]", T_RBRACKET},
        {"(", T_LPAREN}, {")", T_RPAREN}, {"{", T_LBRACE}, {"}", T_RBRACE}, {">", T_GT}, {"<", T_LT}, {"=", T_ASSIGN},
        {".", T_DOT}, {":", T_COLON}, {"|", T_PIPE}, {",", T_COMMA}, {";", T_SEMICOLON},
    };
    for (size_t i = 0; i < SW_COUNT(operators); i++) {
        const char *text = operators[i].text;
        if (!has(l, l->at, text))
            continue;
        char c = text[0];
        if (c == '(' || c == '[' || c == '{') {
            if (*depth == max_depth)
                return sw_fail("line %d: brackets are nested deeper than %zu", l->line, max_depth);
            open[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
        } else if (c == ')' || c == ']' || c == '}') {
            if (!*depth)
                return sw_fail("line %d: unexpected '%c'", l->line, c);
            if (open[--*depth] != c)
                return sw_fail("line %d: unexpected '%c', expected '%c'", l->line, c, open[*depth]);
        }
        push(l, operators[i].type, l->at, l->at + strlen(text));
        advance(l, l->at + strlen(text));
        return 0;
    }
    return sw_fail("line %d: unexpected char '%c' at %zu", l->line, l->s[l->at], l->at);
}

/* The inside of {% %} or {{ }}, up to and with its closing mark. */
static int lex_tag(lexer *l, const char *mark, jtoken_type end)
{
    char open[JINJA_MAX_NESTING];
    size_t depth = 0;
    for (;;) {
        skip_space(l);
        if (l->at >= l->n)
            return 0; /* the parser says what is missing */
        char sign;
        size_t close = depth ? 0 : closing(l, l->at, mark, &sign);
        if (close && !(end == T_PRINT_END && sign == '+')) {
            push(l, end, l->at, l->at + close);
            advance(l, l->at + close);
            after_tag(l, sign, end == T_BLOCK_END);
            return 0;
        }
        char c = l->s[l->at];
        size_t name = is_digit(c) ? 0 : name_at(l, l->at);
        int bad = 0;
        if (is_digit(c)) {
            bad = lex_number(l);
        } else if (name) {
            push(l, T_NAME, l->at, l->at + name);
            advance(l, l->at + name);
        } else if (c == '\'' || c == '"') {
            bad = lex_string(l);
        } else {
            bad = lex_operator(l, open, &depth, sizeof open);
        }
        if (bad)
            return -1;
    }
}

static size_t normalise_newlines(char *s, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\r') {
            s[k++] = '\n';
            i += i + 1 < n && s[i + 1] == '\n';
        } else {
            s[k++] = s[i];
        }
    }
    return k && s[k - 1] == '\n' ? k - 1 : k;
}

int jinja_lex(sw_arena *arena, char *source, size_t n, jtokens *out)
{
    n = normalise_newlines(source, n);
    lexer l = {.arena = arena, .s = source, .n = n, .line = 1, .line_starting = true, .out = out};
    while (l.at < n) {
        size_t from = l.at, at = from;
        for (;; at++) {
            const char *brace = at < n ? memchr(source + at, '{', n - at) : NULL;
            at = brace ? (size_t)(brace - source) : n;
            if (at + 1 >= n || source[at + 1] == '%' || source[at + 1] == '{' || source[at + 1] == '#')
                break;
        }
        if (at + 1 >= n) {
            push_data(&l, from, n, '+', false);
            break;
        }
        char kind = source[at + 1], sign, close_sign;
        size_t raw = tag_word(&l, at, "raw", &sign), close = raw ? closing(&l, raw, "%}", &close_sign) : 0;
        sign = at + 2 < n && (source[at + 2] == '-' || source[at + 2] == '+') ? source[at + 2] : 0;
        push_data(&l, from, at, sign, kind != '{');
        int bad;
        if (close && close_sign != '+') {
            advance(&l, raw + close);
            after_tag(&l, close_sign, false);
            bad = lex_raw(&l);
        } else {
            if (kind != '#')
                push(&l, kind == '%' ? T_BLOCK_BEGIN : T_PRINT_BEGIN, at, at + 2);
            advance(&l, at + 2 + (sign != 0));
            bad = kind == '#'   ? lex_comment(&l)
                  : kind == '%' ? lex_tag(&l, "%}", T_BLOCK_END)
                                : lex_tag(&l, "}}", T_PRINT_END);
        }
        if (bad)
            return -1;
    }
    push(&l, T_END, n, n);
    return 0;
}
