/* An indexer's scores for few queries: keys are read once, SW_LANES at a time, for all heads; and what is chosen by them. */
#include "cpu_isa.h"

#include "base/memory.h"
#include "kernels/choose.h"
#include "kernels/cpu_team.h"

#define AT(p) (*(sw_vec *)(void *)(p))

enum { KEYS = 64 }; /* of a chunk of work */

typedef struct scoring {
    sw_tensor *scores;
    const sw_tensor *q, *k, *weights;
    const sw_paging *paging;
    const int32_t *seq;
    int64_t every;
    int64_t line;   /* of a head's query and of a key, in whole vectors */
    float *queries; /* [queries, heads, line] */
    char *space;    /* of each thread: SW_LANES keys */
    size_t each;
} scoring;

static void load_line(float *to, const void *from, sw_dtype t, int64_t width, int64_t line)
{
    const float *v = sw_load(from, t, width, to);
    if (v != to)
        memcpy(to, v, (size_t)width * sizeof *to);
    memset(to + width, 0, (size_t)(line - width) * sizeof *to);
}

static void some_keys(void *arg, int64_t chunk, int who)
{
    const scoring *w = arg;
    int64_t heads = w->q->shape[1], n = w->seq[1], before = w->seq[3] - n, m = w->seq[3] / w->every, last = SW_MIN((chunk + 1) * KEYS, m);
    float *keys = (float *)(void *)(w->space + w->each * (size_t)who);
    for (int64_t j = chunk * KEYS; j < last; j += SW_LANES) {
        int64_t count = SW_MIN(SW_LANES, last - j);
        for (int64_t t = 0; t < count; t++)
            load_line(keys + t * w->line, sw_at(w->k, sw_paged(w->paging, w->seq[2] + j + t) * w->k->stride[0]), w->k->dtype, w->k->shape[2], w->line);
        memset(keys + count * w->line, 0, (size_t)((SW_LANES - count) * w->line) * sizeof *keys);
        for (int64_t i = SW_MAX((j + 1) * w->every - 1 - before, 0); i < n; i++) { /* queries before see none of these */
            const float *weight = (const float *)w->weights->data + (w->seq[0] + i) * w->weights->stride[0];
            sw_vec sum = {0};
            for (int64_t h = 0; h < heads; h++) {
                const float *query = w->queries + (i * heads + h) * w->line;
                sw_vec lane[SW_LANES];
                for (int t = 0; t < SW_LANES; t++) {
                    lane[t] = AT(query) * AT(keys + t * w->line);
                    for (int64_t d = SW_LANES; d < w->line; d += SW_LANES)
                        lane[t] += AT(query + d) * AT(keys + t * w->line + d);
                }
                sw_vec dot = sw_lanes_sums(lane);
                sum += weight[h] * (sw_vec)((sw_ivec)dot & (dot > 0));
            }
            float out[SW_LANES];
            memcpy(out, &sum, sizeof out);
            memcpy((float *)w->scores->data + (w->seq[0] + i) * w->scores->stride[0] + j, out, (size_t)SW_MIN(count, (before + i + 1) / w->every - j) * sizeof *out);
        }
    }
}

int SW_CPU(index_scores)(sw_stream *s, sw_tensor *scores, const sw_tensor *q, const sw_tensor *k, const sw_tensor *weights,
                         const sw_tensor *seqs, const sw_paging *paging, int64_t every)
{
    int64_t heads = q->shape[1], width = q->shape[2];
    scoring w = {.scores = scores, .q = q, .k = k, .weights = weights, .paging = paging, .every = every,
                 .line = SW_MAX((width + SW_LANES - 1) / SW_LANES, 1) * SW_LANES};
    w.each = (size_t)(SW_LANES * w.line) * sizeof(float);
    for (int64_t b = 0; b < seqs->shape[0]; b++) {
        w.seq = (const int32_t *)seqs->data + b * seqs->stride[0];
        size_t bytes = ((size_t)(w.seq[1] * heads * w.line) * sizeof(float) + 63) & ~(size_t)63;
        w.queries = sw_stream_scratch(s, bytes + w.each * (size_t)omp_get_max_threads());
        if (!w.queries)
            return -1;
        w.space = (char *)w.queries + bytes;
        for (int64_t r = 0; r < w.seq[1] * heads; r++)
            load_line(w.queries + r * w.line, sw_at(q, (w.seq[0] + r / heads) * q->stride[0] + r % heads * q->stride[1]), q->dtype, width, w.line);
        sw_cpu_team(w.seq[1] ? (w.seq[3] / every + KEYS - 1) / KEYS : 0, some_keys, &w);
    }
    return 0;
}

int SW_CPU(index_choose)(sw_stream *s, sw_tensor *bits, sw_tensor *rows, const sw_tensor *scores, const sw_tensor *seqs,
                         const sw_paging *paging, int64_t every, int64_t k, int64_t among)
{
    int64_t most = among;
    for (int64_t b = 0; b < seqs->shape[0]; b++)
        most = SW_MAX(most, ((const int32_t *)seqs->data)[b * seqs->stride[0] + 3] / every);
    size_t each = (sw_choose_bytes(most) + 63) & ~(size_t)63;
    char *space = sw_stream_scratch(s, each * (size_t)omp_get_max_threads());
    if (!space)
        return -1;
#pragma omp parallel for schedule(dynamic) if (scores->shape[0] > 1 && most > 256)
    for (int64_t i = 0; i < scores->shape[0]; i++) {
        sw_choice c;
        if (sw_choice_of(&c, i, bits, rows, seqs, every, among))
            sw_choose_row(&c, (const float *)scores->data + i * scores->stride[0], k, paging, space + each * (size_t)omp_get_thread_num());
    }
    return 0;
}
