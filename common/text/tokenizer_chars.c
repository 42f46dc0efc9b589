#include "text/tokenizer_chars.h"

#include "base/memory.h"

#include <pthread.h>
#include <utf8proc.h>

static uint8_t *table;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool control_space(uint32_t cp) { return (cp >= 9 && cp <= 13) || cp == 0x85; }

static void fill(void)
{
    table = sw_malloc(SW_CLASS_LIMIT);
    for (uint32_t cp = 0; cp < SW_CLASS_LIMIT; cp++)
        table[cp] = control_space(cp) ? SW_CLASS_CONTROL_SPACE : (uint8_t)utf8proc_category((utf8proc_int32_t)cp);
}

const uint8_t *sw_class_table(void)
{
    pthread_once(&once, fill);
    return table;
}

int sw_class_above(uint32_t cp) { return (int)utf8proc_category((utf8proc_int32_t)cp); }

bool sw_char_is(uint32_t cp, uint32_t bits) { return sw_class_bit(sw_class_table(), cp) & bits; }
bool sw_char_is_space(uint32_t cp) { return sw_char_is(cp, SW_SPACE); }

bool sw_char_is_word(uint32_t cp)
{
    if (sw_char_is(cp, SW_LETTER | SW_MARK | SW_DECIMAL | 1u << UTF8PROC_CATEGORY_NL | SW_CONNECTOR))
        return true;
    /* circled and squared letters, and the joiners */
    return (cp >= 0x24b6 && cp <= 0x24e9) || (cp >= 0x1f130 && cp <= 0x1f149) || (cp >= 0x1f150 && cp <= 0x1f169) ||
           (cp >= 0x1f170 && cp <= 0x1f189) || cp == 0x200c || cp == 0x200d;
}

bool sw_char_is_punctuation(uint32_t cp)
{
    if (cp < 0x80)
        return (cp >= '!' && cp <= '/') || (cp >= ':' && cp <= '@') || (cp >= '[' && cp <= '`') ||
               (cp >= '{' && cp <= '~');
    return sw_char_is(cp, SW_PUNCTUATION);
}

int sw_char_lower(uint32_t cp, uint32_t out[2])
{
    if (cp == 0x130) { /* the only one that becomes two */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
    return 1;
}
