#include "data/words.h"

#include "base/memory.h"

#include <stdlib.h>
#include <utf8proc.h>

enum { SPACE, RUN, ALONE };

static int kind_of(uint32_t c)
{
    if ((c >= 0x3400 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0x20000 && c <= 0x3ffff))
        return ALONE;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT: case UTF8PROC_CATEGORY_LM: case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN: case UTF8PROC_CATEGORY_MC: case UTF8PROC_CATEGORY_ME: case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return RUN;
    case UTF8PROC_CATEGORY_ZS: case UTF8PROC_CATEGORY_ZL: case UTF8PROC_CATEGORY_ZP: case UTF8PROC_CATEGORY_CC: case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CN: return SPACE;
    default: return ALONE;
    }
}

void sw_words_of(const char *text, size_t from, size_t to, sw_words *out)
{
    int before = SPACE;
    for (size_t i = from, step; i < to; i += step) {
        uint32_t c = 0xfffd;
        int bytes = sw_utf8_decode(text + i, to - i, &c), kind = kind_of(c);
        step = bytes ? (size_t)bytes : 1;
        if (kind == RUN && before == RUN) {
            out->at[out->n - 1].end = i + step;
        } else if (kind != SPACE) {
            sw_word w = {i, i + step};
            SW_PUSH(*out, w);
        }
        before = kind;
    }
}

static bool is_space(const char *text, size_t start, size_t end)
{
    while (start < end && (text[start] == ' ' || text[start] == '\t' || text[start] == '\n' || text[start] == '\r'))
        start++;
    return start == end;
}

int sw_words_encode(sw_encoder *e, const char *text, size_t n, const sw_words *w, sw_ids *ids, int32_t *first)
{
    sw_ids offsets = {0};
    size_t before = ids->n, at = 0;
    int rc = sw_encode(e, text, n, true, ids, &offsets);
    size_t tokens = rc ? 0 : ids->n - before;
    for (size_t i = 0; i < w->n && !rc; i++) {
        for (; at < tokens; at++) { /* up to the first that reaches into the word */
            size_t start = (size_t)offsets.at[2 * at], end = (size_t)offsets.at[2 * at + 1];
            if (start < end && end + is_space(text, start, end) > w->at[i].start)
                break;
        }
        first[i] = at < tokens && (size_t)offsets.at[2 * at] < w->at[i].end ? (int32_t)at : -1;
    }
    free(offsets.at);
    return rc;
}
