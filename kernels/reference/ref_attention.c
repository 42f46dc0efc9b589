/* Attention over packed sequences, one query row of scores at a time. */
#include "kernels/reference/reference.h"

#include <math.h>
#include <string.h>

/* A sequence: n queries from row q0, m keys from row k0; and the head that is being worked on. */
typedef struct span {
    int64_t q0, n, k0, m, head, key_head;
} span;

static span span_of(const sw_tensor *seqs, int64_t i)
{
    return (span){.q0 = (int64_t)ref_get(seqs, 4 * i),
                  .n = (int64_t)ref_get(seqs, 4 * i + 1),
                  .k0 = (int64_t)ref_get(seqs, 4 * i + 2),
                  .m = (int64_t)ref_get(seqs, 4 * i + 3)};
}

static void check(const sw_tensor *q, const sw_tensor *k, const sw_tensor *v, const sw_tensor *out,
                  const sw_tensor *seqs, const sw_paging *paging)
{
    assert(q->ndim == 3 && k->ndim == 3 && v->ndim == 3 && out->ndim == 3);
    assert(k->shape[1] > 0 && q->shape[1] % k->shape[1] == 0 && v->shape[1] == k->shape[1] &&
           v->shape[0] == k->shape[0]);
    assert(q->shape[2] == k->shape[2] && out->shape[0] == q->shape[0] && out->shape[1] == q->shape[1] &&
           out->shape[2] == v->shape[2]);
    assert(seqs->dtype == SW_I32 && seqs->ndim == 2 && seqs->shape[1] == 4);
    for (int64_t i = 0; i < seqs->shape[0]; i++) {
        span p = span_of(seqs, i);
        assert(p.q0 >= 0 && p.n >= 0 && p.q0 + p.n <= q->shape[0] && p.k0 >= 0 && p.m >= 0 &&
               (paging->page || p.k0 + p.m <= k->shape[0]));
        for (int64_t r = 0; r < p.m; r++)
            assert(sw_paged(paging, p.k0 + r) < k->shape[0]);
        (void)p;
    }
    (void)q, (void)k, (void)v, (void)out, (void)paging;
}

static bool sees(const sw_attention *a, int64_t row, int64_t query, int64_t key)
{
    int64_t distance = query - key;
    if (a->seen && (key / 32 >= a->seen_words || !(a->seen[row * a->seen_words + key / 32] >> (key % 32) & 1)))
        return false;
    if (a->causal && distance < 0)
        return false;
    return a->window <= 0 || (distance < 0 ? -distance : distance) < a->window;
}

/* Of all pairs of the same distance, at the ends of the table of all beyond. */
static int64_t bias_at(const sw_attention *a, int64_t head, int64_t distance)
{
    int64_t at = distance + a->bias_zero;
    at = at < 0 ? 0 : at >= a->bias_span ? a->bias_span - 1 : at;
    return head * a->bias_span + at;
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Scores of one query with every key of its sequence, -INFINITY where it does not see; slope[j] (or NULL) is what a
 * score moves by when the scaled product moves by one. */
static void scores_of(double *score, double *slope, const double *q, const double *keys, int64_t width, const span *p,
                      int64_t i, const sw_attention *a)
{
    int64_t place = p->m - p->n + i;
    for (int64_t j = 0; j < p->m; j++) {
        score[j] = -INFINITY;
        if (slope)
            slope[j] = 0;
        if (!sees(a, p->q0 + i, place, j))
            continue;
        double x = a->scale * dot(q, keys + j * width, width), t = a->softcap > 0 ? tanh(x / a->softcap) : 0;
        score[j] =
            (a->softcap > 0 ? a->softcap * t : x) + (a->alibi ? (double)a->alibi[p->head] * (double)(j - place) : 0);
        if (a->bias)
            score[j] += (double)a->bias[bias_at(a, p->head, j - place)];
        if (slope)
            slope[j] = 1 - t * t;
    }
}

static void load_head(double *to, const sw_tensor *t, const sw_paging *paging, int64_t from, int64_t rows, int64_t head)
{
    for (int64_t r = 0; r < rows; r++) {
        int64_t row = sw_paged(paging, from + r);
        if (row >= 0)
            ref_load(to + r * t->shape[2], t, row * t->shape[1] + head);
        else /* nobody sees it */
            memset(to + r * t->shape[2], 0, (size_t)t->shape[2] * sizeof *to);
    }
}

static int64_t longest(const sw_tensor *seqs)
{
    int64_t n = 0;
    for (int64_t i = 0; i < seqs->shape[0]; i++)
        n = span_of(seqs, i).m > n ? span_of(seqs, i).m : n;
    return n;
}

int ref_attention_fwd(sw_stream *s, sw_tensor *out, sw_tensor *lse, const sw_tensor *q, const sw_tensor *k,
                      const sw_tensor *v, const sw_tensor *seqs, const sw_attention *a)
{
    int64_t heads = q->shape[1], width = q->shape[2], value_width = v->shape[2], most = longest(seqs);
    check(q, k, v, out, seqs, &a->paging);
    double *keys = ref_scratch(s, most * (width + value_width + 1) + width + value_width),
           *values = keys + most * width;
    if (!keys)
        return -1;
    double *score = values + most * value_width, *query = score + most, *sum = query + width;
    for (int64_t b = 0; b < seqs->shape[0]; b++)
        for (int64_t h = 0; h < heads; h++) {
            span p = span_of(seqs, b);
            p.head = h;
            p.key_head = h / (heads / k->shape[1]);
            load_head(keys, k, &a->paging, p.k0, p.m, p.key_head);
            load_head(values, v, &a->paging, p.k0, p.m, p.key_head);
            for (int64_t i = 0; i < p.n; i++) {
                int64_t row = (p.q0 + i) * heads + h;
                double top = a->sinks ? (double)a->sinks[h] : -INFINITY, total = 0;
                ref_load(query, q, row);
                scores_of(score, NULL, query, keys, width, &p, i, a);
                for (int64_t j = 0; j < p.m; j++)
                    top = score[j] > top ? score[j] : top;
                if (a->sinks)
                    total = exp((double)a->sinks[h] - top);
                memset(sum, 0, (size_t)value_width * sizeof *sum);
                for (int64_t j = 0; j < p.m; j++) {
                    if (score[j] == -INFINITY)
                        continue;
                    double e = exp(score[j] - top);
                    total += e;
                    for (int64_t d = 0; d < value_width; d++)
                        sum[d] += e * values[j * value_width + d];
                }
                for (int64_t d = 0; d < value_width; d++)
                    sum[d] = total > 0 ? sum[d] / total : 0;
                ref_store(out, row, sum, 0);
                if (lse)
                    ref_set(lse, row, total > 0 ? top + log(total) : -INFINITY);
            }
        }
    return 0;
}

/* With P = exp(score - lse), D = dout . out: dscore = P (dout v^T - D), dv = P^T dout; the sink's dscore is -P D. */
int ref_attention_bwd(sw_stream *s, sw_tensor *dq, sw_tensor *dk, sw_tensor *dv, const sw_tensor *dout,
                      const sw_tensor *out, const sw_tensor *lse, const sw_tensor *q, const sw_tensor *k,
                      const sw_tensor *v, const sw_tensor *seqs, const sw_attention *a)
{
    int64_t heads = q->shape[1], key_heads = k->shape[1], width = q->shape[2], value_width = v->shape[2],
            most = longest(seqs);
    check(q, k, v, out, seqs, &a->paging);
    assert(!a->paging.page);
    assert(ref_same_shape(dq, q) && ref_same_shape(dk, k) && ref_same_shape(dv, v) && ref_same_shape(dout, out));
    double *keys = ref_scratch(s, 2 * most * (width + value_width + 1) + 2 * width + 2 * value_width + heads + (a->dbias ? heads * a->bias_span : 0));
    if (!keys)
        return -1;
    double *values = keys + most * width, *key_sum = values + most * value_width, *value_sum = key_sum + most * width;
    double *score = value_sum + most * value_width, *slope = score + most, *query = slope + most,
           *query_sum = query + width;
    double *g = query_sum + width, *o = g + value_width, *sink_sum = o + value_width;
    double *bias_sum = sink_sum + heads;
    memset(sink_sum, 0, (size_t)heads * sizeof *sink_sum);
    if (a->dbias)
        memset(bias_sum, 0, (size_t)(heads * a->bias_span) * sizeof *bias_sum);
    for (int64_t b = 0; b < seqs->shape[0]; b++)
        for (int64_t kh = 0; kh < key_heads; kh++) {
            span p = span_of(seqs, b);
            p.key_head = kh;
            load_head(keys, k, &a->paging, p.k0, p.m, kh);
            load_head(values, v, &a->paging, p.k0, p.m, kh);
            memset(key_sum, 0, (size_t)(p.m * width) * sizeof *key_sum);
            memset(value_sum, 0, (size_t)(p.m * value_width) * sizeof *value_sum);
            for (p.head = kh * (heads / key_heads); p.head < (kh + 1) * (heads / key_heads); p.head++)
                for (int64_t i = 0; i < p.n; i++) {
                    int64_t row = (p.q0 + i) * heads + p.head;
                    double log_sum = ref_get(lse, row), delta;
                    ref_load(query, q, row);
                    ref_load(g, dout, row);
                    ref_load(o, out, row);
                    delta = dot(g, o, value_width);
                    scores_of(score, slope, query, keys, width, &p, i, a);
                    memset(query_sum, 0, (size_t)width * sizeof *query_sum);
                    for (int64_t j = 0; j < p.m; j++) {
                        if (score[j] == -INFINITY)
                            continue;
                        double prob = exp(score[j] - log_sum),
                               d = prob * (dot(g, values + j * value_width, value_width) - delta);
                        if (a->dbias)
                            bias_sum[bias_at(a, p.head, j - (p.m - p.n + i))] += d;
                        d *= slope[j] * a->scale;
                        for (int64_t c = 0; c < value_width; c++)
                            value_sum[j * value_width + c] += prob * g[c];
                        for (int64_t c = 0; c < width; c++) {
                            query_sum[c] += d * keys[j * width + c];
                            key_sum[j * width + c] += d * query[c];
                        }
                    }
                    if (a->sinks)
                        sink_sum[p.head] -= exp((double)a->sinks[p.head] - log_sum) * delta;
                    ref_store(dq, row, query_sum, 0);
                }
            for (int64_t j = 0; j < p.m; j++) {
                ref_store(dk, (p.k0 + j) * key_heads + kh, key_sum + j * width, 0);
                ref_store(dv, (p.k0 + j) * key_heads + kh, value_sum + j * value_width, 0);
            }
        }
    for (int64_t h = 0; a->sinks && a->dsinks && h < heads; h++)
        a->dsinks[h] += (float)sink_sum[h];
    for (int64_t h = 0; a->dbias && h < heads * a->bias_span; h++)
        a->dbias[h] += (float)bias_sum[h];
    return 0;
}
