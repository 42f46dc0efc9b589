#include "text/bpe_cut.h"
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* GPT-2's table: printable Latin-1 stands for itself, the rest for U+0100 onwards in order. */
static bool printable(int b) { return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae; }

uint32_t sw_byte_char(uint8_t byte)
{
    if (printable(byte))
        return byte;
    return 0x100u + (byte < 0x21 ? byte : byte < 0xa1 ? byte - 0x7fu + 0x21 : 0x43);
}

int sw_char_byte(uint32_t cp)
{
    if (cp < 0x100)
        return printable((int)cp) ? (int)cp : -1;
    cp -= 0x100;
    return cp < 0x21 ? (int)cp : cp < 0x43 ? (int)(cp - 0x21 + 0x7f) : cp == 0x43 ? 0xad : -1;
}

sw_tokenizer *sw_tokenizer_new(void)
{
    sw_tokenizer *t = SW_NEW(sw_tokenizer);
    pthread_mutex_init(&t->tables.lock, NULL);
    t->bos = t->eos = t->pad = t->unk = -1;
    t->prefix_text = sw_strdup("");
    t->suffix_text = sw_strdup("");
    t->unk_text = sw_strdup("");
    return t;
}

void sw_tokenizer_free(sw_tokenizer *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->normals.n; i++)
        sw_normal_free(&t->normals.at[i]);
    for (size_t i = 0; i < t->cuts.n; i++)
        sw_cut_free(&t->cuts.at[i]);
    for (size_t i = 0; i < t->decoders.n; i++)
        sw_decode_step_free(&t->decoders.at[i]);
    for (size_t i = 0; i < t->added.n; i++) {
        free(t->added.at[i].text);
        free(t->added.at[i].pattern);
    }
    for (size_t i = 0; i < SW_COUNT(t->char_ids); i++)
        free(t->char_ids[i]);
    for (int i = 0; i < SW_PART_COUNT; i++)
        free(t->parts[i]);
    void *const blocks[] = {t->normals.at,  t->cuts.at,     t->decoders.at, t->added.at, t->trims.at,
                            t->single.at,   t->pair.at,     t->pieces,      t->words,    t->special,
                            t->skipped,     t->merges,      t->merge_bits,  t->scores,   t->piece_types,
                            t->token_bytes, t->prefix_text, t->suffix_text, t->unk_text, t->chat_template,
                            t->system_prompt, t->model_name};
    for (size_t i = 0; i < SW_COUNT(blocks); i++)
        free(blocks[i]);
    sw_bpe_cuts_free(t->tables.at);
    pthread_mutex_destroy(&t->tables.lock);
    sw_trie_free(&t->trie);
    sw_trie_free(&t->frozen);
    sw_trie_free(&t->matchers[0].trie);
    sw_trie_free(&t->matchers[1].trie);
    sw_map_free(&t->model_ids);
    sw_map_free(&t->added_ids);
    sw_arena_free(&t->arena);
    free(t);
}

void sw_tokenizer_size_is(sw_tokenizer *t, int64_t size)
{
    t->size = size;
    t->pieces = SW_NEW_ARRAY(sw_span, (size_t)size);
    t->words = SW_NEW_ARRAY(sw_span, (size_t)size);
}

void sw_tokenizer_grow(sw_tokenizer *t, int64_t size)
{
    if (size <= t->size)
        return;
    t->pieces = sw_realloc(t->pieces, (size_t)size * sizeof *t->pieces);
    t->words = sw_realloc(t->words, (size_t)size * sizeof *t->words);
    memset(t->pieces + t->size, 0, (size_t)(size - t->size) * sizeof *t->pieces);
    memset(t->words + t->size, 0, (size_t)(size - t->size) * sizeof *t->words);
    if (t->scores) {
        t->scores = sw_realloc(t->scores, (size_t)size * sizeof *t->scores);
        memset(t->scores + t->size, 0, (size_t)(size - t->size) * sizeof *t->scores);
    }
    if (t->piece_types) {
        t->piece_types = sw_realloc(t->piece_types, (size_t)size * sizeof *t->piece_types);
        memset(t->piece_types + t->size, 0, (size_t)(size - t->size) * sizeof *t->piece_types);
    }
    t->size = size;
}

void sw_tokenizer_set_word(sw_tokenizer *t, int32_t id, const char *s, size_t n)
{
    t->words[id] = t->pieces[id] = (sw_span){sw_arena_strndup(&t->arena, s, n), n};
    sw_map_put(&t->model_ids, s, n, id);
}

int sw_tokenizer_add(sw_tokenizer *t, sw_added a, int32_t *next_id)
{
    if (!a.n) {
        free(a.text);
        return 0;
    }
    int64_t id = sw_map_get(&t->added_ids, a.text, a.n, -1);
    if (id < 0)
        id = sw_map_get(&t->model_ids, a.text, a.n, -1);
    if (id < 0)
        id = (*next_id)++;
    if (id >= SW_MOST_TOKENS) {
        free(a.text);
        return sw_fail("more than %d tokens", SW_MOST_TOKENS);
    }
    sw_tokenizer_grow(t, id + 1);
    a.id = (int32_t)id;
    a.pattern = NULL;
    t->pieces[id] = (sw_span){sw_arena_strndup(&t->arena, a.text, a.n), a.n};
    sw_map_put(&t->added_ids, a.text, a.n, id);
    for (size_t i = 0; i < t->added.n; i++)
        if (t->added.at[i].id == a.id) {
            free(t->added.at[i].text);
            t->added.at[i] = a;
            return 0;
        }
    SW_PUSH(t->added, a);
    return 0;
}

sw_span sw_json_key(const cJSON *v, sw_buf *buf)
{
    cJSON key = {.type = cJSON_String, .valuestring = v->string};
    return sw_json_text(&key, buf);
}

/* How added tokens are looked for, and what they decode to. */
static int finish_added(sw_tokenizer *t)
{
    sw_map specials = {0};
    sw_work w = {0};
    int rc = 0;
    for (size_t i = 0; i < t->added.n && !rc; i++) {
        sw_added *a = &t->added.at[i];
        t->special[a->id] = a->special ? 1 : 2;
        if (a->special)
            sw_map_put(&specials, a->text, a->n, 1);
        if (a->normalized) {
            w.text.n = 0;
            sw_work_reserve(&w.text, a->n);
            for (size_t k = 0; k < a->n; k++)
                w.text.from[k] = (sw_from){(uint32_t)k, (uint32_t)k + 1};
            memcpy(w.text.at, a->text, a->n);
            w.text.n = a->n;
            rc = sw_normalise(t, &w);
            a->pattern = sw_strndup(w.text.at, w.text.n);
            a->n_pattern = w.text.n;
            t->pieces[a->id] = (sw_span){sw_arena_strndup(&t->arena, a->pattern, a->n_pattern), a->n_pattern};
        } else {
            a->pattern = sw_strndup(a->text, a->n);
            a->n_pattern = a->n;
        }
    }
    for (int64_t id = 0; id < t->size && specials.n && !rc; id++)
        t->skipped[id] = t->pieces[id].at && sw_map_get(&specials, t->pieces[id].at, t->pieces[id].n, 0);
    sw_work_free(&w);
    sw_map_free(&specials);
    if (!rc)
        sw_added_build(t);
    return rc;
}

static void finish_characters(sw_tokenizer *t)
{
    for (int64_t id = 0; id < t->size; id++) {
        uint32_t cp;
        sw_span w = t->words[id];
        if (!w.at || !w.n || (size_t)sw_utf8_decode(w.at, w.n, &cp) != w.n)
            continue;
        int32_t **row = &t->char_ids[cp >> 8];
        if (!*row) {
            *row = sw_malloc(256 * sizeof **row);
            memset(*row, 0xff, 256 * sizeof **row);
        }
        (*row)[cp & 255] = (int32_t)sw_map_get(&t->model_ids, w.at, w.n, -1);
    }
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        t->byte_ids[b] = (int32_t)sw_map_gets(&t->model_ids, name, -1);
        uint32_t cp = sw_byte_char((uint8_t)b);
        t->byte_chars[b] = t->char_ids[cp >> 8] ? t->char_ids[cp >> 8][cp & 255] : -1;
    }
}

int sw_tokenizer_finish(sw_tokenizer *t)
{
    t->special = SW_NEW_ARRAY(uint8_t, (size_t)t->size + 1);
    t->skipped = SW_NEW_ARRAY(uint8_t, (size_t)t->size + 1);
    finish_characters(t);
    if (!t->merges)
        sw_tokenizer_reserve_merges(t, 0);
    if ((t->model == SW_UNIGRAM && !t->trie.n) || t->model == SW_WORDPIECE)
        sw_trie_build(&t->trie, t->words, NULL, (size_t)t->size);
    if (t->model == SW_UNIGRAM && !t->sentencepiece) {
        t->least_score = 1e300;
        for (int64_t i = 0; i < t->size; i++)
            if (t->words[i].at)
                t->least_score = SW_MIN(t->least_score, t->scores[i]);
    }
    if (finish_added(t))
        return -1;
    int32_t first = t->single.n ? t->single.at[0].id : -1, last = t->single.n ? t->single.at[t->single.n - 1].id : -1;
    t->adds_bos = t->bos >= 0 && first == t->bos;
    t->adds_eos = t->eos >= 0 && last == t->eos && t->single.n > 1;
    sw_quick_prepare(t);
    return 0;
}

int64_t sw_tokenizer_size(const sw_tokenizer *t) { return t->size; }

int sw_tokenizer_check_fit(const sw_tokenizer *t, int64_t vocab)
{
    int64_t last = t->size - 1;
    while (last >= vocab && !t->words[last].at)
        last--;
    return last < vocab ? 0 : sw_fail("the tokenizer has ids up to %lld, the model's vocabulary ends at %lld", (long long)last, (long long)vocab - 1);
}

int sw_tokenizer_check_ids(const sw_tokenizer *t, int64_t vocab, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocab) {
            sw_span piece = sw_token_piece(t, ids[i]);
            return sw_fail("the token '%.*s' has the id %d, which the model has no row for: its vocabulary ends at %lld", (int)SW_MIN(piece.n, 60),
                           piece.at ? piece.at : "", ids[i], (long long)vocab - 1);
        }
    return 0;
}

sw_span sw_token_piece(const sw_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->size ? t->pieces[id] : (sw_span){0};
}
bool sw_token_is_special(const sw_tokenizer *t, int32_t id) { return id >= 0 && id < t->size && t->special[id] == 1; }
int32_t sw_token_id(const sw_tokenizer *t, const char *piece, size_t n)
{
    int64_t id = sw_map_get(&t->added_ids, piece, n, -1);
    return (int32_t)(id >= 0 ? id : sw_map_get(&t->model_ids, piece, n, -1));
}
int32_t sw_tokenizer_bos(const sw_tokenizer *t) { return t->bos; }
int32_t sw_tokenizer_eos(const sw_tokenizer *t) { return t->eos; }
int32_t sw_tokenizer_pad(const sw_tokenizer *t) { return t->pad; }
bool sw_tokenizer_adds_bos(const sw_tokenizer *t) { return t->adds_bos; }
bool sw_tokenizer_adds_eos(const sw_tokenizer *t) { return t->adds_eos; }
const char *sw_tokenizer_chat_template(const sw_tokenizer *t) { return t->chat_template; }
const char *sw_tokenizer_system_prompt(const sw_tokenizer *t) { return t->system_prompt; }
const char *sw_tokenizer_model_name(const sw_tokenizer *t) { return t->model_name ? t->model_name : ""; }

static sw_digest digest(const sw_tokenizer *t, bool all)
{
    sw_buf b = {0};
    int64_t last = t->size;
    /* Filler rows ("[PAD12]") and rows without a token at the end belong to the model's size, not to the vocabulary. */
    while (last > 0 &&
           (!t->pieces[last - 1].at || (t->pieces[last - 1].n > 5 && !memcmp(t->pieces[last - 1].at, "[PAD", 4))))
        last--;
    for (int64_t id = 0; id < last; id++) {
        uint32_t head[2] = {(uint32_t)id, (uint32_t)t->pieces[id].n};
        if (!t->pieces[id].at)
            continue;
        sw_buf_add(&b, head, sizeof head);
        sw_buf_add(&b, t->pieces[id].at, t->pieces[id].n);
    }
    if (all) {
        for (size_t i = 0; i < t->merge_cap; i++)
            if (t->merges[i].left >= 0) /* the table's order is that of its hash, the same for equal merges */
                sw_buf_add(&b, &t->merges[i], sizeof t->merges[i]);
        if (t->scores)
            sw_buf_add(&b, t->scores, (size_t)t->size * sizeof *t->scores);
        for (size_t i = 0; i < t->added.n; i++) {
            const sw_added *a = &t->added.at[i];
            sw_buf_printf(&b, "%d%d%d%d%d%d", a->id, a->special, a->lstrip, a->rstrip, a->single_word, a->normalized);
        }
        for (int i = 0; i < SW_PART_DECODER; i++)
            sw_buf_printf(&b, "|%s", t->parts[i] ? t->parts[i] : "");
        sw_buf_printf(&b, "|%d%d%d%d%d%d|%s|%s|%s", t->model, t->sentencepiece, t->byte_fallback, t->fuse_unk,
                      t->ignore_merges, t->unk, t->prefix_text, t->suffix_text, t->unk_text);
    }
    sw_digest d = sw_digest_bytes(b.at ? b.at : "", b.n);
    sw_buf_free(&b);
    return d;
}

sw_digest sw_tokenizer_digest(const sw_tokenizer *t) { return digest(t, true); }
sw_digest sw_tokenizer_vocab_digest(const sw_tokenizer *t) { return digest(t, false); }
