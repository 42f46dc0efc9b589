#include "text/tokenizer_chars.h"

#include "base/memory.h"

#include <pthread.h>
#include <utf8proc.h>

static uint8_t *table;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool control_space(uint32_t cp) { return (cp >= 9 && cp <= 13) || cp == 0x85; }

/* What Unicode 15.1 and 16 added: the expressions of Hugging Face know these (Oniguruma 6.9.10), an older utf8proc does
 * not. Where it does, it says the same. */
enum {
    LL = UTF8PROC_CATEGORY_LL,
    LM = UTF8PROC_CATEGORY_LM,
    LO = UTF8PROC_CATEGORY_LO,
    LU = UTF8PROC_CATEGORY_LU,
    MC = UTF8PROC_CATEGORY_MC,
    MN = UTF8PROC_CATEGORY_MN,
    ND = UTF8PROC_CATEGORY_ND,
    PD = UTF8PROC_CATEGORY_PD,
    PO = UTF8PROC_CATEGORY_PO,
    SM = UTF8PROC_CATEGORY_SM,
    SO = UTF8PROC_CATEGORY_SO,
};
static const struct {
    uint32_t first, last;
    int class;
} added[] = {{0x897, 0x897, MN},     {0x1b4e, 0x1b4f, PO},   {0x1b7f, 0x1b7f, PO},   {0x1c89, 0x1c89, LU},
             {0x1c8a, 0x1c8a, LL},   {0x2427, 0x2429, SO},   {0x2ffc, 0x2fff, SO},   {0x31e4, 0x31e5, SO},
             {0x31ef, 0x31ef, SO},   {0xa7cb, 0xa7cc, LU},   {0xa7cd, 0xa7cd, LL},   {0xa7da, 0xa7da, LU},
             {0xa7db, 0xa7db, LL},   {0xa7dc, 0xa7dc, LU},   {0x105c0, 0x105f3, LO}, {0x10d40, 0x10d49, ND},
             {0x10d4a, 0x10d4d, LO}, {0x10d4e, 0x10d4e, LM}, {0x10d4f, 0x10d4f, LO}, {0x10d50, 0x10d65, LU},
             {0x10d69, 0x10d6d, MN}, {0x10d6e, 0x10d6e, PD}, {0x10d6f, 0x10d6f, LM}, {0x10d70, 0x10d85, LL},
             {0x10d8e, 0x10d8f, SM}, {0x10ec2, 0x10ec4, LO}, {0x10efc, 0x10efc, MN}, {0x11380, 0x11389, LO},
             {0x1138b, 0x1138b, LO}, {0x1138e, 0x1138e, LO}, {0x11390, 0x113b5, LO}, {0x113b7, 0x113b7, LO},
             {0x113b8, 0x113ba, MC}, {0x113bb, 0x113c0, MN}, {0x113c2, 0x113c2, MC}, {0x113c5, 0x113c5, MC},
             {0x113c7, 0x113ca, MC}, {0x113cc, 0x113cd, MC}, {0x113ce, 0x113ce, MN}, {0x113cf, 0x113cf, MC},
             {0x113d0, 0x113d0, MN}, {0x113d1, 0x113d1, LO}, {0x113d2, 0x113d2, MN}, {0x113d3, 0x113d3, LO},
             {0x113d4, 0x113d5, PO}, {0x113d7, 0x113d8, PO}, {0x113e1, 0x113e2, MN}, {0x116d0, 0x116e3, ND},
             {0x11bc0, 0x11be0, LO}, {0x11be1, 0x11be1, PO}, {0x11bf0, 0x11bf9, ND}, {0x11f5a, 0x11f5a, MN},
             {0x13460, 0x143fa, LO}, {0x16100, 0x1611d, LO}, {0x1611e, 0x16129, MN}, {0x1612a, 0x1612c, MC},
             {0x1612d, 0x1612f, MN}, {0x16130, 0x16139, ND}, {0x16d40, 0x16d42, LM}, {0x16d43, 0x16d6a, LO},
             {0x16d6b, 0x16d6c, LM}, {0x16d6d, 0x16d6f, PO}, {0x16d70, 0x16d79, ND}, {0x18cff, 0x18cff, LO},
             {0x1cc00, 0x1ccef, SO}, {0x1ccf0, 0x1ccf9, ND}, {0x1cd00, 0x1ceb3, SO}, {0x1e5d0, 0x1e5ed, LO},
             {0x1e5ee, 0x1e5ef, MN}, {0x1e5f0, 0x1e5f0, LO}, {0x1e5f1, 0x1e5fa, ND}, {0x1e5ff, 0x1e5ff, PO},
             {0x1f8b2, 0x1f8bb, SO}, {0x1f8c0, 0x1f8c1, SO}, {0x1fa89, 0x1fa89, SO}, {0x1fa8f, 0x1fa8f, SO},
             {0x1fabe, 0x1fabe, SO}, {0x1fac6, 0x1fac6, SO}, {0x1fadc, 0x1fadc, SO}, {0x1fadf, 0x1fadf, SO},
             {0x1fae9, 0x1fae9, SO}, {0x1fbcb, 0x1fbef, SO}, {0x2ebf0, 0x2ee5d, LO}};

static void fill(void)
{
    table = sw_malloc(SW_CLASS_LIMIT);
    for (uint32_t cp = 0; cp < SW_CLASS_LIMIT; cp++)
        table[cp] = control_space(cp) ? SW_CLASS_CONTROL_SPACE : (uint8_t)utf8proc_category((utf8proc_int32_t)cp);
    for (size_t i = 0; i < SW_COUNT(added); i++)
        for (uint32_t cp = added[i].first; cp <= added[i].last; cp++)
            if (table[cp] == UTF8PROC_CATEGORY_CN)
                table[cp] = (uint8_t)added[i].class;
}

const uint8_t *sw_class_table(void)
{
    pthread_once(&once, fill);
    return table;
}

int sw_class_above(uint32_t cp) { return (int)utf8proc_category((utf8proc_int32_t)cp); } /* none was added there */

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
