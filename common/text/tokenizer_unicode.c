/* Unicode normal forms (UAX #15) that say of each character what became of those before it. */
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct sw_unit unit;

/* Characters which are younger than the tables of Hugging Face's normalisers (Unicode 9), for which they are letters
 * without a decomposition or a combining class. Vocabularies are used with those, so that ids depend on it. */
static const struct {
    uint32_t first, last;
} younger[] = {{0x7fd, 0x7fd},     {0x897, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},     {0xc3c, 0xc3c},
               {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x1715, 0x1715},   {0x1abf, 0x1aeb},   {0x1df6, 0x1dfa},
               {0x32ff, 0x32ff},   {0xa7f1, 0xa7f4},   {0xa82c, 0xa82c},   {0xab69, 0xab69},   {0x105c0, 0x105ff},
               {0x10780, 0x107ba}, {0x10d24, 0x10d27}, {0x10d69, 0x10d6d}, {0x10eab, 0x10eac}, {0x10efa, 0x10eff},
               {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x11380, 0x113e2},
               {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11935, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
               {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42},
               {0x16100, 0x16139}, {0x16d40, 0x16d79}, {0x16ff0, 0x16ff1}, {0x1ccd6, 0x1ccf9}, {0x1e030, 0x1e08f},
               {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1e5ee, 0x1e5ef},
               {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9}};

static bool is_younger(uint32_t cp)
{
    if (cp < younger[0].first)
        return false;
    size_t from = 0, to = SW_COUNT(younger);
    while (to - from > 1) {
        size_t mid = (from + to) / 2;
        if (younger[mid].first <= cp)
            from = mid;
        else
            to = mid;
    }
    return cp <= younger[from].last;
}

/* Characters beyond ASCII that NFC leaves alone whatever stands around them, one bit each. */
static uint64_t *inert;
static pthread_once_t inert_once = PTHREAD_ONCE_INIT;

static void fill_inert(void)
{
    inert = sw_calloc(SW_CLASS_LIMIT / 64, sizeof *inert);
    const uint8_t *classes = sw_class_table();
    for (uint32_t cp = 0; cp < SW_CLASS_LIMIT; cp++) {
        if (1u << classes[cp] & SW_MARK || (cp >= 0x1160 && cp <= 0x11ff))
            continue;
        const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
        if (p->combining_class)
            continue;
        bool same = true;
        if (p->decomp_seqindex != UINT16_MAX) {
            utf8proc_int32_t out[32];
            int last = 0;
            utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, out, 32, UTF8PROC_DECOMPOSE, &last);
            n = n > 0 && n <= 32 ? utf8proc_normalize_utf32(out, n, UTF8PROC_COMPOSE | UTF8PROC_STABLE) : 0;
            same = n == 1 && out[0] == (utf8proc_int32_t)cp;
        }
        if (same)
            inert[cp / 64] |= UINT64_C(1) << (cp % 64);
    }
}

bool sw_text_is_nfc(const char *s, size_t n)
{
    pthread_once(&inert_once, fill_inert);
    for (size_t i = 0; i < n;) {
        if ((unsigned char)s[i] < 0x80) {
            i++;
            continue;
        }
        int len;
        uint32_t cp = sw_char_at(s + i, &len);
        if (cp >= SW_CLASS_LIMIT ? cp >= 0x1d000 && cp < 0x1e000 : !(inert[cp / 64] >> (cp % 64) & 1))
            return false;
        i += (size_t)len;
    }
    return true;
}

size_t sw_grapheme_end(const char *s, size_t n, size_t i)
{
    int len;
    utf8proc_int32_t state = 0, before = (utf8proc_int32_t)sw_char_at(s + i, &len);
    for (i += (size_t)len; i < n; i += (size_t)len) {
        utf8proc_int32_t c = (utf8proc_int32_t)sw_char_at(s + i, &len);
        if ((before >= ' ' && before < 0x7f && c < 0x300) || utf8proc_grapheme_break_stateful(before, c, &state))
            break;
        before = c;
    }
    return i;
}

/* Stable order of marks by their class, in linear time however many there are. */
static void sort_marks(unit *u, size_t n)
{
    if (n < 24) {
        for (size_t i = 1; i < n; i++) {
            unit x = u[i];
            size_t j = i;
            for (; j && u[j - 1].combining > x.combining; j--)
                u[j] = u[j - 1];
            u[j] = x;
        }
        return;
    }
    size_t count[257] = {0};
    unit *sorted = sw_malloc(n * sizeof *sorted);
    for (size_t i = 0; i < n; i++)
        count[u[i].combining + 1]++;
    for (int c = 0; c < 256; c++)
        count[c + 1] += count[c];
    for (size_t i = 0; i < n; i++)
        sorted[count[u[i].combining]++] = u[i];
    memcpy(u, sorted, n * sizeof *sorted);
    free(sorted);
}

static bool composed(uint32_t a, uint32_t b, uint32_t *out)
{
    if (b < 0x300 || is_younger(a) || is_younger(b))
        return false;
    utf8proc_int32_t pair[3] = {(utf8proc_int32_t)a, (utf8proc_int32_t)b, 0};
    if (utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) != 1)
        return false;
    *out = (uint32_t)pair[0];
    return true;
}

static void compose(sw_work *w)
{
    unit *u = w->units.at, k = {0};
    size_t n = w->units.n, out = 0;
    struct {
        unit *at;
        size_t n, cap;
    } held = {0};
    bool have = false;
    int last = -1; /* class of the mark held last */
    for (size_t i = 0; i < n; i++) {
        unit c = u[i];
        uint32_t r;
        if (!have) {
            if (c.combining)
                u[out++] = c;
            else
                k = c;
            have = !c.combining;
            continue;
        }
        bool blocked = last >= 0 && last >= c.combining;
        if (!blocked && composed(k.cp, c.cp, &r)) {
            k.cp = r;
            k.change += c.change - 1;
            continue;
        }
        if (!c.combining) {
            u[out++] = k;
            for (size_t j = 0; j < held.n; j++)
                u[out++] = held.at[j];
            held.n = 0;
            k = c;
            last = -1;
        } else {
            SW_PUSH(held, c);
            last = c.combining;
        }
    }
    if (have)
        u[out++] = k;
    for (size_t j = 0; j < held.n; j++)
        u[out++] = held.at[j];
    w->units.n = out;
    free(held.at);
}

void sw_unicode_normal(sw_work *w, const char *text, size_t n, bool compatible, bool composing)
{
    w->units.n = 0;
    size_t pending = 0; /* units from here on are marks in no order yet */
    for (size_t i = 0; i < n;) {
        int len, last = 0;
        utf8proc_int32_t parts[32];
        uint32_t cp = sw_char_at(text + i, &len);
        utf8proc_ssize_t m = 1;
        parts[0] = (utf8proc_int32_t)cp;
        if (cp >= 0x80 && !is_younger(cp)) {
            m = utf8proc_decompose_char((utf8proc_int32_t)cp, parts, 32,
                                        compatible ? UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT : UTF8PROC_DECOMPOSE, &last);
            if (m < 1 || m > 32) {
                m = 1;
                parts[0] = (utf8proc_int32_t)cp;
            }
        }
        for (int k = 0; k < (int)m; k++) {
            uint32_t part = (uint32_t)parts[k];
            uint8_t class =
                part < 0x300 || is_younger(part) ? 0 : (uint8_t)utf8proc_get_property(parts[k])->combining_class;
            if (!class && w->units.n > pending)
                sort_marks(w->units.at + pending, w->units.n - pending);
            SW_PUSH(w->units, ((unit){(uint32_t)parts[k], k > 0, class}));
            if (!class)
                pending = w->units.n;
        }
        i += (size_t)len;
    }
    if (w->units.n > pending)
        sort_marks(w->units.at + pending, w->units.n - pending);
    if (composing)
        compose(w);
}
