#include "text/tokenizer_base64.h"

#include <stdint.h>

static int value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int sw_base64_decode(const char *s, size_t n, sw_buf *out)
{
    size_t end = n;
    while (end && n - end < 2 && s[end - 1] == '=')
        end--;
    uint32_t bits = 0;
    int have = 0;
    sw_buf_reserve(out, end / 4 * 3 + 4);
    for (size_t i = 0; i < end; i++) {
        int v = value(s[i]);
        if (v < 0)
            return sw_fail("character %zu is none of base64", i);
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out->at[out->n++] = (char)(bits >> have);
        }
    }
    if (end % 4 == 1)
        return sw_fail("base64 of %zu characters is cut short", n);
    out->at[out->n] = 0;
    return 0;
}

void sw_base64_encode(const void *bytes, size_t n, sw_buf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *b = bytes;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)b[i] << 16 | (i + 1 < n ? (uint32_t)b[i + 1] << 8 : 0) | (i + 2 < n ? b[i + 2] : 0u);
        sw_buf_putc(out, digits[v >> 18]);
        sw_buf_putc(out, digits[v >> 12 & 63]);
        sw_buf_putc(out, i + 1 < n ? digits[v >> 6 & 63] : '=');
        sw_buf_putc(out, i + 2 < n ? digits[v & 63] : '=');
    }
}
