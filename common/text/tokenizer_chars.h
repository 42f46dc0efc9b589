/* What tokenizers ask about characters: general categories, white space, words, punctuation. Unicode's own tables
 * (utf8proc), in one byte a code point. */
#ifndef SW_TEXT_TOKENIZER_CHARS_H
#define SW_TEXT_TOKENIZER_CHARS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Classes are utf8proc's categories, and one more: control characters that are white space. */
enum { SW_CLASS_CONTROL_SPACE = 30, SW_CLASS_LIMIT = 0x33400 };

#define SW_BITS(first, last) (((1u << ((last) - (first) + 1)) - 1) << (first))
enum sw_class_bits {
    SW_LU = 1u << 1,
    SW_LL = 1u << 2,
    SW_LT = 1u << 3,
    SW_LM = 1u << 4,
    SW_LO = 1u << 5,
    SW_LETTER = SW_BITS(1, 5),
    SW_NONSPACING = 1u << 6,
    SW_MARK = SW_BITS(6, 8),
    SW_DECIMAL = 1u << 9,
    SW_NUMBER = SW_BITS(9, 11),
    SW_CONNECTOR = 1u << 12,
    SW_PUNCTUATION = SW_BITS(12, 18),
    SW_SYMBOL = SW_BITS(19, 22),
    SW_SPACE = SW_BITS(23, 25) | 1u << SW_CLASS_CONTROL_SPACE,
    SW_OTHER_VISIBLE = 1u << 26 | 1u << 27 | 1u << 29, /* control, format, private use */
};

/* One byte a code point below SW_CLASS_LIMIT; filled on first use. */
const uint8_t *sw_class_table(void);
/* The class of what lies above. */
int sw_class_above(uint32_t cp);

static inline uint32_t sw_class_bit(const uint8_t *table, uint32_t cp)
{
    return 1u << (cp < SW_CLASS_LIMIT ? table[cp] : sw_class_above(cp));
}

bool sw_char_is(uint32_t cp, uint32_t bits); /* of one of these classes */
bool sw_char_is_space(uint32_t cp);          /* White_Space */
/* \w: letters, marks, decimal digits, connectors, and the other characters that are Alphabetic (UTS #18). */
bool sw_char_is_word(uint32_t cp);
bool sw_char_is_punctuation(uint32_t cp); /* P and ASCII's symbols */
/* Lower case, one or two characters; returns how many. */
int sw_char_lower(uint32_t cp, uint32_t out[2]);
int sw_char_script(uint32_t cp); /* 0: none */

/* One character of text that is known to be valid UTF-8. */
static inline uint32_t sw_char_at(const char *text, int *len)
{
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) {
        *len = 1;
        return s[0];
    }
    if (s[0] < 0xe0) {
        *len = 2;
        return (uint32_t)(s[0] & 0x1f) << 6 | (s[1] & 0x3f);
    }
    if (s[0] < 0xf0) {
        *len = 3;
        return (uint32_t)(s[0] & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3f);
    }
    *len = 4;
    return (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 | (uint32_t)(s[2] & 0x3f) << 6 | (s[3] & 0x3f);
}

/* Where the character before i begins. */
static inline size_t sw_char_before(const char *s, size_t i)
{
    do
        i--;
    while (i && ((unsigned char)s[i] & 0xc0) == 0x80);
    return i;
}

#endif
