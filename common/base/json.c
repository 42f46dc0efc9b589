#include "base/json.h"

#include "base/fileio.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 500 };

/* Numbers whose spelling says more than their double does, by their place among all numbers of the text. */
typedef struct spellings {
    struct {
        size_t number, at, n;
    } *at;
    size_t n, cap;
} spellings;

/* Length of the number at s; *telling: it is written with a point or exponent though whole, or has too many digits. */
static size_t scan_number(const char *s, size_t n, bool *telling)
{
    size_t end = 0, digits = 0;
    bool real = false;
    for (; end < n && (strchr("+-.eE", s[end]) || (s[end] >= '0' && s[end] <= '9')) && s[end]; end++) {
        digits += s[end] >= '0' && s[end] <= '9';
        real |= s[end] == '.' || s[end] == 'e' || s[end] == 'E';
    }
    *telling = real || digits > 15;
    return end;
}

/* Gives the numbers under v that are listed their spelling, in the order of the text. */
static void keep_spellings(cJSON *v, const char *s, const spellings *kept, size_t *number, size_t *next)
{
    for (; v; v = v->next) {
        if (cJSON_IsNumber(v)) {
            if (*next < kept->n && kept->at[*next].number == *number) {
                v->valuestring = cJSON_malloc(kept->at[*next].n + 1);
                if (v->valuestring) {
                    memcpy(v->valuestring, s + kept->at[*next].at, kept->at[*next].n);
                    v->valuestring[kept->at[*next].n] = 0;
                }
                ++*next;
            }
            ++*number;
        } else if (v->child) {
            keep_spellings(v->child, s, kept, number, next);
        }
    }
}

/* One pass before cJSON: bounds the nesting, and writes what cJSON cannot read in a form it can. A JSON
 * escape of U+0000 would end its C string: it becomes C0 80, which valid UTF-8 never holds. The bare words of
 * Python become numbers that strtod reads back (1e999 is infinity; NaN becomes null). */
static int rewrite(const char *s, size_t n, sw_buf *out, bool *changed, spellings *kept)
{
    size_t numbers = 0;
    int depth = 0;
    bool in_string = false;
    size_t plain = 0;
    *changed = false;
    for (size_t i = 0; i < n; i++) {
        const char *with = NULL;
        size_t take = 0;
        if (in_string) {
            if (s[i] == '\\') {
                if (n - i >= 6 && !memcmp(s + i, "\\u0000", 6))
                    with = "\xc0\x80", take = 6;
                else
                    i++;
            } else if (s[i] == '"') {
                in_string = false;
            }
        } else if (s[i] == '"') {
            in_string = true;
        } else if (s[i] == '[' || s[i] == '{') {
            if (++depth > MAX_DEPTH)
                return sw_fail("JSON at byte %zu: nested deeper than %d", i, MAX_DEPTH);
        } else if (s[i] == ']' || s[i] == '}') {
            depth--;
        } else if (s[i] == 'I' && n - i >= 8 && !memcmp(s + i, "Infinity", 8)) {
            with = "1e999", take = 8, numbers++;
        } else if (s[i] == 'N' && n - i >= 3 && !memcmp(s + i, "NaN", 3)) {
            with = "null", take = 3;
        } else if ((s[i] >= '0' && s[i] <= '9') || (s[i] == '-' && i + 1 < n && s[i + 1] != 'I')) {
            bool telling;
            size_t len = scan_number(s + i, n - i, &telling);
            if (telling) {
                SW_RESERVE(*kept, kept->n + 1);
                kept->at[kept->n].number = numbers;
                kept->at[kept->n].at = i;
                kept->at[kept->n++].n = len;
            }
            numbers++;
            i += len - 1;
        } else if (!s[i]) {
            return sw_fail("JSON at byte %zu: a NUL byte outside a string", i);
        }
        if (with) {
            sw_buf_add(out, s + plain, i - plain);
            sw_buf_puts(out, with);
            i += take - 1;
            plain = i + 1;
            *changed = true;
        }
    }
    if (*changed)
        sw_buf_add(out, s + plain, n - plain);
    return 0;
}

cJSON *sw_json_parse(const char *text, size_t n)
{
    size_t good = sw_utf8_valid_prefix(text, n);
    if (good < n)
        return sw_fail_null("JSON at byte %zu: invalid UTF-8 (byte 0x%02x)", good, (unsigned char)text[good]);
    sw_buf b = {0};
    spellings kept = {0};
    bool changed;
    if (rewrite(text, n, &b, &changed, &kept)) {
        sw_buf_free(&b);
        free(kept.at);
        return NULL;
    }
    const char *s = changed ? b.at : text, *end = NULL;
    size_t len = changed ? b.n : n;
    cJSON *v = len ? cJSON_ParseWithLengthOpts(s, len, &end, 0) : NULL;
    if (v) {
        while (end < s + len && (*end == ' ' || *end == '\t' || *end == '\n' || *end == '\r'))
            end++;
        if (end < s + len) {
            cJSON_Delete(v);
            v = NULL;
        }
    } else {
        end = len ? cJSON_GetErrorPtr() : s;
    }
    if (!v) {
        size_t at = end && end >= s && end <= s + len ? (size_t)(end - s) : len, next = at, some = 0;
        while (next < len && (s[next] == ' ' || s[next] == '\t' || s[next] == '\n' || s[next] == '\r'))
            next++;
        while (some < 12 && at + some < len && (unsigned char)s[at + some] >= ' ')
            some++;
        if (next >= len)
            sw_fail("JSON at byte %zu: the text ends inside a value", len);
        else if (!some)
            sw_fail("JSON at byte %zu: unexpected byte 0x%02x", at, (unsigned char)s[at]);
        else
            sw_fail("JSON at byte %zu: unexpected '%.*s'", at, (int)some, s + at);
    }
    if (v && kept.n)
        keep_spellings(v, text, &kept, &(size_t){0}, &(size_t){0});
    free(kept.at);
    sw_buf_free(&b);
    return v;
}

cJSON *sw_json_load(const char *path)
{
    sw_buf b = {0};
    if (sw_read_file(path, &b))
        return NULL;
    cJSON *v = sw_json_parse(b.at, b.n);
    if (!v)
        sw_fail_in("%s", path);
    sw_buf_free(&b);
    return v;
}

const char *sw_json_number_text(const cJSON *v) { return cJSON_IsNumber(v) ? v->valuestring : NULL; }

sw_span sw_json_text(const cJSON *v, sw_buf *buf)
{
    if (!cJSON_IsString(v))
        return (sw_span){0};
    const char *s = v->valuestring, *nul = strstr(s, "\xc0\x80");
    if (!nul)
        return (sw_span){s, strlen(s)};
    sw_buf_clear(buf);
    for (; nul; s = nul + 2, nul = strstr(s, "\xc0\x80")) {
        sw_buf_add(buf, s, (size_t)(nul - s));
        sw_buf_putc(buf, 0);
    }
    sw_buf_puts(buf, s);
    return (sw_span){buf->at, buf->n};
}

const cJSON *sw_json_get(const cJSON *o, const char *key)
{
    const cJSON *v = cJSON_IsObject(o) ? cJSON_GetObjectItemCaseSensitive(o, key) : NULL;
    return cJSON_IsNull(v) ? NULL : v;
}

const char *sw_json_kind(const cJSON *v)
{
    if (!v)
        return "nothing";
    switch (v->type & 0xff) {
    case cJSON_False:
    case cJSON_True: return "a boolean";
    case cJSON_NULL: return "null";
    case cJSON_Number: return "a number";
    case cJSON_String: return "a string";
    case cJSON_Array: return "an array";
    default: return "an object";
    }
}

int sw_json_i64(const cJSON *o, const char *key, int64_t min, int64_t max, int64_t missing, int64_t *out)
{
    const cJSON *v = sw_json_get(o, key);
    *out = missing;
    if (!v)
        return 0;
    double d = v->valuedouble;
    if (!cJSON_IsNumber(v) || d != floor(d) || d < -9007199254740992.0 || d > 9007199254740992.0)
        return sw_fail("\"%s\": a whole number is needed, not %s", key, cJSON_IsNumber(v) ? "a fraction" : sw_json_kind(v));
    if (d < (double)min || d > (double)max)
        return sw_fail("\"%s\": %.0f is not between %lld and %lld", key, d, (long long)min, (long long)max);
    *out = (int64_t)d;
    return 0;
}

int sw_json_f64(const cJSON *o, const char *key, double missing, double *out)
{
    const cJSON *v = sw_json_get(o, key);
    *out = missing;
    if (!v)
        return 0;
    if (!cJSON_IsNumber(v))
        return sw_fail("\"%s\": a number is needed, not %s", key, sw_json_kind(v));
    *out = v->valuedouble;
    return 0;
}

int sw_json_bool(const cJSON *o, const char *key, bool missing, bool *out)
{
    const cJSON *v = sw_json_get(o, key);
    *out = missing;
    if (!v)
        return 0;
    if (!cJSON_IsBool(v))
        return sw_fail("\"%s\": true or false is needed, not %s", key, sw_json_kind(v));
    *out = cJSON_IsTrue(v);
    return 0;
}

int sw_json_str(const cJSON *o, const char *key, const char *missing, const char **out)
{
    const cJSON *v = sw_json_get(o, key);
    *out = missing;
    if (!v)
        return 0;
    if (!cJSON_IsString(v))
        return sw_fail("\"%s\": a string is needed, not %s", key, sw_json_kind(v));
    *out = v->valuestring;
    return 0;
}

void sw_json_number(sw_buf *out, double v)
{
    if (!isfinite(v)) {
        sw_buf_puts(out, "null");
        return;
    }
    if (v == floor(v) && fabs(v) < 1e15) {
        sw_buf_printf(out, "%.0f", v == 0 ? 0.0 : v);
        return;
    }
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    sw_buf_puts(out, text);
}

static void print(sw_buf *out, const cJSON *v, int indent)
{
    sw_buf text = {0};
    switch (v->type & 0xff) {
    case cJSON_False: sw_buf_puts(out, "false"); return;
    case cJSON_True: sw_buf_puts(out, "true"); return;
    case cJSON_Number: { /* digits that a double cannot hold are kept */
        const char *spelt = sw_json_number_text(v);
        if (spelt && !strpbrk(spelt, ".eEIN") && strtod(spelt, NULL) == v->valuedouble)
            sw_buf_puts(out, spelt);
        else if (indent >= 0 && spelt && isfinite(v->valuedouble) && v->valuedouble == floor(v->valuedouble) && fabs(v->valuedouble) < 1e15)
            sw_buf_printf(out, "%.1f", v->valuedouble); /* configurations have readers that tell 2.0 from 2 */
        else
            sw_json_number(out, v->valuedouble);
        return;
    }
    case cJSON_String: {
        sw_span s = sw_json_text(v, &text);
        sw_buf_json(out, s.at, s.n);
        sw_buf_free(&text);
        return;
    }
    case cJSON_Raw: sw_buf_puts(out, v->valuestring); return;
    case cJSON_Array:
    case cJSON_Object: {
        bool object = cJSON_IsObject(v);
        sw_buf_putc(out, object ? '{' : '[');
        for (const cJSON *c = v->child; c; c = c->next) {
            if (c != v->child)
                sw_buf_puts(out, indent < 0 ? ", " : ",");
            if (indent >= 0)
                sw_buf_printf(out, "\n%*s", 2 * (indent + 1), "");
            if (object) {
                sw_buf_json(out, c->string, strlen(c->string));
                sw_buf_puts(out, ": ");
            }
            print(out, c, indent < 0 ? -1 : indent + 1);
        }
        if (indent >= 0 && v->child)
            sw_buf_printf(out, "\n%*s", 2 * indent, "");
        sw_buf_putc(out, object ? '}' : ']');
        return;
    }
    default: sw_buf_puts(out, "null");
    }
}

void sw_json_print(sw_buf *out, const cJSON *v) { print(out, v, -1); }

void sw_json_print_pretty(sw_buf *out, const cJSON *v)
{
    print(out, v, 0);
    sw_buf_putc(out, '\n');
}
