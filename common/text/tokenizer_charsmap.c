/* sentencepiece's normalisation rules: [size of the array in bytes, u32][a double array of Darts, u32 each][strings].
 */
#include "text/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

static uint32_t u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

int sw_charsmap_read(sw_charsmap *m, const void *blob, size_t n)
{
    const unsigned char *b = blob;
    if (n < 4)
        return sw_fail("the normalisation rules have %zu bytes: they are cut short", n);
    size_t size = u32(b);
    if (size > n - 4 || size % 4 || !size)
        return sw_fail("the normalisation rules claim an array of %zu bytes, and %zu follow", size, n - 4);
    m->n_unit = size / 4;
    m->unit = SW_NEW_ARRAY(uint32_t, m->n_unit);
    for (size_t i = 0; i < m->n_unit; i++)
        m->unit[i] = u32(b + 4 + 4 * i);
    m->n_text = n - 4 - size;
    m->text = sw_strndup((const char *)b + 4 + size, m->n_text);
    if (sw_utf8_valid_prefix(m->text, m->n_text) < m->n_text)
        return sw_fail("the normalisation rules give bytes that are no UTF-8");
    for (int c = 1; c < 128; c++) {
        uint32_t u = m->unit[0];
        size_t at = ((u >> 10) << ((u & 1u << 9) >> 6)) ^ (size_t)c;
        m->plain[c] = at >= m->n_unit || (m->unit[at] & (1u << 31 | 0xff)) != (uint32_t)c;
        m->apart[c] = true;
        if (m->plain[c])
            continue;
        u = m->unit[at];
        at ^= (u >> 10) << ((u & 1u << 9) >> 6);
        m->apart[c] = !(u >> 8 & 1);
        for (uint32_t next = 1; next < 128; next++)
            m->apart[c] &= (at ^ next) >= m->n_unit || (m->unit[at ^ next] & (1u << 31 | 0xff)) != next;
    }
    m->plain[0] = m->apart[0] = true;
    return 0;
}

void sw_charsmap_free(sw_charsmap *m)
{
    free(m->unit);
    free(m->text);
    *m = (sw_charsmap){0};
}

size_t sw_charsmap_find(const sw_charsmap *m, const char *s, size_t n, bool longest, sw_span *to)
{
    size_t best = 0, value = 0;
    unsigned char head = (unsigned char)s[0];
    if (!m->n_unit || (head < 0x80 && m->apart[head] && (n == 1 || (unsigned char)s[1] < 0x80)))
        return 0;
    uint32_t u = m->unit[0];
    size_t at = (size_t)(u >> 10) << ((u & 1u << 9) >> 6);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        at ^= c;
        if (!c || at >= m->n_unit)
            break;
        u = m->unit[at];
        if ((u & (1u << 31 | 0xff)) != c)
            break;
        at ^= (size_t)(u >> 10) << ((u & 1u << 9) >> 6);
        if (u >> 8 & 1 && at < m->n_unit) {
            best = i + 1;
            value = m->unit[at] & 0x7fffffff;
            if (!longest)
                break;
        }
    }
    if (!best || value >= m->n_text)
        return 0;
    /* Never from inside of a character. */
    if (((unsigned char)m->text[value] & 0xc0) == 0x80)
        return 0;
    *to = (sw_span){m->text + value, strlen(m->text + value)};
    return best;
}
