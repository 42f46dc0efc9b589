#include "model/indexer.h"

#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const sw_norm_spec key_norm = {.kind = SW_NORM_LAYER, .bias = true, .eps = 1e-6};

void sw_indexer_declare(sw_builder *b, sw_indexer_parts *a, const sw_indexer *o, int64_t q_rank)
{
    int64_t hidden = sw_builder_spec(b)->hidden;
    sw_ask_linear(b, &a->q, "self_attn.indexer.wq_b", o->heads * o->width, q_rank, SW_ASK_FIXED);
    sw_ask_linear(b, &a->k, "self_attn.indexer.wk", o->width, hidden, SW_ASK_FIXED);
    sw_ask_norm(b, &a->k_norm, "self_attn.indexer.k_norm", o->width, &key_norm);
    sw_ask_linear(b, &a->weights, "self_attn.indexer.weights_proj", o->heads, hidden, SW_ASK_FIXED | SW_ASK_F32);
    if (a->k_norm.w)
        a->k_norm.w->fixed = true;
    if (a->k_norm.b)
        a->k_norm.b->fixed = true;
}

sw_state_spec sw_indexer_state(const sw_indexer *o) { return (sw_state_spec){true, 2, {1, o->width}, SW_DTYPE_COUNT}; }

/* ---- what was chosen */

typedef struct choice {
    bool made;
    uint32_t *bits; /* [n, words]; NULL: all */
    int64_t words;
} choice;

static void declare(sw_builder *b, void *self)
{
    (void)b;
    (void)self;
}

static sw_var *enter(sw_ctx *c, void *self, sw_pass *p, sw_var *x)
{
    (void)self;
    size_t bytes = (size_t)p->spec->layers * sizeof(choice);
    p->body = memset(sw_ctx_alloc(c, bytes), 0, bytes);
    return x;
}

const sw_body_ops sw_indexer_body = {.size = 1, .declare = declare, .enter = enter};

/* ---- scores */

/* Which of equal scores are kept matters: max(0, .) makes many of them exactly zero. The reference keeps those that the
 * selection of the C++ library leaves in front (introselect: Hoare's, around the median of three); so does this. */
typedef struct scored {
    float score;
    int32_t place;
} scored;

static void swap(scored *a, scored *b)
{
    scored t = *a;
    *a = *b;
    *b = t;
}

/* Puts the median of a[lo + 1], a[middle], a[hi - 1] at a[lo]. */
static void median_first(scored *a, int64_t lo, int64_t hi)
{
    scored *x = a + lo + 1, *y = a + lo + (hi - lo) / 2, *z = a + hi - 1, *median;
    if (x->score > y->score)
        median = y->score > z->score ? y : x->score > z->score ? z : x;
    else
        median = x->score > z->score ? x : y->score > z->score ? z : y;
    swap(a + lo, median);
}

/* Orders a so that its k largest come first. */
static void largest_first(scored *a, int64_t n, int64_t k)
{
    int64_t lo = 0, hi = n;
    while (hi - lo > 3) {
        int64_t i = lo + 1, j = hi;
        median_first(a, lo, hi);
        float pivot = a[lo].score;
        for (;; i++) {
            while (a[i].score > pivot)
                i++;
            do
                j--;
            while (pivot > a[j].score);
            if (i >= j)
                break;
            swap(a + i, a + j);
        }
        if (i < k)
            lo = i;
        else
            hi = i;
    }
    for (int64_t i = lo + 1; i < hi; i++)
        for (int64_t j = i; j > lo && a[j].score > a[j - 1].score; j--)
            swap(a + j, a + j - 1);
}

static void set(uint32_t *bits, int64_t j) { bits[j / 32] |= (uint32_t)1 << (j % 32); }

/* Bits of the k best of m places, of which the first `seen` have scores that count. space: [m] */
static void keep_best(uint32_t *bits, const float *score, int64_t m, int64_t seen, int64_t k, scored *space)
{
    for (int64_t j = 0; j < m; j++)
        space[j] = (scored){j < seen && !isnan(score[j]) ? score[j] : -INFINITY, (int32_t)j};
    largest_first(space, m, k);
    for (int64_t j = 0; j < k; j++)
        set(bits, space[j].place);
}

/* Scores f32 [count, m] of the queries from row `first` on with keys [m, width], to the host:
 * sum over heads of weight * max(0, q . k). */
static int score(sw_ctx *c, const sw_ranking *w, int64_t first, int64_t count, const sw_tensor *keys, float *to_host)
{
    const sw_kernels *k = sw_k(c);
    int64_t m = keys->shape[0], heads = w->heads;
    sw_scope scope = sw_scope_begin(c);
    sw_var *each = sw_tmp2(c, SW_F32, count * heads, m), *sum = sw_tmp2(c, SW_F32, count, m);
    sw_tensor q = sw_row_view(&w->q->t, first, count);
    q = sw_reshaped(&q, 2, (int64_t[]){count * heads, w->width});
    if (!each || !sum || k->linear_fwd(sw_s(c), &each->t, &q, keys, NULL, 1, 0) || k->act_fwd(sw_s(c), &each->t, &each->t, SW_ACT_RELU))
        return -1;
    for (int64_t i = 0; i < count; i++) {
        sw_tensor to = sw_row_view(&sum->t, i, 1), weights = sw_row_view(&w->weights->t, first + i, 1), of = sw_row_view(&each->t, i * heads, heads);
        if (k->linear_bwd_x(sw_s(c), &to, &weights, &of, 1, 0))
            return -1;
    }
    int rc = sw_to_host(c, sum, to_host);
    sw_scope_end(c, scope, NULL, 0);
    return rc;
}

/* Queries at a time, so that their scores by head take at most 64 MiB. */
static int64_t at_a_time(const sw_ranking *w, int64_t m) { return SW_MAX(((int64_t)1 << 24) / (w->heads * SW_MAX(m, 1)), 1); }

/* The n queries from row `at` on, of sequence s. */
static int rank_sequence(sw_ctx *c, const sw_ranking *w, int64_t s, int64_t at, float *scores, scored *space, int64_t longest)
{
    int64_t n = w->lengths[s], m = w->count[s], most = at_a_time(w, m), places = w->together ? longest : m;
    sw_tensor keys = sw_row_view(w->keys, w->first[s], m);
    keys = sw_reshaped(&keys, 2, (int64_t[]){m, w->width});
    for (int64_t i = 0; i < n; i += most) {
        int64_t count = SW_MIN(most, n - i);
        bool all = (w->before[s] + i + count) / w->every <= w->topk; /* the last of them sees no more */
        if (!all && score(c, w, at + i, count, &keys, scores))
            return -1;
        for (int64_t r = 0; r < count; r++) {
            int64_t seen = (w->before[s] + i + r + 1) / w->every;
            uint32_t *bits = w->bits + (at + i + r) * w->words;
            if (seen <= w->topk)
                for (int64_t j = 0; j < seen; j++)
                    set(bits, j);
            else
                keep_best(bits, scores + r * m, places, seen, w->topk, space);
        }
    }
    return 0;
}

int sw_rank(sw_ctx *c, const sw_ranking *w)
{
    int64_t longest = 0, rows = 0;
    int rc = 0;
    for (int64_t i = 0; i < w->n_seqs; i++) {
        longest = SW_MAX(longest, w->count[i]);
        rows = SW_MAX(rows, SW_MIN(at_a_time(w, w->count[i]), w->lengths[i]) * w->count[i]);
    }
    float *scores = sw_malloc((size_t)SW_MAX(rows, 1) * sizeof *scores);
    scored *space = sw_malloc((size_t)SW_MAX(longest, 1) * sizeof *space);
    for (int64_t i = 0, at = 0; !rc && i < w->n_seqs; at += w->lengths[i++])
        if (w->lengths[i] && w->count[i])
            rc = rank_sequence(c, w, i, at, scores, space, longest);
    free(scores);
    free(space);
    return rc;
}

/* Queries and keys of the indexer for this batch, and the weights of its heads, scaled. */
static int project(sw_ctx *c, sw_indexer_parts *a, const sw_indexer *o, const sw_pass *p, sw_var *x, sw_var *latent, int state, sw_ranking *w,
                   sw_var **keys)
{
    int which = p->block->spec->rope;
    sw_dtype product = c->product;
    w->q = sw_heads(sw_linear_forward(c, &a->q, latent), o->heads);
    sw_var *k = w->q ? sw_linear_forward(c, &a->k, x) : NULL;
    k = sw_heads(k ? sw_norm_forward(c, &a->k_norm, k) : NULL, 1);
    if (k && which >= 0) {
        w->q = sw_rope(c, w->q, p->cos[which], p->sin[which], o->mode);
        k = w->q ? sw_rope(c, k, p->cos[which], p->sin[which], o->mode) : NULL;
    }
    c->product = SW_F32;
    w->weights = k ? sw_linear_forward(c, &a->weights, x) : NULL;
    c->product = product;
    w->weights = w->weights ? sw_scale(c, w->weights, 1 / sqrt((double)o->heads * (double)o->width)) : NULL;
    *keys = w->weights ? sw_pass_remember(c, p, state, k) : NULL;
    return *keys ? 0 : -1;
}

static int choose(sw_ctx *c, sw_indexer_parts *a, const sw_indexer *o, const sw_pass *p, sw_var *x, sw_var *latent, int state, choice *to)
{
    sw_ranking w = {.topk = o->topk, .heads = o->heads, .width = o->width, .every = 1, .n_seqs = p->n_seqs, .lengths = p->lengths,
                    .before = p->before, .together = !p->cache};
    sw_var *keys;
    int64_t longest = 0, *tables = sw_ctx_alloc(c, (size_t)p->n_seqs * 2 * sizeof *tables), *first = tables, *count = first + p->n_seqs;
    if (project(c, a, o, p, x, latent, state, &w, &keys))
        return -1;
    for (int64_t i = 0, at = 0; i < p->n_seqs; at += p->lengths[i++]) {
        first[i] = p->cache ? p->slots[i] * p->cache->capacity : at;
        count[i] = p->before[i] + p->lengths[i];
        longest = SW_MAX(longest, count[i]);
    }
    to->made = true;
    if (longest <= o->topk)
        return 0;
    to->words = (longest + 31) / 32;
    to->bits = sw_ctx_alloc(c, (size_t)(p->n * to->words) * sizeof *to->bits);
    w.keys = &keys->t;
    w.first = first;
    w.count = count;
    w.bits = to->bits;
    w.words = to->words;
    return sw_rank(c, &w);
}

int sw_indexer_choose(sw_ctx *c, sw_indexer_parts *a, const sw_indexer *o, const sw_pass *p, sw_var *x, sw_var *latent, int state, sw_var **seen)
{
    choice *all = p->body, *mine = all + p->block->index;
    *seen = NULL;
    if (!mine->made && o->follows) {
        *mine = mine[-1]; /* the first layer does not follow: the family's `layers` sees to it */
    } else if (!mine->made) {
        bool recording = c->recording;
        c->recording = false;
        int rc = choose(c, a, o, p, x, latent, state, mine);
        c->recording = recording;
        if (rc)
            return -1;
    }
    if (mine->bits && !(*seen = sw_from_host(c, SW_I32, 2, (int64_t[]){p->n, mine->words}, mine->bits)))
        return -1;
    return 0;
}

const uint32_t *sw_indexer_chosen(const sw_pass *p, int64_t *words)
{
    const choice *all = p->body, *mine = all + p->block->index;
    *words = mine->words;
    return mine->bits;
}
