/* Tokenizers from the tokenizer.ggml.* metadata of GGUF: put in the words of tokenizer.json, and read as that. */
#include "text/tokenizer_parts.h"
#include "text/tokenizer_splits.h"

#include "base/json.h"

#include "store/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

/* ---- tokenizer.ggml.pre: what cuts words. Expressions of Isolated splits, in order; then the bytes are spelt. */

#define ASCII_SYMBOLS "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]"
#define DEEPSEEK3                                                                                                      \
    ASCII_SYMBOLS "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*" SW_SPLIT_WHITE
#define CJK "[\\u4e00-\\u9fa5\\u3040-\\u309f\\u30a0-\\u30ff]+"
#define DEEPSEEK_CJK "[\\u4e00-\\u9fa5\\u0800-\\u4e00\\uac00-\\ud7ff]+"
#define SENTENCES " ?[^(\\s|.,!?\\u2026\\u3002\\uff0c\\u3001\\u0964\\u06d4\\u060c)]+"
/* Letters with case (categories Lu, Ll, Lt as of the Unicode that DeepSeek's file was written with). */
#define DEEPSEEK_LETTERS                                                                                               \
    "A-Za-z\\u00b5\\u00c0-\\u00d6\\u00d8-\\u00f6\\u00f8-\\u01ba\\u01bc-\\u01bf\\u01c4-\\u0293\\u0295-\\u02af\\u0370-"  \
    "\\u0373\\u0376\\u0377"                                                                                            \
    "\\u037b-\\u037d\\u037f\\u0386\\u0388-\\u038a\\u038c\\u038e-\\u03a1\\u03a3-\\u03f5\\u03f7-\\u0481\\u048a-"         \
    "\\u052f\\u0531-\\u0556\\u10a0"                                                                                    \
    "-\\u10c5\\u13a0-\\u13f5\\u13f8-\\u13fd\\u1c90-\\u1cba\\u1cbd-\\u1cbf\\u1d00-\\u1d2b\\u1d6b-\\u1d77\\u1d79-"       \
    "\\u1d9a\\u1e00-\\u1f15\\u1f18"                                                                                    \
    "-\\u1f1d\\u1f20-\\u1f45\\u1f48-\\u1f4d\\u1f50-\\u1f57\\u1f59\\u1f5b\\u1f5d\\u1f5f-\\u1f7d\\u1f80-\\u1fb4\\u1fb6-" \
    "\\u1fbc\\u1fbe\\u1fc2"                                                                                            \
    "-\\u1fc4\\u1fc6-\\u1fcc\\u1fd0-\\u1fd3\\u1fd6-\\u1fdb\\u1fe0-\\u1fec\\u1ff2-\\u1ff4\\u1ff6-"                      \
    "\\u1ffc\\u2102\\u2107\\u210a-\\u2113\\u2115"                                                                      \
    "\\u2119-\\u211d\\u2124\\u2126\\u2128\\u212a-\\u212d\\u212f-\\u2134\\u2139\\u213c-\\u213f\\u2145-"                 \
    "\\u2149\\u214e\\u2183\\u2184\\u2c00"                                                                              \
    "-\\u2c7b\\u2c7e-\\u2ce4\\u2ceb-\\u2cee\\u2cf2\\u2cf3\\ua640-\\ua66d\\ua680-\\ua69b\\ua722-\\ua76f\\ua771-"        \
    "\\ua787\\ua78b-\\ua78e\\uab70"                                                                                    \
    "-\\uabbf\\ufb00-\\ufb06\\ufb13-\\ufb17\\uff21-\\uff3a\\uff41-\\uff5a\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}"   \
    "\\x{104d8}-\\x{104fb}"                                                                                            \
    "\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

enum { IGNORE_MERGES = 1, ADD_BOS = 2, NFC = 4, ADD_SEP = 8, SPACES = 16, WORDS = 32 };

/* A split that is no expression: a part of tokenizer.json, in braces. */
#define DIGITS "{\"type\": \"Digits\", \"individual_digits\": true}"
#define DIGIT_RUNS "{\"type\": \"Digits\", \"individual_digits\": false}"
#define PUNCTUATION_RUNS "{\"type\": \"Punctuation\", \"behavior\": \"Contiguous\"}"
#define BYTE_LEVEL "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": %s}"

static const struct {
    const char *names; /* separated by spaces */
    int flags;
    const char *cuts[6];
} pres[] = {
    {"default", 0, {"[\\p{P}$+<=>\\^~|]+", SW_SPLIT_RAW_GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {"falcon", 0, {PUNCTUATION_RUNS, SW_SPLIT_GPT2, DIGIT_RUNS, "[0-9][0-9][0-9]"}},
    {"gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert olmo jais trillion "
     "granite-docling exaone4",
     0,
     {SW_SPLIT_GPT2}},
    {"mpt", NFC, {SW_SPLIT_GPT2}},
    {"jina-v1-en jina-v2-code roberta-bpe", ADD_SEP, {SW_SPLIT_GPT2}},
    {"starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", 0, {DIGITS, SW_SPLIT_GPT2}},
    {"llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     IGNORE_MERGES | ADD_BOS,
     {SW_SPLIT_CL100K("\\p{N}{1,3}")}},
    {"dbrx smaug-bpe glm4 chatglm-bpe", 0, {SW_SPLIT_CL100K("\\p{N}{1,3}")}},
    {"qwen2 deepseek-r1-qwen kormo f2llmv2 megrez", NFC, {SW_SPLIT_CL100K("\\p{N}")}},
    {"stablelm2 hunyuan solar-open grok-2", 0, {SW_SPLIT_CL100K("\\p{N}")}},
    {"qwen35",
     NFC,
     {SW_SPLIT_ANY_CASE "|" SW_SPLIT_FRONT
                        "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SW_SPLIT_WHITE}},
    {"minicpm5", IGNORE_MERGES, {"\\p{N}{1,3}", SW_SPLIT_CL100K("\\p{N}+")}},
    {"deepseek-llm",
     0,
     {"[\\r\\n]", "\\s?[" DEEPSEEK_LETTERS "]+",
      "\\s?[!-/:-~\\uff01-\\uff0f\\uff1a-\\uff5e\\u2018-\\u201f\\u3000-\\u3002]+", "\\s+$", DEEPSEEK_CJK, DIGITS}},
    {"deepseek-coder", 0, {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", DEEPSEEK_CJK, DIGITS}},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4", 0, {"\\p{N}{1,3}", CJK, DEEPSEEK3}},
    {"spark2_5",
     0,
     {"\\p{N}{1,3}", CJK,
      ASCII_SYMBOLS "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+",
      "\\p{N}"}},
    {"afmoe",
     0,
     {"\\p{N}{1,3}(?=(?:\\p{N}{3})*(?!\\p{N}))",
      "[\\u4e00-\\u9fff\\u3400-\\u4dbf\\uf900-\\ufaff\\u3040-\\u309f\\u30a0-\\u30ff\\uff65-\\uff9f\\u2e80-"
      "\\u2fdf\\u0e00-\\u0e7f\\u0e80-\\u0eff"
      "\\u1780-\\u17ff\\u1000-\\u109f\\uaa60-\\uaa7f\\ua9e0-\\ua9ff\\uac00-\\ud7af\\u1100-\\u11ff]+",
      DEEPSEEK3}},
    {"tekken",
     IGNORE_MERGES | ADD_BOS,
     {SW_SPLIT_CASED(SW_SPLIT_UPPERS, SW_SPLIT_LOWERS, "") "\\p{N}|" SW_SPLIT_SYMBOLS "[\\r\\n/]*" SW_SPLIT_WHITE}},
    {"gpt-4o llama4 kanana2 talkie minimax-m2", 0, {SW_SPLIT_O200K}},
    {"granite-embed-multi-97m", IGNORE_MERGES, {SW_SPLIT_O200K}},
    {"tiny_aya cohere2moe", 0, {"\\d{1,3}(?=(?:\\d{3})*\\b)", SW_SPLIT_O200K}},
    {"kimi-k2", IGNORE_MERGES, {SW_SPLIT_KIMI}},
    {"youtu",
     IGNORE_MERGES,
     {"[\\uac00-\\ud7a3\\u3131-\\u318e]+|["
      "\\uff01\\u2026\\u201c\\u201d\\u2018\\u2019\\u2014\\uff1a\\uff1b\\uff0c\\u3001-\\u303f\\ufe30-\\ufe4f]+|[\\u3105-"
      "\\u312f]+|" CJK,
      SW_SPLIT_CASED(SW_SPLIT_UPPERS, SW_SPLIT_LOWERS, SW_SPLIT_ANY_CASE "?") "\\p{N}|" SW_SPLIT_SYMBOLS
                                                                              "[\\r\\n/]*" SW_SPLIT_WHITE}},
    {"bloom poro-chat gpt3-finnish", 0, {SENTENCES}},
    {"viking", 0, {SENTENCES, DIGITS}},
    {"superbpe", 0, {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"}},
    {"bailingmoe bailingmoe2 llada-moe",
     0,
     {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| "
      "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {"seed-coder",
     0,
     {SW_SPLIT_ANY_CASE "|" SW_SPLIT_FRONT "\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+" SW_SPLIT_WHITE}},
    {"ufakzeka", 0, {SW_SPLIT_FRONT "\\p{L}+|\\p{N}|" SW_SPLIT_SYMBOLS "[\\r\\n]*" SW_SPLIT_WHITE}},
    {"laguna", 0, {"[^\\n]+|[\\n]+", SW_SPLIT_CL100K("\\p{N}")}},
    {"exaone-moe",
     0,
     {SW_SPLIT_ANY_CASE "|" SW_SPLIT_FRONT "(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}|" SW_SPLIT_SYMBOLS
                        "[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {"chameleon",
     ADD_BOS,
     {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", DIGITS,
      "{\"type\": \"Punctuation\", \"behavior\": \"Isolated\"}", SW_SPLIT_GPT2}},
    {"jais-2",
     0,
     {SW_SPLIT_ANY_CASE
      "|" SW_SPLIT_FRONT "\\p{L}+|\\p{N}{1,3}|" SW_SPLIT_SYMBOLS
      "[\\r\\n]*|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|"
      "\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"}},
    {"gemma4 granite-embed-multi-311m sarvam-moe", SPACES, {"[^\\n]+|[\\n]+"}},
    {"whitespace", WORDS, {"{\"type\": \"WhitespaceSplit\"}"}},
};

static bool has_name(const char *names, sw_span name)
{
    for (const char *s = names; *s;) {
        size_t n = strcspn(s, " ");
        if (n == name.n && !memcmp(s, name.at, n))
            return true;
        s += n + (s[n] == ' ');
    }
    return false;
}

/* ---- the other way: which name stands for a pre_tokenizer of tokenizer.json */

static bool is_type(const cJSON *o, const char *type)
{
    const cJSON *t = sw_json_get(o, "type");
    return cJSON_IsString(t) && !strcmp(t->valuestring, type);
}

static bool says(const cJSON *o, const char *key, const char *value)
{
    const cJSON *v = sw_json_get(o, key);
    return cJSON_IsString(v) && !strcmp(v->valuestring, value);
}

/* The expression with its characters as they are, where it spells them out: \n, \u4e00, \x{10400}. */
static void spell_plainly(const char *regex, sw_buf *out)
{
    for (size_t n; *regex; regex += n) {
        char plain[4];
        int code = 0, have = 0;
        unsigned value;
        n = *regex == '\\' && regex[1] ? 2 : 1; /* an escape stays whole */
        if (n == 2 && (regex[1] == 'r' || regex[1] == 'n'))
            have = sw_utf8_encode(regex[1] == 'r' ? '\r' : '\n', plain);
        else if (n == 2 && ((sscanf(regex, "\\u%4x%n", &value, &code) == 1 && code == 6) ||
                            (sscanf(regex, "\\x{%8x}%n", &value, &code) == 1 && code)))
            have = sw_utf8_encode(value, plain);
        if (have && code)
            n = (size_t)code;
        sw_buf_add(out, have ? plain : regex, have ? (size_t)have : n);
    }
    sw_buf_putc(out, 0);
}

static bool same_expression(const char *a, const char *b)
{
    sw_buf x = {0}, y = {0};
    spell_plainly(a, &x);
    spell_plainly(b, &y);
    bool same = x.n == y.n && !memcmp(x.at, y.at, x.n);
    sw_buf_free(&x);
    sw_buf_free(&y);
    return same;
}

/* Whether a step cuts as `cut` does. */
static bool cuts_like(const cJSON *step, const char *cut)
{
    const cJSON *regex = sw_json_get(sw_json_get(step, "pattern"), "Regex");
    if (!strcmp(cut, DIGITS) || !strcmp(cut, DIGIT_RUNS))
        return is_type(step, "Digits") && cJSON_IsTrue(sw_json_get(step, "individual_digits")) == !strcmp(cut, DIGITS);
    if (*cut == '{')
        return is_type(step, "Punctuation") && says(step, "behavior", !strcmp(cut, PUNCTUATION_RUNS) ? "Contiguous" : "Isolated");
    if (!strcmp(cut, SW_SPLIT_GPT2) && is_type(step, "ByteLevel"))
        return !cJSON_IsTrue(sw_json_get(step, "add_prefix_space")) && !cJSON_IsFalse(sw_json_get(step, "use_regex"));
    return is_type(step, "Split") && cJSON_IsString(regex) && same_expression(regex->valuestring, cut) &&
           !cJSON_IsTrue(sw_json_get(step, "invert")) && says(step, "behavior", "Isolated");
}

static bool cuts_all(const cJSON *steps, int n, const char *const *cuts, size_t most)
{
    bool spelt = false;
    int i = 0;
    for (size_t k = 0; k < most && cuts[k]; k++, i++) {
        const cJSON *step = i < n ? cJSON_GetArrayItem(steps, i) : NULL;
        if (!step || !cuts_like(step, cuts[k]))
            return false;
        spelt |= is_type(step, "ByteLevel");
    }
    const cJSON *last = i < n ? cJSON_GetArrayItem(steps, i) : NULL;
    if (spelt)
        return i == n;
    return i + 1 == n && is_type(last, "ByteLevel") && cJSON_IsFalse(sw_json_get(last, "use_regex")) &&
           !cJSON_IsTrue(sw_json_get(last, "add_prefix_space"));
}

bool sw_gguf_pre_name(const cJSON *pre, bool nfc, bool ignore_merges, char out[SW_GGUF_PRE_NAME])
{
    static const char *const usual[] = {"smollm", "llama-bpe", "qwen2", "gpt-2", "tekken"}; /* of names that mean the same */
    const cJSON *list = is_type(pre, "Sequence") ? sw_json_get(pre, "pretokenizers") : NULL;
    cJSON *one = cJSON_CreateArray();
    if (!cJSON_IsArray(list)) {
        cJSON_AddItemReferenceToArray(one, (cJSON *)(uintptr_t)pre);
        list = one;
    }
    int most = -1;
    for (size_t k = 0; k < SW_COUNT(pres); k++) {
        if ((pres[k].flags & (SPACES | WORDS)) || !cuts_all(list, cJSON_GetArraySize(list), pres[k].cuts, SW_COUNT(pres[k].cuts)))
            continue;
        int alike = !(pres[k].flags & NFC) == !nfc;
        alike += 2 * (!(pres[k].flags & IGNORE_MERGES) == !ignore_merges);
        if (alike <= most)
            continue;
        most = alike;
        snprintf(out, SW_GGUF_PRE_NAME, "%.*s", (int)strcspn(pres[k].names, " "), pres[k].names);
        for (size_t i = 0; i < SW_COUNT(usual); i++)
            if (has_name(pres[k].names, (sw_span){usual[i], strlen(usual[i])}))
                snprintf(out, SW_GGUF_PRE_NAME, "%s", usual[i]);
    }
    cJSON_Delete(one);
    return most >= 0;
}

static int read_pre(sw_tokenizer *t, sw_span name, bool lowercase, int *flags)
{
    size_t k = 0;
    while (k < SW_COUNT(pres) && !has_name(pres[k].names, name))
        k++;
    if (k == SW_COUNT(pres))
        return sw_fail("\"tokenizer.ggml.pre\": '%.*s' is not known here", (int)SW_MIN(name.n, 60), name.at);
    *flags = pres[k].flags;
    t->ignore_merges = *flags & IGNORE_MERGES;
    sw_buf b = {0};
    bool spelt = false;
    sw_buf_puts(&b, "{\"type\": \"Sequence\", \"pretokenizers\": [");
    for (size_t i = 0; i < SW_COUNT(pres[k].cuts) && pres[k].cuts[i]; i++) {
        const char *cut = pres[k].cuts[i];
        sw_buf_puts(&b, i ? ", " : "");
        if (*cut == '{') {
            sw_buf_puts(&b, cut);
        } else if (!strcmp(cut, SW_SPLIT_GPT2)) {
            sw_buf_printf(&b, BYTE_LEVEL, "true");
            spelt = true;
        } else {
            sw_buf_puts(&b, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
            sw_buf_json(&b, cut, strlen(cut));
            sw_buf_puts(&b, "}, \"behavior\": \"Isolated\", \"invert\": false}");
        }
    }
    if (!spelt && !(*flags & (SPACES | WORDS))) {
        sw_buf_puts(&b, ", ");
        sw_buf_printf(&b, BYTE_LEVEL, "false");
    }
    sw_buf_puts(&b, "]}");
    int rc =
        sw_tokenizer_read_part_text(t, SW_PART_PRE_TOKENIZER, b.at) ||
                sw_tokenizer_read_part_text(
                    t, SW_PART_NORMALIZER,
                    *flags & NFC ? "{\"type\": \"NFC\"}"
                    : *flags & SPACES
                        ? "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"}"
                    : *flags & WORDS && lowercase ? "{\"type\": \"Lowercase\"}"
                                                  : NULL) ||
                sw_tokenizer_read_part_text(
                    t, SW_PART_DECODER,
                    *flags & SPACES  ? "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": "
                                       "{\"String\": \"\xe2\x96\x81\"}, "
                                       "\"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]}"
                    : *flags & WORDS ? NULL
                                     : "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, "
                                       "\"use_regex\": true}")
            ? -1
            : 0;
    sw_buf_free(&b);
    return rc;
}

/* ---- the kinds */

typedef struct rows {
    const sw_gguf *g;
    int64_t n;
    uint8_t *types;
    float *scores;
} rows;

static bool is_filler(sw_span s)
{
    if (s.n < 6 || memcmp(s.at, "[PAD", 4) || s.at[s.n - 1] != ']')
        return false;
    for (size_t i = 4; i + 1 < s.n; i++)
        if (s.at[i] < '0' || s.at[i] > '9')
            return false;
    return true;
}

/* Bert's pieces as GGUF has them: ▁ before what begins a word; ## comes back before what does not. */
static void bert_piece(const rows *r, int32_t id, sw_span *s, sw_buf *b)
{
    bool bracket = s->n > 2 && s->at[0] == '[' && s->at[s->n - 1] == ']' &&
                   (r->types[id] != NORMAL || (s->n > 8 && !memcmp(s->at, "[unused", 7)));
    sw_buf_clear(b);
    if (bracket || r->types[id] == CONTROL || r->types[id] == UNKNOWN || r->types[id] == UNUSED)
        return;
    if (s->n >= 3 && !memcmp(s->at, "\xe2\x96\x81", 3)) {
        *s = (sw_span){s->at + 3, s->n - 3};
        return;
    }
    sw_buf_puts(b, "##");
    sw_buf_add(b, s->at, s->n);
    *s = (sw_span){b->at, b->n};
}

static int read_words(sw_tokenizer *t, const rows *r, bool bert)
{
    const sw_gguf_value *tokens = sw_gguf_find(r->g, "tokenizer.ggml.tokens");
    sw_gguf_iter it = sw_gguf_items(tokens);
    sw_span s;
    sw_buf b = {0};
    int rc = 0;
    for (int32_t id = 0; sw_gguf_next_str(&it, &s) && !rc; id++) {
        if (sw_utf8_valid_prefix(s.at, s.n) < s.n)
            rc = sw_fail("\"tokenizer.ggml.tokens\": token %d is no valid UTF-8", id);
        if (rc || !s.n || (r->types[id] == UNUSED && is_filler(s)))
            continue;
        if (bert)
            bert_piece(r, id, &s, &b);
        sw_tokenizer_set_word(t, id, s.at, s.n);
    }
    sw_buf_free(&b);
    return rc;
}

static int add_tokens(sw_tokenizer *t, const rows *r)
{
    int32_t next = (int32_t)r->n;
    for (int32_t id = 0; id < r->n; id++) {
        int type = r->types[id];
        sw_span s = t->words[id];
        if (!s.at || (type != CONTROL && type != USER_DEFINED && type != UNKNOWN))
            continue;
        if (sw_tokenizer_add(t, (sw_added){.text = sw_strndup(s.at, s.n), .n = s.n, .special = type != USER_DEFINED},
                             &next))
            return -1;
    }
    return 0;
}

static int read_gpt2(sw_tokenizer *t, const rows *r, int *flags)
{
    const sw_gguf_value *merges = sw_gguf_find(r->g, "tokenizer.ggml.merges");
    sw_span pre = sw_gguf_str(r->g, "tokenizer.ggml.pre"), s;
    bool lowercase;
    if (!merges || merges->type != SW_GGUF_ARRAY || merges->item != SW_GGUF_STR || merges->count > SW_MOST_TOKENS)
        return sw_fail("\"tokenizer.ggml.merges\": a list of strings is needed");
    if (sw_gguf_bool(r->g, "tokenizer.ggml.normalizer.lowercase", false, &lowercase) ||
        read_pre(t, pre.n ? pre : (sw_span){"default", 7}, lowercase, flags) || read_words(t, r, false))
        return -1;
    sw_tokenizer_reserve_merges(t, merges->count);
    sw_gguf_iter it = sw_gguf_items(merges);
    for (int32_t rank = 0; sw_gguf_next_str(&it, &s); rank++) {
        const char *space = s.n > 1 ? memchr(s.at + 1, ' ', s.n - 1) : NULL;
        if (!space)
            return sw_fail("\"tokenizer.ggml.merges\": merge %d is no pair", rank);
        if (sw_tokenizer_add_merge(t, s.at, (size_t)(space - s.at), space + 1, s.n - (size_t)(space - s.at) - 1, rank))
            return sw_fail_in("\"tokenizer.ggml.merges\"");
    }
    if (*flags & (SPACES | WORDS)) {
        t->byte_fallback = t->fuse_unk = true;
        for (int32_t id = 0; id < r->n && t->unk < 0; id++)
            if (r->types[id] == UNKNOWN)
                t->unk = id;
    }
    return 0;
}

/* SentencePiece's BPE: the scores say which merges there are. */
static int read_llama(sw_tokenizer *t, const rows *r)
{
    bool prefix;
    if (sw_gguf_bool(r->g, "tokenizer.ggml.add_space_prefix", true, &prefix))
        return -1;
    const char *const normal =
        prefix ? "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"\xe2\x96\x81\"}, "
                 "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"}]}"
               : "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "
                 "\"content\": \"\xe2\x96\x81\"}]}";
    char *decoder = sw_strfmt("{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": "
                              "{\"String\": \"\xe2\x96\x81\"}, \"content\": "
                              "\" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}%s]}",
                              prefix ? ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}" : "");
    uint8_t *usable = SW_NEW_ARRAY(uint8_t, (size_t)r->n + 1);
    for (int64_t id = 0; id < r->n; id++) {
        usable[id] = r->types[id] == NORMAL;
        if (r->types[id] == UNKNOWN && t->unk < 0)
            t->unk = (int32_t)id;
    }
    t->byte_fallback = t->fuse_unk = true;
    int rc = sw_tokenizer_read_part_text(t, SW_PART_NORMALIZER, normal) ||
                     sw_tokenizer_read_part_text(t, SW_PART_DECODER, decoder) || read_words(t, r, false) ||
                     sw_tokenizer_merges_from_scores(t, r->scores, usable, true)
                 ? -1
                 : 0;
    free(decoder);
    free(usable);
    if (!rc && t->unk >= 0 && t->words[t->unk].at) {
        free(t->unk_text);
        t->unk_text = sw_strndup(t->words[t->unk].at, t->words[t->unk].n);
    }
    return rc;
}

static int read_bert(sw_tokenizer *t, const rows *r)
{
    static const char accents[] = "tokenizer.ggml.normalizer.strip_accents";
    int64_t unk;
    bool lowercase, strip;
    if (sw_gguf_i64(r->g, "tokenizer.ggml.unknown_token_id", 0, r->n - 1, SW_MIN(100, r->n - 1), &unk) ||
        sw_gguf_bool(r->g, "tokenizer.ggml.normalizer.lowercase", true, &lowercase) || sw_gguf_bool(r->g, accents, lowercase, &strip))
        return -1;
    t->model = SW_WORDPIECE;
    t->max_chars = 100;
    free(t->prefix_text);
    t->prefix_text = sw_strdup("##");
    char *normal = sw_strfmt("{\"type\": \"BertNormalizer\", \"clean_text\": true, \"handle_chinese_chars\": true, "
                             "\"strip_accents\": %s, \"lowercase\": %s}",
                             strip == lowercase ? "null" : strip ? "true" : "false", lowercase ? "true" : "false");
    int rc = read_words(t, r, true) || sw_tokenizer_read_part_text(t, SW_PART_NORMALIZER, normal) ||
                     sw_tokenizer_read_part_text(t, SW_PART_PRE_TOKENIZER, "{\"type\": \"BertPreTokenizer\"}") ||
                     sw_tokenizer_read_part_text(t, SW_PART_DECODER,
                                                 "{\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": true}")
                 ? -1
                 : 0;
    free(normal);
    if (rc)
        return -1;
    t->unk = (int32_t)unk;
    if (t->words[unk].at) {
        free(t->unk_text);
        t->unk_text = sw_strndup(t->words[unk].at, t->words[unk].n);
    }
    return 0;
}

/* sentencepiece's unigram model, cut as T5's tokenizer.json does. */
static int read_t5(sw_tokenizer *t, const rows *r)
{
    const sw_gguf_value *map = sw_gguf_find(r->g, "tokenizer.ggml.precompiled_charsmap");
    int64_t unk;
    bool prefix, squeeze;
    if (sw_gguf_i64(r->g, "tokenizer.ggml.unknown_token_id", 0, r->n - 1, SW_MIN(2, r->n - 1), &unk) ||
        sw_gguf_bool(r->g, "tokenizer.ggml.add_space_prefix", true, &prefix) ||
        sw_gguf_bool(r->g, "tokenizer.ggml.remove_extra_whitespaces", true, &squeeze))
        return -1;
    if (map && (map->type != SW_GGUF_ARRAY || (map->item != SW_GGUF_U8 && map->item != SW_GGUF_I8)))
        return sw_fail("\"tokenizer.ggml.precompiled_charsmap\": an array of bytes is needed");
    t->model = SW_UNIGRAM;
    t->unk = (int32_t)unk;
    t->scores = SW_NEW_ARRAY(double, (size_t)r->n + 1);
    for (int64_t i = 0; i < r->n; i++)
        t->scores[i] = r->types[i] == BYTE ? 0 : r->scores[i];
    for (int64_t i = 0; i < r->n; i++)
        t->byte_fallback |= r->types[i] == BYTE;
    sw_buf b = {0};
    sw_unigram_normaliser(map ? (const char *)map->at : NULL, map ? map->count : 0, squeeze, &b);
    int rc = sw_tokenizer_read_part_text(t, SW_PART_NORMALIZER, b.at);
    sw_buf_free(&b);
    return rc ||
                   sw_tokenizer_read_part_text(t, SW_PART_PRE_TOKENIZER,
                                               prefix ? SW_METASPACE_JSON("always") : SW_METASPACE_JSON("never")) ||
                   sw_tokenizer_read_part_text(
                       t, SW_PART_DECODER,
                       t->byte_fallback
                           ? "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"ByteFallback\"}, " SW_METASPACE_JSON(
                                 "always") "]}"
                           : SW_METASPACE_JSON("always")) ||
                   read_words(t, r, false)
               ? -1
               : 0;
}

/* ---- what is common */

static int read_rows(rows *r, const sw_gguf *g)
{
    const sw_gguf_value *tokens = sw_gguf_find(g, "tokenizer.ggml.tokens"),
                        *types = sw_gguf_find(g, "tokenizer.ggml.token_type"),
                        *scores = sw_gguf_find(g, "tokenizer.ggml.scores");
    if (!tokens || tokens->type != SW_GGUF_ARRAY || tokens->item != SW_GGUF_STR || !tokens->count ||
        tokens->count > SW_MOST_TOKENS)
        return sw_fail("\"tokenizer.ggml.tokens\": a list of 1 to %d strings is needed", SW_MOST_TOKENS);
    if ((types && types->type != SW_GGUF_ARRAY) || (scores && scores->type != SW_GGUF_ARRAY))
        return sw_fail("\"tokenizer.ggml.token_type\" and \"tokenizer.ggml.scores\": lists of numbers are needed");
    r->g = g;
    r->n = (int64_t)tokens->count;
    r->types = SW_NEW_ARRAY(uint8_t, (size_t)r->n);
    r->scores = SW_NEW_ARRAY(float, (size_t)r->n);
    sw_gguf_iter type = types ? sw_gguf_items(types) : (sw_gguf_iter){0},
                 score = scores ? sw_gguf_items(scores) : (sw_gguf_iter){0};
    for (int64_t i = 0; i < r->n; i++) {
        double v;
        r->types[i] = types && sw_gguf_next_f64(&type, &v) && v >= NORMAL && v <= BYTE ? (uint8_t)v : NORMAL;
        r->scores[i] = scores && sw_gguf_next_f64(&score, &v) && v == v ? (float)v : 0;
    }
    return 0;
}

static int read_specials(sw_tokenizer *t, const rows *r, bool add_bos, bool add_eos, int32_t bos, int32_t eos)
{
    const struct {
        const char *key;
        int32_t *id;
        int32_t missing;
    } ids[] = {{"tokenizer.ggml.bos_token_id", &t->bos, bos},
               {"tokenizer.ggml.eos_token_id", &t->eos, eos},
               {"tokenizer.ggml.padding_token_id", &t->pad, -1}};
    for (size_t i = 0; i < SW_COUNT(ids); i++) {
        int64_t id;
        if (sw_gguf_i64(r->g, ids[i].key, 0, r->n - 1, ids[i].missing < r->n ? ids[i].missing : -1, &id))
            return -1;
        *ids[i].id = id >= 0 && t->pieces[id].at ? (int32_t)id : -1;
    }
    if (sw_gguf_bool(r->g, "tokenizer.ggml.add_bos_token", add_bos, &add_bos) ||
        sw_gguf_bool(r->g, "tokenizer.ggml.add_eos_token", add_eos, &add_eos))
        return -1;
    int64_t first = t->bos, last = t->eos;
    if (t->model == SW_WORDPIECE) { /* what stands around texts is [CLS] and [SEP] */
        if (sw_gguf_i64(r->g, "tokenizer.ggml.cls_token_id", 0, r->n - 1, t->bos, &first) ||
            sw_gguf_i64(r->g, "tokenizer.ggml.seperator_token_id", 0, r->n - 1,
                        t->eos >= 0 ? t->eos : SW_MIN(102, r->n - 1), &last))
            return -1;
        add_eos = true;
    }
    sw_buf b = {0};
    sw_post_template(t, add_bos ? (int32_t)first : -1, add_eos ? (int32_t)last : -1, &b);
    int rc = sw_tokenizer_read_part_text(t, SW_PART_POST_PROCESSOR, b.n ? b.at : NULL);
    sw_buf_free(&b);
    sw_span s = sw_gguf_str(r->g, "tokenizer.chat_template");
    if (s.n && sw_utf8_valid_prefix(s.at, s.n) == s.n)
        t->chat_template = sw_strndup(s.at, s.n);
    return rc;
}

static bool is(sw_span s, const char *name) { return s.n == strlen(name) && !memcmp(s.at, name, s.n); }

static int read(sw_tokenizer *t, rows *r, const sw_gguf *g)
{
    sw_span model = sw_gguf_str(g, "tokenizer.ggml.model");
    int flags = 0;
    if (read_rows(r, g))
        return -1;
    sw_tokenizer_size_is(t, r->n);
    if (is(model, "gpt2") || is(model, "gemma4") || is(model, "whitespace"))
        return read_gpt2(t, r, &flags) || add_tokens(t, r) ||
                       read_specials(t, r, flags & (ADD_BOS | ADD_SEP), flags & ADD_SEP, -1, -1)
                   ? -1
                   : 0;
    if (is(model, "llama"))
        return read_llama(t, r) || add_tokens(t, r) || read_specials(t, r, true, false, 1, 2) ? -1 : 0;
    if (is(model, "bert"))
        return read_bert(t, r) || add_tokens(t, r) || read_specials(t, r, true, false, 101, -1) ? -1 : 0;
    if (is(model, "t5"))
        return read_t5(t, r) || add_tokens(t, r) || read_specials(t, r, false, true, -1, 1) ? -1 : 0;
    return sw_fail("\"tokenizer.ggml.model\": '%.*s' is not known here; gpt2, llama, bert and t5 are",
                   (int)SW_MIN(model.n, 60), model.n ? model.at : "");
}

sw_tokenizer *sw_tokenizer_from_gguf(const struct sw_gguf *g)
{
    sw_tokenizer *t = sw_tokenizer_new();
    rows r = {0};
    int rc = read(t, &r, g) || sw_tokenizer_finish(t) ? -1 : 0;
    free(r.types);
    free(r.scores);
    if (rc) {
        sw_fail_in("%s", sw_gguf_path(g));
        sw_tokenizer_free(t);
        return NULL;
    }
    return t;
}
