/* The normalizer, pre_tokenizer, post_processor and decoder of a tokenizer.json. A part that is not known is refused by
 * name. */
#include "text/tokenizer_base64.h"
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"

#include "base/json.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

const char *const sw_part_names[SW_PART_COUNT] = {"normalizer", "pre_tokenizer", "post_processor", "decoder"};

static const char *type_of(const cJSON *o)
{
    const cJSON *t = sw_json_get(o, "type");
    return cJSON_IsString(t) ? t->valuestring : "";
}

static bool is(const cJSON *o, const char *type) { return !strcmp(type_of(o), type); }

static int refuse(const cJSON *o)
{
    return sw_fail("type '%s' is not known here", *type_of(o) ? type_of(o) : sw_json_kind(o));
}

/* A member that must be a string, as an owned copy. */
static int text_of(const cJSON *o, const char *key, char **out, size_t *n)
{
    const cJSON *v = sw_json_get(o, key);
    sw_buf b = {0};
    if (!cJSON_IsString(v))
        return sw_fail("%s: \"%s\" is %s, a string is needed", type_of(o), key, sw_json_kind(v));
    sw_span s = sw_json_text(v, &b);
    free(*out);
    *out = sw_strndup(s.at, s.n);
    if (n)
        *n = s.n;
    sw_buf_free(&b);
    return 0;
}

static int character_of(const cJSON *o, const char *key, uint32_t *out)
{
    char *s = NULL;
    size_t n = 0;
    int rc = text_of(o, key, &s, &n), len;
    if (!rc && (!n || (size_t)(len = sw_utf8_decode(s, n, out)) != n))
        rc = sw_fail("%s: \"%s\" is no single character", type_of(o), key);
    free(s);
    return rc;
}

static int pattern_of(const cJSON *o, sw_pattern *p)
{
    const cJSON *v = sw_json_get(o, "pattern");
    const char *kind = sw_json_get(v, "Regex") ? "Regex" : "String";
    char *s = NULL;
    size_t n = 0;
    if (text_of(v, kind, &s, &n))
        return sw_fail("%s: \"pattern\" is neither {\"String\": ...} nor {\"Regex\": ...}", type_of(o));
    int rc = *kind == 'R'
                 ? (strlen(s) < n ? sw_fail("%s: U+0000 in an expression", type_of(o)) : sw_pattern_regex(p, s))
             : n ? sw_pattern_literal(p, s, n)
                 : sw_pattern_regex(p, ""); /* nothing is found everywhere */
    free(s);
    return rc;
}

/* The items of a Sequence. */
static int each(sw_tokenizer *t, const cJSON *o, const char *key, int depth,
                int (*read)(sw_tokenizer *, const cJSON *, int))
{
    const cJSON *list = sw_json_get(o, key);
    if (depth >= SW_DEEPEST_SEQUENCE)
        return sw_fail("sequences are nested too deep");
    if (!cJSON_IsArray(list))
        return sw_fail("Sequence: \"%s\" is %s, an array is needed", key, sw_json_kind(list));
    for (const cJSON *i = list->child; i; i = i->next)
        if (read(t, i, depth + 1))
            return -1;
    return 0;
}

static int read_charsmap(const cJSON *o, sw_charsmap *m)
{
    char *s = NULL;
    size_t n = 0;
    sw_buf b = {0};
    int rc = text_of(o, "precompiled_charsmap", &s, &n) || sw_base64_decode(s, n, &b) ||
                     sw_charsmap_read(m, b.at ? b.at : "", b.n)
                 ? -1
                 : 0;
    sw_buf_free(&b);
    free(s);
    return rc;
}

static int read_normal(sw_tokenizer *t, const cJSON *o, int depth)
{
    static const struct {
        const char *type;
        sw_normal_kind kind;
    } kinds[] = {{"NFC", SW_NFC},
                 {"NFD", SW_NFD},
                 {"NFKC", SW_NFKC},
                 {"NFKD", SW_NFKD},
                 {"Lowercase", SW_LOWERCASE},
                 {"Strip", SW_STRIP},
                 {"StripAccents", SW_STRIP_ACCENTS},
                 {"Replace", SW_REPLACE},
                 {"Prepend", SW_PREPEND},
                 {"Precompiled", SW_CHARSMAP},
                 {"ByteLevel", SW_BYTES},
                 {"Nmt", SW_NMT},
                 {"BertNormalizer", SW_BERT},
                 {"Bert", SW_BERT}};
    if (is(o, "Sequence"))
        return each(t, o, "normalizers", depth, read_normal);
    size_t k = 0;
    while (k < SW_COUNT(kinds) && !is(o, kinds[k].type))
        k++;
    if (k == SW_COUNT(kinds))
        return refuse(o);
    SW_PUSH(t->normals, ((sw_normal){.kind = kinds[k].kind}));
    sw_normal *s = &t->normals.at[t->normals.n - 1];
    switch (s->kind) {
    case SW_STRIP:
        return sw_json_bool(o, "strip_left", true, &s->left) || sw_json_bool(o, "strip_right", true, &s->right) ? -1
                                                                                                                : 0;
    case SW_REPLACE: return pattern_of(o, &s->pattern) || text_of(o, "content", &s->text, &s->n) ? -1 : 0;
    case SW_PREPEND: return text_of(o, "prepend", &s->text, &s->n);
    case SW_CHARSMAP: return read_charsmap(o, &s->charsmap);
    case SW_BERT:
        return sw_json_bool(o, "clean_text", true, &s->clean) ||
                       sw_json_bool(o, "handle_chinese_chars", true, &s->chinese) ||
                       sw_json_bool(o, "lowercase", true, &s->lowercase) ||
                       sw_json_bool(o, "strip_accents", s->lowercase, &s->strip_accents)
                   ? -1
                   : 0;
    default: return 0;
    }
}

static int behaviour_of(const cJSON *o, sw_behaviour *out)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *s;
    if (sw_json_str(o, "behavior", "Isolated", &s))
        return -1;
    for (size_t i = 0; i < SW_COUNT(names); i++)
        if (!strcmp(names[i], s)) {
            *out = (sw_behaviour)i;
            return 0;
        }
    return sw_fail("%s: \"behavior\" is '%s'", type_of(o), s);
}

static int scheme_of(const cJSON *o, sw_scheme *out)
{
    static const char *const names[] = {"always", "first", "never"};
    const char *s;
    bool prefix;
    if (sw_json_str(o, "prepend_scheme", "always", &s) || sw_json_bool(o, "add_prefix_space", true, &prefix))
        return -1;
    if (!prefix) {
        *out = SW_PREPEND_NEVER;
        return 0;
    }
    for (size_t i = 0; i < SW_COUNT(names); i++)
        if (!strcmp(names[i], s)) {
            *out = (sw_scheme)i;
            return 0;
        }
    return sw_fail("Metaspace: \"prepend_scheme\" is '%s'", s);
}

static int read_cut(sw_tokenizer *t, const cJSON *o, int depth)
{
    static const struct {
        const char *type;
        sw_cut_kind kind;
    } kinds[] = {{"Split", SW_CUT_SPLIT},
                 {"ByteLevel", SW_CUT_BYTE_LEVEL},
                 {"Metaspace", SW_CUT_METASPACE},
                 {"Whitespace", SW_CUT_WHITESPACE},
                 {"WhitespaceSplit", SW_CUT_WHITESPACE_SPLIT},
                 {"Punctuation", SW_CUT_PUNCTUATION},
                 {"Digits", SW_CUT_DIGITS},
                 {"CharDelimiterSplit", SW_CUT_CHARACTER},
                 {"Delimiter", SW_CUT_CHARACTER},
                 {"UnicodeScripts", SW_CUT_SCRIPTS},
                 {"FixedLength", SW_CUT_LENGTH}};
    if (is(o, "Sequence"))
        return each(t, o, "pretokenizers", depth, read_cut);
    if (is(o, "BertPreTokenizer")) {
        SW_PUSH(t->cuts, ((sw_cut){.kind = SW_CUT_WHITESPACE_SPLIT}));
        SW_PUSH(t->cuts, ((sw_cut){.kind = SW_CUT_PUNCTUATION, .behaviour = SW_ISOLATED}));
        return 0;
    }
    size_t k = 0;
    while (k < SW_COUNT(kinds) && !is(o, kinds[k].type))
        k++;
    if (k == SW_COUNT(kinds))
        return refuse(o);
    SW_PUSH(t->cuts, ((sw_cut){.kind = kinds[k].kind}));
    sw_cut *c = &t->cuts.at[t->cuts.n - 1];
    int64_t length;
    bool each_digit;
    switch (c->kind) {
    case SW_CUT_SPLIT:
        return pattern_of(o, &c->pattern) || behaviour_of(o, &c->behaviour) ||
                       sw_json_bool(o, "invert", false, &c->invert)
                   ? -1
                   : 0;
    case SW_CUT_BYTE_LEVEL:
        return sw_json_bool(o, "add_prefix_space", true, &c->prefix_space) ||
                       sw_json_bool(o, "use_regex", true, &c->regex)
                   ? -1
                   : 0;
    case SW_CUT_METASPACE:
        return character_of(o, "replacement", &c->character) || scheme_of(o, &c->scheme) ||
                       sw_json_bool(o, "split", true, &c->split)
                   ? -1
                   : 0;
    case SW_CUT_PUNCTUATION: return behaviour_of(o, &c->behaviour);
    case SW_CUT_DIGITS:
        if (sw_json_bool(o, "individual_digits", false, &each_digit))
            return -1;
        c->behaviour = each_digit ? SW_ISOLATED : SW_CONTIGUOUS;
        return 0;
    case SW_CUT_CHARACTER: return character_of(o, "delimiter", &c->character);
    case SW_CUT_LENGTH:
        if (sw_json_i64(o, "length", 1, INT_MAX, 5, &length))
            return -1;
        c->length = (size_t)length;
        return 0;
    default: return 0;
    }
}

static int read_decoder(sw_tokenizer *t, const cJSON *o, int depth)
{
    static const struct {
        const char *type;
        sw_decode_kind kind;
    } kinds[] = {{"ByteLevel", SW_DECODE_BYTE_LEVEL},
                 {"ByteFallback", SW_DECODE_BYTE_FALLBACK},
                 {"Metaspace", SW_DECODE_METASPACE},
                 {"WordPiece", SW_DECODE_WORDPIECE},
                 {"BPEDecoder", SW_DECODE_BPE},
                 {"CTC", SW_DECODE_CTC},
                 {"Fuse", SW_DECODE_FUSE},
                 {"Strip", SW_DECODE_STRIP},
                 {"Replace", SW_DECODE_REPLACE}};
    t->decodes = true;
    if (is(o, "Sequence"))
        return each(t, o, "decoders", depth, read_decoder);
    size_t k = 0;
    while (k < SW_COUNT(kinds) && !is(o, kinds[k].type))
        k++;
    if (k == SW_COUNT(kinds))
        return refuse(o);
    SW_PUSH(t->decoders, ((sw_decode_step){.kind = kinds[k].kind}));
    sw_decode_step *s = &t->decoders.at[t->decoders.n - 1];
    int64_t start, stop;
    switch (s->kind) {
    case SW_DECODE_METASPACE: return character_of(o, "replacement", &s->character) || scheme_of(o, &s->scheme) ? -1 : 0;
    case SW_DECODE_WORDPIECE:
        return text_of(o, "prefix", &s->text, NULL) || sw_json_bool(o, "cleanup", true, &s->cleanup) ? -1 : 0;
    case SW_DECODE_BPE: return text_of(o, "suffix", &s->text, NULL);
    case SW_DECODE_CTC:
        return text_of(o, "pad_token", &s->text, NULL) || text_of(o, "word_delimiter_token", &s->other, NULL) ||
                       sw_json_bool(o, "cleanup", true, &s->cleanup)
                   ? -1
                   : 0;
    case SW_DECODE_STRIP:
        if (character_of(o, "content", &s->character) || sw_json_i64(o, "start", 0, INT_MAX, 0, &start) ||
            sw_json_i64(o, "stop", 0, INT_MAX, 0, &stop))
            return -1;
        s->start = (size_t)start;
        s->stop = (size_t)stop;
        return 0;
    case SW_DECODE_REPLACE: return pattern_of(o, &s->pattern) || text_of(o, "content", &s->text, NULL) ? -1 : 0;
    default: return 0;
    }
}

/* ---- post-processors are worked out on the texts' place-holders: what comes out says what is put where */

enum { TEXT_A = -1, TEXT_B = -2 };

static int special_token(const sw_tokenizer *t, const cJSON *pair, int32_t *id)
{
    const cJSON *n = cJSON_IsArray(pair) && pair->child ? pair->child->next : NULL;
    if (!cJSON_IsNumber(n) || n->valuedouble < 0 || n->valuedouble >= (double)t->size ||
        n->valuedouble != (int32_t)n->valuedouble)
        return sw_fail("\"sep\" and \"cls\" are pairs of a token and its id");
    *id = (int32_t)n->valuedouble;
    return 0;
}

static void put(sw_post_items *to, int32_t id, int32_t type) { SW_PUSH(*to, ((sw_post_item){id, type})); }

/* The encodings so far: at first one for each text; a template makes each of its pieces one. */
typedef struct encodings {
    sw_post_items *at;
    size_t n, cap;
    int texts;
} encodings;

static void free_encodings(encodings *e)
{
    for (size_t i = 0; i < e->n; i++)
        free(e->at[i].at);
    free(e->at);
}

static int apply_template(const sw_tokenizer *t, const cJSON *o, encodings *e)
{
    const cJSON *list = sw_json_get(o, e->n == 2 ? "pair" : "single");
    if (!cJSON_IsArray(list))
        return sw_fail("TemplateProcessing: \"%s\" is %s, an array is needed", e->n == 2 ? "pair" : "single",
                       sw_json_kind(list));
    if (e->n > 2)
        return sw_fail("a TemplateProcessing behind another that made %zu pieces; it takes one or two", e->n);
    encodings out = {.texts = e->texts};
    int rc = 0;
    for (const cJSON *p = list->child; p && !rc; p = p->next) {
        const cJSON *s = sw_json_get(p, "SpecialToken"), *q = sw_json_get(p, "Sequence"),
                    *name = sw_json_get(s ? s : q, "id");
        int64_t type;
        sw_post_items piece = {0};
        if (!cJSON_IsString(name))
            rc = sw_fail("TemplateProcessing: a piece has no \"id\"");
        else if (sw_json_i64(s ? s : q, "type_id", 0, INT_MAX, 0, &type))
            rc = -1;
        else if (q) {
            size_t which = !strcmp(name->valuestring, "B");
            if (which >= e->n)
                rc = sw_fail("TemplateProcessing: the template of one text names a second");
            for (size_t i = 0; !rc && i < e->at[which].n; i++)
                put(&piece, e->at[which].at[i].id, (int32_t)type);
        } else {
            const cJSON *ids = sw_json_get(sw_json_get(sw_json_get(o, "special_tokens"), name->valuestring), "ids");
            if (!cJSON_IsArray(ids))
                rc = sw_fail("TemplateProcessing: the special token '%s' is not among \"special_tokens\"",
                             name->valuestring);
            for (const cJSON *i = rc ? NULL : ids->child; i && !rc; i = i->next) {
                if (!cJSON_IsNumber(i) || i->valuedouble < 0 || i->valuedouble >= (double)t->size ||
                    i->valuedouble != (int32_t)i->valuedouble)
                    rc = sw_fail("TemplateProcessing: the special token '%s' has an id that no token has",
                                 name->valuestring);
                else
                    put(&piece, (int32_t)i->valuedouble, (int32_t)type);
            }
        }
        SW_PUSH(out, piece);
    }
    free_encodings(e);
    *e = out;
    return rc;
}

static int apply_post(sw_tokenizer *t, const cJSON *o, int depth, encodings *e)
{
    if (is(o, "Sequence")) {
        const cJSON *list = sw_json_get(o, "processors");
        if (depth >= SW_DEEPEST_SEQUENCE || !cJSON_IsArray(list))
            return sw_fail("Sequence: \"processors\" is %s, an array is needed",
                           depth >= SW_DEEPEST_SEQUENCE ? "nested too deep" : sw_json_kind(list));
        for (const cJSON *i = list->child; i; i = i->next)
            if (apply_post(t, i, depth + 1, e))
                return -1;
        return 0;
    }
    if (is(o, "TemplateProcessing"))
        return apply_template(t, o, e);
    bool roberta = is(o, "RobertaProcessing"), trim, space;
    if (is(o, "ByteLevel") || roberta) {
        if (sw_json_bool(o, "trim_offsets", true, &trim) || sw_json_bool(o, "add_prefix_space", true, &space))
            return -1;
        if (trim && e->texts == 1)
            SW_PUSH(t->trims, space);
        if (!roberta)
            return 0;
    } else if (!is(o, "BertProcessing")) {
        return refuse(o);
    }
    int32_t sep, cls;
    if (special_token(t, sw_json_get(o, "sep"), &sep) || special_token(t, sw_json_get(o, "cls"), &cls))
        return -1;
    for (size_t i = 0; i < e->n; i++) {
        sw_post_items out = {0};
        int32_t type = !roberta && i;
        if (i == 0 || roberta)
            put(&out, i ? sep : cls, type);
        for (size_t k = 0; k < e->at[i].n; k++)
            put(&out, e->at[i].at[k].id, roberta ? 0 : e->at[i].at[k].type);
        put(&out, sep, type);
        free(e->at[i].at);
        e->at[i] = out;
    }
    return 0;
}

static int read_post(sw_tokenizer *t, const cJSON *o)
{
    for (int n = 1; n <= 2; n++) {
        encodings e = {.texts = n};
        sw_post_items *out = n == 1 ? &t->single : &t->pair;
        for (int i = 0; i < n; i++) {
            sw_post_items text = {0};
            put(&text, i ? TEXT_B : TEXT_A, i);
            SW_PUSH(e, text);
        }
        int rc = o ? apply_post(t, o, 0, &e) : 0;
        out->n = 0;
        for (size_t i = 0; i < e.n; i++)
            for (size_t k = 0; k < e.at[i].n; k++)
                put(out, e.at[i].at[k].id, e.at[i].at[k].type);
        free_encodings(&e);
        if (rc)
            return -1;
    }
    return 0;
}

int sw_tokenizer_read_part(sw_tokenizer *t, int part, const cJSON *o)
{
    int rc = 0;
    if (o) {
        sw_buf b = {0};
        sw_json_print(&b, o);
        free(t->parts[part]);
        t->parts[part] = sw_buf_take(&b);
    }
    switch (part) {
    case SW_PART_NORMALIZER: rc = o ? read_normal(t, o, 0) : 0; break;
    case SW_PART_PRE_TOKENIZER: rc = o ? read_cut(t, o, 0) : 0; break;
    case SW_PART_POST_PROCESSOR: rc = read_post(t, o); break;
    default: rc = o ? read_decoder(t, o, 0) : 0; break;
    }
    return rc ? sw_fail_in("\"%s\"", sw_part_names[part]) : 0;
}

int sw_tokenizer_read_part_text(sw_tokenizer *t, int part, const char *json)
{
    cJSON *o = json ? sw_json_parse(json, strlen(json)) : NULL;
    int rc = json && !o ? -1 : sw_tokenizer_read_part(t, part, cJSON_IsNull(o) ? NULL : o);
    cJSON_Delete(o);
    return rc;
}
