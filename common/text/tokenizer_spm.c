/* sentencepiece's .model: a protocol buffer of pieces, how it was trained, and how text is normalised (its
 * sentencepiece_model.proto). The ids are those that sentencepiece gives; what is written as tokenizer.json is what
 * Hugging Face makes of such a model. */
#include "text/tokenizer_base64.h"
#include "text/tokenizer_parts.h"

#include "base/json.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };
enum { UNIGRAM = 1, BPE = 2, WORD = 3, CHAR = 4 };

/* ---- protocol buffers: a field is a number, a wire type, and a value; unknown ones are passed over */

typedef struct proto {
    const unsigned char *at, *end;
} proto;

typedef struct field {
    uint32_t number;
    int wire;       /* 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes */
    uint64_t value; /* of 0, 1, 5 */
    proto bytes;    /* of 2 */
} field;

static int varint(proto *p, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64 && p->at < p->end; shift += 7) {
        unsigned char c = *p->at++;
        *out |= (uint64_t)(c & 0x7f) << shift;
        if (!(c & 0x80))
            return 0;
    }
    return sw_fail("the file is cut short or no sentencepiece model (a number has no end)");
}

/* 1 and the next field, 0 at the end, -1. */
static int next(proto *p, field *f)
{
    uint64_t key;
    if (p->at == p->end)
        return 0;
    if (varint(p, &key))
        return -1;
    f->number = (uint32_t)(key >> 3);
    f->wire = (int)(key & 7);
    if (!f->number || key >> 35)
        return sw_fail("the file is no sentencepiece model (field %llu)", (unsigned long long)(key >> 3));
    size_t left = (size_t)(p->end - p->at);
    switch (f->wire) {
    case 0: return varint(p, &f->value) ? -1 : 1;
    case 1:
    case 5: {
        size_t n = f->wire == 1 ? 8 : 4;
        if (left < n)
            break;
        f->value = 0;
        for (size_t i = 0; i < n; i++)
            f->value |= (uint64_t)p->at[i] << (8 * i);
        p->at += n;
        return 1;
    }
    case 2: {
        uint64_t n;
        if (varint(p, &n))
            return -1;
        if (n > (size_t)(p->end - p->at))
            break;
        f->bytes = (proto){p->at, p->at + n};
        p->at += n;
        return 1;
    }
    default: return sw_fail("the file is no sentencepiece model (wire type %d)", f->wire);
    }
    return sw_fail("the file is cut short (field %u goes beyond its end)", f->number);
}

static float real(const field *f)
{
    uint32_t bits = (uint32_t)f->value;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* ---- the model */

typedef struct piece {
    sw_span text;
    float score;
    int type;
} piece;

typedef struct model {
    struct {
        piece *at;
        size_t n, cap;
    } pieces;
    int kind;
    bool byte_fallback, suffix, prefix, squeeze, escape;
    int64_t unk, bos, eos, pad;
    sw_span unk_surface, charsmap, denormal;
} model;

static int read_piece(model *m, proto p)
{
    piece one = {.type = NORMAL};
    field f;
    int rc;
    while ((rc = next(&p, &f)) > 0) {
        if (f.number == 1 && f.wire == 2)
            one.text = (sw_span){(const char *)f.bytes.at, (size_t)(f.bytes.end - f.bytes.at)};
        else if (f.number == 2 && f.wire == 5)
            one.score = real(&f);
        else if (f.number == 3 && f.wire == 0)
            one.type = f.value <= BYTE ? (int)f.value : 0;
    }
    if (rc)
        return -1;
    if (!one.text.n || sw_utf8_valid_prefix(one.text.at, one.text.n) < one.text.n)
        return sw_fail("piece %zu is %s", m->pieces.n, one.text.n ? "no valid UTF-8" : "empty");
    if (one.type < NORMAL || one.score != one.score)
        return sw_fail("piece %zu has no valid type or score", m->pieces.n);
    if (m->pieces.n >= SW_MOST_TOKENS)
        return sw_fail("more than %d pieces", SW_MOST_TOKENS);
    SW_PUSH(m->pieces, one);
    return 0;
}

static int read_trainer(model *m, proto p)
{
    field f;
    int rc;
    while ((rc = next(&p, &f)) > 0) {
        int64_t v = (int64_t)f.value;
        if (f.wire == 2 && f.number == 44)
            m->unk_surface = (sw_span){(const char *)f.bytes.at, (size_t)(f.bytes.end - f.bytes.at)};
        if (f.wire != 0)
            continue;
        switch (f.number) {
        case 3: m->kind = (int)SW_MIN(f.value, 100); break;
        case 24: m->suffix = v; break;
        case 35: m->byte_fallback = v; break;
        case 40: m->unk = v; break;
        case 41: m->bos = v; break;
        case 42: m->eos = v; break;
        case 43: m->pad = v; break;
        default: break;
        }
    }
    return rc;
}

static int read_normal(model *m, proto p, bool back)
{
    field f;
    int rc;
    while ((rc = next(&p, &f)) > 0) {
        if (f.number == 2 && f.wire == 2)
            *(back ? &m->denormal : &m->charsmap) =
                (sw_span){(const char *)f.bytes.at, (size_t)(f.bytes.end - f.bytes.at)};
        if (f.wire != 0 || back)
            continue;
        if (f.number == 3)
            m->prefix = f.value;
        else if (f.number == 4)
            m->squeeze = f.value;
        else if (f.number == 5)
            m->escape = f.value;
    }
    return rc;
}

static int read_model(model *m, const void *bytes, size_t n)
{
    proto p = {bytes, (const unsigned char *)bytes + n};
    field f;
    int rc;
    *m = (model){.kind = UNIGRAM,
                 .prefix = true,
                 .squeeze = true,
                 .escape = true,
                 .bos = 1,
                 .eos = 2,
                 .pad = -1,
                 .unk_surface = {" \xe2\x81\x87 ", 5}};
    while ((rc = next(&p, &f)) > 0) {
        if (f.wire != 2)
            continue;
        if ((f.number == 1 && read_piece(m, f.bytes)) || (f.number == 2 && read_trainer(m, f.bytes)) ||
            ((f.number == 3 || f.number == 5) && read_normal(m, f.bytes, f.number == 5)))
            return -1;
    }
    if (rc)
        return -1;
    if (!m->pieces.n)
        return sw_fail("the file has no pieces: it is no sentencepiece model");
    if (m->kind < UNIGRAM || m->kind > CHAR)
        return sw_fail("a sentencepiece model of kind %d is not known here; unigram, BPE, word and char are", m->kind);
    if (m->denormal.n)
        return sw_fail("a sentencepiece model with rules for decoding is not known here");
    return 0;
}

/* ---- as a tokenizer */

static int32_t id_of(const model *m, int64_t id) { return id >= 0 && id < (int64_t)m->pieces.n ? (int32_t)id : -1; }

static int read_pieces(sw_tokenizer *t, const model *m)
{
    size_t n = m->pieces.n;
    t->piece_types = SW_NEW_ARRAY(uint8_t, n);
    t->scores = SW_NEW_ARRAY(double, n + 1);
    float *scores = SW_NEW_ARRAY(float, n);
    uint8_t *usable = SW_NEW_ARRAY(uint8_t, n);
    sw_span *frozen = SW_NEW_ARRAY(sw_span, n), *known = SW_NEW_ARRAY(sw_span, n);
    bool any = false, first = true;
    int rc = 0;
    t->unk = -1;
    t->most_score = FLT_MIN; /* where sentencepiece starts */
    for (size_t i = 0; i < n && !rc; i++) {
        const piece *p = &m->pieces.at[i];
        bool normal = p->type == NORMAL || p->type == USER_DEFINED || p->type == UNUSED;
        if (sw_map_get(&t->model_ids, p->text.at, p->text.n, -1) >= 0)
            rc = sw_fail("piece %zu, '%.*s', is there twice", i, (int)SW_MIN(p->text.n, 60), p->text.at);
        sw_tokenizer_set_word(t, (int32_t)i, p->text.at, p->text.n);
        t->piece_types[i] = (uint8_t)p->type;
        t->scores[i] = scores[i] = p->score;
        usable[i] = normal;
        if (p->type == UNKNOWN) {
            if (t->unk >= 0)
                rc = sw_fail("pieces %d and %zu both stand for the unknown", t->unk, i);
            t->unk = (int32_t)i;
        }
        if (p->type == USER_DEFINED) {
            frozen[i] = t->words[i];
            any = true;
        }
        if (normal)
            known[i] = t->words[i];
        if (p->type == NORMAL) {
            t->least_score = first ? p->score : SW_MIN(t->least_score, p->score);
            t->most_score = SW_MAX(t->most_score, p->score);
            first = false;
        }
    }
    if (!rc && t->unk < 0)
        rc = sw_fail("no piece stands for the unknown");
    if (any)
        sw_trie_build(&t->frozen, frozen, NULL, n);
    if (!rc && m->kind == UNIGRAM)
        sw_trie_build(&t->trie, known, NULL, n);
    if (!rc && m->kind == BPE)
        rc = sw_tokenizer_merges_from_scores(t, scores, usable, false);
    free(scores);
    free(usable);
    free(frozen);
    free(known);
    return rc;
}

/* What stands around texts, and whether only their beginning gets a space in front, and not what follows an added token. */
typedef struct surroundings {
    bool bos, eos, first;
} surroundings;

/* By the configuration and the class that it names, as transformers has them. */
static int read_surroundings(const cJSON *config, surroundings *s)
{
    /* These give pieces other ids than sentencepiece does, or put other tokens around a text. */
    static const char *const others[] = {"XLMRoberta", "Camembert", "MBart", "Barthez", "XGLM", "Nllb", "Pegasus", "M2M100", "Albert",
                                         "DebertaV2", "XLNet", "BigBird", "FNet", "Rembert"};
    const char *class = sw_tokenizer_class(config);
    bool legacy, t5 = strstr(class, "T5Tokenizer");
    for (size_t i = 0; i < SW_COUNT(others); i++)
        if (sw_starts_with(class, others[i]))
            return sw_fail("a %s without tokenizer.json is not known here", class);
    if (sw_json_bool(config, "add_bos_token", !t5, &s->bos) || sw_json_bool(config, "add_eos_token", t5, &s->eos) ||
        sw_json_bool(config, "legacy", !config || t5, &legacy))
        return sw_fail_in("tokenizer_config.json");
    s->first = !legacy;
    return 0;
}

/* What tokenizer.json can say of it. */
static int write_parts(sw_tokenizer *t, const model *m, const surroundings *around)
{
    bool first = around->first && m->prefix;
    static const char replace[] =
        "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"}";
    sw_buf b = {0};
    if (m->kind == UNIGRAM) {
        sw_unigram_normaliser(m->charsmap.at, m->charsmap.n, m->squeeze, &b);
    } else {
        sw_buf_puts(&b, "{\"type\": \"Sequence\", \"normalizers\": [");
        if (m->charsmap.n) {
            sw_buf_puts(&b, "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"");
            sw_base64_encode(m->charsmap.at, m->charsmap.n, &b);
            sw_buf_puts(&b, "\"}, ");
        }
        if (m->squeeze)
            sw_buf_puts(&b, "{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": true}, {\"type\": "
                            "\"Replace\", \"pattern\": {\"Regex\": \" {2,}\"}, "
                            "\"content\": \" \"}, ");
        if (m->prefix && m->kind != WORD && !first)
            sw_buf_puts(&b, "{\"type\": \"Prepend\", \"prepend\": \"\xe2\x96\x81\"}, ");
        sw_buf_printf(&b, "%s]}", replace);
    }
    t->parts[SW_PART_NORMALIZER] = sw_buf_take(&b);
    if (m->kind == UNIGRAM || m->kind == WORD)
        t->parts[SW_PART_PRE_TOKENIZER] = sw_strdup(!m->prefix ? SW_METASPACE_JSON("never") : first ? SW_METASPACE_JSON("first") : SW_METASPACE_JSON("always"));
    else if (first)
        t->parts[SW_PART_PRE_TOKENIZER] = sw_strdup(SW_METASPACE_SPLIT("first", "false"));
    t->parts[SW_PART_DECODER] =
        sw_strfmt("{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": "
                  "\"\xe2\x96\x81\"}, \"content\": \" \"}%s, "
                  "{\"type\": \"Fuse\"}%s]}",
                  m->byte_fallback ? ", {\"type\": \"ByteFallback\"}" : "",
                  m->prefix ? ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}" : "");
    sw_post_template(t, around->bos ? t->bos : -1, around->eos ? t->eos : -1, &b);
    int rc = sw_tokenizer_read_part_text(t, SW_PART_POST_PROCESSOR, b.n ? b.at : NULL);
    sw_buf_free(&b);
    return rc;
}

static int build(sw_tokenizer *t, const model *m, const cJSON *config)
{
    surroundings around;
    if (read_surroundings(config, &around))
        return -1;
    sw_tokenizer_size_is(t, (int64_t)m->pieces.n);
    /* A model of characters is a BPE without merges; one of words looks up what begins with a space. */
    t->model = m->kind == UNIGRAM ? SW_UNIGRAM : m->kind == WORD ? SW_WORDLEVEL : SW_BPE;
    t->sentencepiece = true;
    t->byte_fallback = m->byte_fallback;
    t->fuse_unk = true;
    if (read_pieces(t, m))
        return -1;
    t->bos = id_of(m, m->bos);
    t->eos = id_of(m, m->eos);
    t->pad = id_of(m, m->pad);
    free(t->unk_text);
    t->unk_text = sw_strndup(t->words[t->unk].at, t->words[t->unk].n);
    SW_PUSH(t->normals, ((sw_normal){.kind = SW_SENTENCEPIECE,
                                     .prefix = m->prefix,
                                     .first = around.first,
                                     .suffix = m->suffix,
                                     .squeeze = m->squeeze,
                                     .escape = m->escape}));
    if (m->charsmap.n && sw_charsmap_read(&t->normals.at[0].charsmap, m->charsmap.at, m->charsmap.n))
        return -1;
    if (m->kind == WORD) {
        SW_PUSH(t->cuts, ((sw_cut){.kind = SW_CUT_SPLIT, .behaviour = SW_MERGED_WITH_NEXT}));
        if (sw_pattern_literal(&t->cuts.at[0].pattern, "\xe2\x96\x81", 3))
            return -1;
    }
    t->decodes = true;
    SW_PUSH(t->decoders, ((sw_decode_step){.kind = SW_DECODE_SENTENCEPIECE,
                                           .text = sw_strndup(m->unk_surface.at, m->unk_surface.n),
                                           .prefix = m->prefix,
                                           .squeeze = m->squeeze}));
    if (config && sw_tokenizer_add_configured(t, config))
        return -1;
    if (write_parts(t, m, &around) || sw_tokenizer_finish(t))
        return -1;
    for (int64_t i = 0; i < t->size; i++) /* without a configuration never found in a text: their spelling is text like any other */
        if (t->piece_types[i] == CONTROL || t->piece_types[i] == UNKNOWN)
            t->special[i] = t->skipped[i] = 1;
    return 0;
}

sw_tokenizer *sw_tokenizer_from_sentencepiece(const void *bytes, size_t n, const char *config_text, size_t config_n)
{
    model m;
    cJSON *config = config_n ? sw_json_parse(config_text, config_n) : NULL;
    if (config_n && !config)
        return sw_fail_in("tokenizer_config.json"), NULL;
    sw_tokenizer *t = sw_tokenizer_new();
    int rc = read_model(&m, bytes, n) || build(t, &m, config) ? -1 : 0;
    cJSON_Delete(config);
    free(m.pieces.at);
    if (rc) {
        sw_tokenizer_free(t);
        return NULL;
    }
    return t;
}
