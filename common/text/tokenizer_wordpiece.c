/* WordPiece (the longest known start, then the longest known continuation), and whole words. */
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

static int one(const sw_tokenizer *t, int64_t id, size_t n, sw_ids *ids, sw_ids *lens)
{
    if (id < 0)
        return sw_fail("a word is not in the vocabulary, and neither is the unknown token '%s'", t->unk_text);
    SW_PUSH(*ids, (int32_t)id);
    if (lens)
        SW_PUSH(*lens, (int32_t)n);
    return 0;
}

int64_t sw_whole_word(const sw_tokenizer *t, const char *text, size_t n)
{
    int64_t id = sw_map_get(&t->model_ids, text, n, -1);
    return id >= 0 && t->piece_types && t->special[id] ? -1 : id;
}

int sw_wordpiece_piece(const sw_tokenizer *t, sw_bpe_scratch *s, const char *text, size_t n, sw_ids *ids, sw_ids *lens)
{
    if (t->model == SW_WORDLEVEL) {
        int64_t id = sw_whole_word(t, text, n);
        for (size_t i = 0; id < 0 && t->byte_fallback && i < n; i++) /* of sentencepiece */
            if (one(t, t->byte_ids[(unsigned char)text[i]], 1, ids, lens))
                return -1;
        if (id < 0 && t->byte_fallback)
            return 0;
        return one(t, id >= 0 ? id : t->unk, n, ids, lens);
    }
    if ((int64_t)sw_utf8_count(text, n) > t->max_chars)
        return one(t, t->unk, n, ids, lens);
    size_t first_id = ids->n, first_len = lens ? lens->n : 0, prefix = strlen(t->prefix_text);
    for (size_t from = 0; from < n;) {
        int32_t id = -1;
        size_t best = 0;
        int32_t node = 0;
        /* Continuations begin with the prefix, which is walked first. */
        for (size_t k = 0; from && k < prefix && node >= 0; k++)
            node = sw_trie_step(&t->trie, node, (unsigned char)t->prefix_text[k]);
        for (size_t j = from;
             t->trie.n && node >= 0 && j < n && (node = sw_trie_step(&t->trie, node, (unsigned char)text[j])) >= 0;) {
            j++;
            if (t->trie.node[node].value >= 0 && (j == n || ((unsigned char)text[j] & 0xc0) != 0x80)) {
                id = t->trie.node[node].value;
                best = j;
            }
        }
        if (id < 0) {
            ids->n = first_id;
            if (lens)
                lens->n = first_len;
            return one(t, t->unk, n, ids, lens);
        }
        SW_PUSH(*ids, id);
        if (lens)
            SW_PUSH(*lens, (int32_t)(best - from));
        from = best;
    }
    (void)s;
    return 0;
}

int sw_model_piece(const sw_tokenizer *t, sw_bpe_scratch *s, const char *text, size_t n, sw_ids *ids, sw_ids *lens)
{
    if (!n)
        return 0;
    switch (t->model) {
    case SW_BPE: return sw_bpe_piece(t, s, text, n, ids, lens);
    case SW_UNIGRAM: return sw_unigram_piece(t, s, text, n, ids, lens);
    default: return sw_wordpiece_piece(t, s, text, n, ids, lens);
    }
}

void sw_scratch_free(sw_bpe_scratch *s)
{
    free(s->node);
    free(s->heap);
    free(s->best);
    free(s->words);
    free(s->dead);
    free(s->pairs);
    sw_buf_free(&s->spelling);
    *s = (sw_bpe_scratch){0};
}
