#include "model/ranking.h"

#include "kernels/choose.h"

#include <stdlib.h>

int64_t sw_rank_rows(const sw_var *q, int64_t keys)
{
    return SW_MAX(((int64_t)1 << 24) / (q->t.shape[1] * SW_MAX(keys, 1)), 1); /* 64 MiB of scores by head */
}

int sw_rank_scores(sw_ctx *c, sw_var *q, sw_var *weights, int64_t first, int64_t count, const sw_tensor *keys, sw_tensor *scores)
{
    const sw_kernels *k = sw_k(c);
    int64_t m = keys->shape[0], heads = q->t.shape[1];
    sw_var *each = sw_tmp2(c, SW_F32, count * heads, m);
    sw_tensor rows = sw_row_view(&q->t, first, count);
    rows = sw_reshaped(&rows, 2, (int64_t[]){count * heads, q->t.shape[2]});
    if (!each || k->linear_fwd(sw_s(c), &each->t, &rows, keys, NULL, 1, 0) || k->act_fwd(sw_s(c), &each->t, &each->t, SW_ACT_RELU))
        return -1;
    for (int64_t i = 0; i < count; i++) {
        sw_tensor to = sw_row_view(scores, i, 1), of = sw_row_view(&weights->t, first + i, 1), by_head = sw_row_view(&each->t, i * heads, heads);
        if (k->linear_bwd_x(sw_s(c), &to, &of, &by_head, 1, 0))
            return -1;
    }
    return 0;
}

/* The n queries from row `at` on, of sequence s. */
static int rank_sequence(sw_ctx *c, const sw_ranking *w, int64_t s, int64_t at, float *scores, void *space, int64_t longest)
{
    int64_t n = w->lengths[s], m = w->count[s], most = sw_rank_rows(w->q, m);
    sw_tensor keys = sw_row_view(w->keys, w->first[s], m);
    keys = sw_reshaped(&keys, 2, (int64_t[]){m, w->q->t.shape[2]});
    for (int64_t i = 0; i < n; i += most) {
        int64_t count = SW_MIN(most, n - i);
        bool all = (w->before[s] + i + count) / w->every <= w->topk; /* the last of them sees no more */
        if (!all) {
            sw_scope scope = sw_scope_begin(c);
            sw_var *sum = sw_tmp2(c, SW_F32, count, m);
            if (!sum || sw_rank_scores(c, w->q, w->weights, at + i, count, &keys, &sum->t) || sw_to_host(c, sum, scores))
                return -1;
            sw_scope_end(c, scope, NULL, 0);
        }
        for (int64_t r = 0; r < count; r++)
            sw_choose_row(&(sw_choice){.bits = w->bits + (at + i + r) * w->words, .words = w->words, .seen = (w->before[s] + i + r + 1) / w->every,
                                       .all = w->together ? longest : m},
                          scores + r * m, w->topk, &(sw_paging){0}, space);
    }
    return 0;
}

int sw_rank(sw_ctx *c, const sw_ranking *w)
{
    int64_t longest = 0, rows = 0;
    int rc = 0;
    for (int64_t i = 0; i < w->n_seqs; i++) {
        longest = SW_MAX(longest, w->count[i]);
        rows = SW_MAX(rows, SW_MIN(sw_rank_rows(w->q, w->count[i]), w->lengths[i]) * w->count[i]);
    }
    float *scores = sw_malloc((size_t)SW_MAX(rows, 1) * sizeof *scores);
    void *space = sw_malloc(sw_choose_bytes(SW_MAX(longest, 1)));
    for (int64_t i = 0, at = 0; !rc && i < w->n_seqs; at += w->lengths[i++])
        if (w->lengths[i] && w->count[i])
            rc = rank_sequence(c, w, i, at, scores, space, longest);
    free(scores);
    free(space);
    return rc;
}
