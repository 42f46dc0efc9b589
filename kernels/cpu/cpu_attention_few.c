/* Attention of few queries (decoding): what counts is reading keys and values, which lie row by row with all heads of a
 * token side by side. A task takes a run of rows with all their heads, so that memory is read in its order; the runs
 * of a sequence are joined in order, so that results do not depend on the threads. */
#include "cpu_attention.h"
#include "kernels/cpu_team.h"

/* Rows of a run at least; runs of a sequence at most; rows asked for before their turn; values that are converted
 * together. */
enum { SHORTEST = 64, RUNS = 32, AHEAD = 16, BLOCK = 5000 };

#define AT(p) (*(sw_vec *)(void *)(p))

typedef struct run {
    sw_seq seq;
    int64_t first, last; /* keys */
    int64_t part;        /* number of its first part */
} run;

/* Keys first .. last - 1 that some query of the sequence sees, in runs of `length`. */
typedef struct span {
    int64_t first, last, length, runs;
} span;
static span span_of(const sw_attention_call *c, const sw_seq *p)
{
    span s = {0};
    int64_t other;
    if (!p->n)
        return s;
    sw_seen(c->a, p, 0, &s.first, &other);
    sw_seen(c->a, p, p->n - 1, &other, &s.last);
    int64_t keys = SW_MAX(s.last - s.first, 0);
    s.length = SW_MAX((keys + RUNS - 1) / RUNS + SHORTEST - 1, SHORTEST) / SHORTEST * SHORTEST;
    s.runs = (keys + s.length - 1) / s.length;
    return s;
}

/* `count` rows of one head as f32, `line` apart and padded with zeros. */
static void load_rows(float *to, int64_t line, const sw_tensor *t, int64_t row, int64_t count, int64_t head)
{
    int64_t width = t->shape[2];
    for (int64_t j = 0; j < count; j++, to += line) {
        const float *from = sw_load(sw_at(t, (row + j) * t->stride[0] + head * t->stride[1]), t->dtype, width, to);
        if (from != to)
            memcpy(to, from, (size_t)width * sizeof *to);
        for (int64_t d = width; d < line; d++)
            to[d] = 0;
    }
}

/* `count` rows of `heads` heads as f32, SW_LANES * line apart: memory is read in its order. Rows up to `next`, which
 * are to be read next, are asked for meanwhile. */
static void load_heads(float *to, int64_t line, const sw_tensor *t, const sw_paging *paging, int64_t row, int64_t count,
                       int64_t next, int64_t head, int64_t heads)
{
    size_t bytes = sw_dtype_bytes(t->dtype, (heads - 1) * t->stride[1] + t->shape[2]);
    for (int64_t j = row; j < row + count; j++, to += line) {
        int64_t at = sw_paged(paging, j), later = j + AHEAD < next ? sw_paged(paging, j + AHEAD) : at;
        const char *ahead = sw_at(t, later * t->stride[0] + head * t->stride[1]);
        for (size_t i = 0; later != at && i < bytes; i += 64)
            __builtin_prefetch(ahead + i);
        for (int64_t h = 0; h < heads; h++)
            load_rows(to + h * SW_LANES * line, line, t, at, 1, head + h);
    }
}

/* Scores of SW_LANES keys for one query: score[j] = query . keys[j]. */
static inline void dots(float *score, const float *query, const float *keys, int64_t line)
{
    sw_vec lane[SW_LANES];
    for (int j = 0; j < SW_LANES; j++) {
        sw_vec sum = AT(query) * AT(keys + j * line);
        for (int64_t d = SW_LANES; d < line; d += SW_LANES)
            sum += AT(query + d) * AT(keys + j * line + d);
        lane[j] = sum;
    }
    AT(score) = sw_lanes_sums(lane);
}

/* sum[0 .. line) += weight[j] * values[j] over `count` rows. A weight of 0 belongs to a key that is masked, whose
 * value, NaN too, does not count. */
static inline void add_weighted(float *sum, const float *weight, const float *values, int64_t count, int64_t line)
{
    for (int64_t d = 0; d < line; d += SW_LANES) {
        sw_vec v = AT(sum + d);
        for (int64_t j = 0; j < count; j++)
            if (weight[j] != 0)
                v += weight[j] * AT(values + j * line + d);
        AT(sum + d) = v;
    }
}

/* Products of a query with the keys of a run become weights, exp(score - top); top and their sum go to `part`. */
static void weigh(const sw_attention_call *c, const run *w, int64_t head, int64_t query, float *v, float *part)
{
    const sw_seq *p = &w->seq;
    int64_t lo, hi, n = w->last - w->first;
    float top = -INFINITY, total = 0, scale = (float)c->a->scale, place = (float)(p->m - p->n + query);
    sw_seen(c->a, p, query, &lo, &hi);
    for (int64_t j = 0; j < n; j++)
        v[j] *= scale;
    if (c->a->softcap > 0)
        for (int64_t j = 0; j < n; j++)
            v[j] = (float)c->a->softcap * sw_tanh(v[j] / (float)c->a->softcap);
    if (c->a->alibi)
        for (int64_t j = 0; j < n; j++)
            v[j] += c->a->alibi[head] * ((float)(w->first + j) - place);
    if (c->a->bias)
        for (int64_t j = 0; j < n; j++)
            v[j] += sw_bias(c->a, head, w->first + j - (p->m - p->n + query));
    for (int64_t j = 0; j < n; j++)
        v[j] = w->first + j >= lo && w->first + j < hi ? v[j] : -INFINITY;
    if (c->a->seen)
        for (int64_t j = 0; j < n; j++)
            if (!sw_bit(c->a->seen + (p->q0 + query) * c->a->seen_words, c->a->seen_words, w->first + j))
                v[j] = -INFINITY;
    for (int64_t j = 0; j < n; j++)
        top = v[j] > top ? v[j] : top;
    float base = top == -INFINITY ? 0 : top;
    for (int64_t j = 0; j < n; j++)
        v[j] = sw_exp(v[j] - base);
    for (int64_t j = 0; j < n; j++)
        total += v[j];
    part[0] = top;
    part[1] = total;
}

/* Heads whose rows are converted together: neighbours in memory, within what the first-level cache holds. */
static int64_t across_of(const sw_attention_call *c, int64_t key_heads)
{
    return SW_MIN(key_heads, SW_MAX(1, BLOCK / (SW_LANES * SW_MAX(c->padded, c->value_padded))));
}

/* What the keys of a run give each (head, query): maximum, sum, weighted values, in `line` floats of `part`. */
static void run_forward(const sw_attention_call *c, const run *w, float *part, int64_t line, float *space)
{
    const sw_seq *p = &w->seq;
    int64_t key_heads = c->heads / c->group, rows = c->group * p->n, keys = w->last - w->first;
    int64_t score_line = (keys + SW_LANES - 1) / SW_LANES * SW_LANES;
    int64_t across = across_of(c, key_heads);
    float *queries = space, *block = queries + c->heads * p->n * c->padded;
    float *score = block + across * SW_LANES * SW_MAX(c->padded, c->value_padded);
    for (int64_t h = 0; h < c->heads; h++)
        load_rows(queries + h * p->n * c->padded, c->padded, c->q, p->q0, p->n, h);
    memset(block, 0, (size_t)(across * SW_LANES * c->padded) * sizeof *block);
    for (int64_t j = 0; j < keys; j += SW_LANES)
        for (int64_t h = 0; h < key_heads; h++) {
            const float *of = block + h % across * SW_LANES * c->padded;
            if (h % across == 0)
                load_heads(block, c->padded, c->k, &c->a->paging, p->k0 + w->first + j, SW_MIN(SW_LANES, keys - j), p->k0 + p->m, h,
                           SW_MIN(across, key_heads - h));
            for (int64_t r = 0; r < rows; r++)
                dots(score + (h * rows + r) * score_line + j, queries + (h * rows + r) * c->padded, of, c->padded);
        }
    for (int64_t h = 0; h < c->heads; h++)
        for (int64_t i = 0; i < p->n; i++) {
            float *to = part + (h * p->n + i) * line;
            weigh(c, w, h, i, score + (h * p->n + i) * score_line, to);
            memset(to + 16, 0, (size_t)c->value_padded * sizeof *to);
        }
    for (int64_t j = 0; j < keys; j += SW_LANES)
        for (int64_t h = 0; h < key_heads; h++) {
            int64_t count = SW_MIN(SW_LANES, keys - j);
            const float *of = block + h % across * SW_LANES * c->value_padded;
            if (h % across == 0)
                load_heads(block, c->value_padded, c->v, &c->a->paging, p->k0 + w->first + j, count, p->k0 + p->m, h,
                           SW_MIN(across, key_heads - h));
            for (int64_t r = 0; r < rows; r++)
                add_weighted(part + (h * rows + r) * line + 16, score + (h * rows + r) * score_line + j, of, count,
                             c->value_padded);
        }
}

/* Joins the runs of one (head, query), `step` floats apart, in order. */
static void join_runs(const sw_attention_call *c, int64_t row, int64_t head, const float *part, int64_t runs,
                      int64_t step, float *line)
{
    float top = c->a->sinks ? c->a->sinks[head] : -INFINITY, total = 0;
    for (int64_t i = 0; i < runs; i++)
        top = part[i * step] > top ? part[i * step] : top;
    float base = top == -INFINITY ? 0 : top;
    if (c->a->sinks)
        total = sw_exp(c->a->sinks[head] - base);
    memset(line, 0, (size_t)c->value_width * sizeof *line);
    for (int64_t i = 0; i < runs; i++) {
        const float *from = part + i * step;
        float shrink = sw_exp(from[0] - base);
        total += shrink * from[1];
        for (int64_t d = 0; d < c->value_width; d++)
            line[d] += shrink * from[16 + d];
    }
    float scale = total > 0 ? 1 / total : total; /* zeros when it sees nothing; NaN stays */
    for (int64_t d = 0; d < c->value_width; d++)
        line[d] *= scale;
    sw_store(sw_at(c->out, row * c->out->stride[0] + head * c->out->stride[1]), c->out->dtype, c->value_width, line);
    sw_write_lse(c, row, head, top, total);
}

typedef struct job {
    const sw_attention_call *c;
    const run *list;
    float *part;
    int64_t line;
    char *space; /* `each` bytes of every thread */
    size_t each;
    int64_t runs, tasks; /* in a chunk; all */
} job;

static void some_runs(void *arg, int64_t i, int who)
{
    const job *j = arg;
    for (int64_t t = i * j->runs; t < SW_MIN((i + 1) * j->runs, j->tasks); t++)
        run_forward(j->c, &j->list[t], j->part + j->list[t].part * j->line, j->line,
                    (float *)(void *)(j->space + j->each * (size_t)who));
}

int SW_CPU(attention_few)(sw_stream *s, const sw_attention_call *c, const sw_tensor *seqs)
{
    int64_t tasks = 0, parts = 0, work = 0, longest = 0, line = 16 + c->value_padded, n_seqs = seqs->shape[0];
    for (int64_t b = 0; b < n_seqs; b++) {
        sw_seq p = sw_seq_of(seqs, b);
        span of = span_of(c, &p);
        tasks += of.runs;
        parts += of.runs * c->heads * p.n;
        work += (of.last - of.first) * c->k->shape[1] * (c->padded + c->value_padded);
        longest = SW_MAX(longest, of.length);
    }
    size_t each = (size_t)(SW_FEW_QUERIES * c->heads * (c->padded + longest) +
                           across_of(c, c->k->shape[1]) * SW_LANES * SW_MAX(c->padded, c->value_padded)) *
                  sizeof(float);
    size_t part_bytes = (size_t)(parts * line) * sizeof(float);
    each = (each + 127) & ~(size_t)63;
    char *space =
        sw_stream_scratch(s, each * (size_t)omp_get_max_threads() + part_bytes + (size_t)tasks * sizeof(run) + 64);
    if (!space)
        return -1;
    float *part = (float *)(void *)(space + each * (size_t)omp_get_max_threads());
    run *list = (run *)(void *)((char *)part + part_bytes);
    tasks = parts = 0;
    for (int64_t b = 0; b < n_seqs; b++) {
        sw_seq p = sw_seq_of(seqs, b);
        span of = span_of(c, &p);
        for (int64_t i = 0; i < of.runs; i++, parts += c->heads * p.n) {
            int64_t first = of.first + i * of.length;
            list[tasks++] = (run){p, first, SW_MIN(first + of.length, of.last), parts};
        }
    }
    job j = {c, list, part, line, space, each, work >= SW_PARALLEL ? 1 : tasks, tasks};
    sw_cpu_team(tasks ? (tasks + j.runs - 1) / j.runs : 0, some_runs, &j);
    parts = 0;
    for (int64_t b = 0; b < n_seqs; b++) {
        sw_seq p = sw_seq_of(seqs, b);
        span of = span_of(c, &p);
        int64_t rows = c->heads * p.n;
        for (int64_t r = 0; r < rows; r++)
            join_runs(c, p.q0 + r % p.n, r / p.n, part + (parts + r) * line, of.runs, rows * line,
                      (float *)(void *)space);
        parts += of.runs * rows;
    }
    return 0;
}
