/* Attention, forward: online softmax over tiles (Milakov and Gimelshein 2018; Dao et al. 2022). Tiles hold scores with
 * keys down and queries across, so that maxima and sums over keys run on whole vectors of queries; the output of a tile of
 * queries is summed transposed. Few queries (decoding) go to their own path: tasks over runs of keys, joined in order. */
#include "cpu_attention.h"

#include <stdlib.h>

typedef struct call {
    const sw_tensor *out, *lse, *q, *k, *v;
    const sw_attention *a;
    int64_t heads, group, width, value_width, padded, value_padded;
    bool pairs;
} call;

/* ---- many queries */

/* Tiles of 64 keys of every sequence, packed once: K by rows, V with neighbouring keys in a word. */
typedef struct packed {
    sw_word *k, *v;
    int64_t k_size, v_size; /* words of a tile */
} packed;

static void write_lse(const call *c, int64_t row, int64_t head, float top, float sum)
{
    if (c->lse)
        ((float *)c->lse->data)[row * c->lse->stride[0] + head * c->lse->stride[1]] = sum > 0 ? top + logf(sum) : -INFINITY;
}

/* One head, queries i0 .. i0 + count - 1. tiles: where the sequence's packed tiles of this key head begin. */
static void forward_tile(const call *c, const sw_seq *p, int64_t head, int64_t i0, const packed *keys, int64_t tiles, char *space)
{
    int64_t count = SW_MIN(SW_TILE, p->n - i0), lanes = (count + SW_LANES - 1) / SW_LANES * SW_LANES;
    float *score = (float *)(void *)space, *sum = score + SW_TILE * SW_TILE, *line = sum + c->value_padded * SW_TILE;
    sw_word *rows = (sw_word *)(void *)(line + sw_pad16(c->value_padded)), *query = rows + SW_TILE * c->padded;
    sw_word *weights = query + SW_TILE * c->padded;
    float top[SW_TILE], total[SW_TILE], most[SW_TILE], shrink[SW_TILE];
    sw_columns columns;
    sw_make_columns(&columns, c->a, p, i0, count);
    sw_tile_rows(c->pairs, rows, c->q, p->q0 + i0, count, head);
    sw_tile_transpose(c->pairs, query, rows, c->padded);
    memset(sum, 0, (size_t)(c->value_padded * SW_TILE) * sizeof *sum);
    for (int64_t i = 0; i < SW_TILE; i++) {
        top[i] = c->a->sinks ? c->a->sinks[head] : -INFINITY;
        total[i] = c->a->sinks ? 1 : 0;
    }
    for (int64_t key = columns.first / SW_TILE * SW_TILE; key < columns.last; key += SW_TILE) {
        int64_t at = tiles + key / SW_TILE;
        memset(score, 0, SW_TILE * SW_TILE * sizeof *score);
        sw_tile_product(c->pairs, SW_TILE, lanes, sw_words(c->pairs, c->padded), keys->k + at * keys->k_size,
                        sw_words(c->pairs, c->padded), 1, query, SW_TILE, score, SW_TILE);
        sw_scores(score, NULL, &columns, c->a, head, key);
        memcpy(most, top, sizeof most);
        for (int64_t j = 0; j < SW_TILE; j++)
            for (int64_t i = 0; i < SW_TILE; i++)
                most[i] = score[j * SW_TILE + i] > most[i] ? score[j * SW_TILE + i] : most[i];
        for (int64_t i = 0; i < SW_TILE; i++) {
            float base = most[i] == -INFINITY ? 0 : most[i];
            shrink[i] = sw_exp(top[i] - base);
            total[i] *= shrink[i];
            top[i] = most[i];
            most[i] = base;
        }
        for (int64_t j = 0; j < SW_TILE; j++)
            for (int64_t i = 0; i < SW_TILE; i++) {
                float e = sw_exp(score[j * SW_TILE + i] - most[i]);
                total[i] += e;
                score[j * SW_TILE + i] = e;
            }
        for (int64_t d = 0; d < c->value_padded; d++)
            for (int64_t i = 0; i < SW_TILE; i++)
                sum[d * SW_TILE + i] *= shrink[i];
        sw_tile_product(c->pairs, c->value_padded, lanes, sw_words(c->pairs, SW_TILE), keys->v + at * keys->v_size, 1,
                        c->value_padded, sw_tile_as_right(c->pairs, weights, score), SW_TILE, sum, SW_TILE);
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t row = p->q0 + i0 + i;
        float scale = total[i] > 0 ? 1 / total[i] : total[i]; /* zeros when it sees nothing; NaN stays */
        for (int64_t d = 0; d < c->value_width; d++)
            line[d] = sum[d * SW_TILE + i] * scale;
        sw_store(sw_at(c->out, row * c->out->stride[0] + head * c->out->stride[1]), c->out->dtype, c->value_width, line);
        write_lse(c, row, head, top[i], total[i]);
    }
}

typedef struct task {
    sw_seq seq;
    int64_t head, first; /* first query, or first key */
    int64_t tiles;       /* number of the first tile of (sequence, key head 0); the next head's begin count later */
} task;

static int forward_many(sw_stream *s, const call *c, const sw_tensor *seqs)
{
    int64_t key_heads = c->heads / c->group, tiles = 0, tasks = 0;
    for (int64_t b = 0; b < seqs->shape[0]; b++) {
        sw_seq p = sw_seq_of(seqs, b);
        tiles += p.n ? sw_tiles(p.m) * key_heads : 0;
        tasks += sw_tiles(p.n) * c->heads;
    }
    packed keys = {.k_size = SW_TILE * sw_words(c->pairs, c->padded), .v_size = SW_TILE * sw_words(c->pairs, c->value_padded)};
    size_t each = (size_t)(SW_TILE * (SW_TILE * 2 + 2 * c->padded + c->value_padded) + c->value_padded + 16) * 4;
    each = (each + 127) & ~(size_t)63;
    size_t key_bytes = (size_t)(tiles * keys.k_size) * 4, value_bytes = (size_t)(tiles * keys.v_size) * 4;
    size_t list_bytes = (size_t)(tasks + tiles) * sizeof(task);
    char *space = sw_stream_scratch(s, key_bytes + value_bytes + each * (size_t)omp_get_max_threads() + list_bytes + 64);
    if (!space)
        return -1;
    keys.k = (sw_word *)(void *)space;
    keys.v = (sw_word *)(void *)(space + key_bytes);
    char *own = space + key_bytes + value_bytes;
    task *list = (task *)(void *)(own + each * (size_t)omp_get_max_threads()), *pack = list + tasks;
    tiles = tasks = 0;
    for (int64_t b = 0; b < seqs->shape[0]; b++) {
        sw_seq p = sw_seq_of(seqs, b);
        if (!p.n)
            continue;
        for (int64_t i = sw_tiles(p.n) - 1; i >= 0; i--) /* the longest rows of keys first */
            for (int64_t h = 0; h < c->heads; h++)
                list[tasks++] = (task){p, h, i * SW_TILE, tiles};
        for (int64_t h = 0; h < key_heads; h++)
            for (int64_t i = 0; i < sw_tiles(p.m); i++)
                pack[tiles++] = (task){p, h, i * SW_TILE, 0};
    }
#pragma omp parallel if (tasks > 1)
    {
        char *mine = own + each * (size_t)omp_get_thread_num();
#pragma omp for schedule(static)
        for (int64_t t = 0; t < tiles; t++) {
            const task *w = pack + t;
            int64_t count = SW_MIN(SW_TILE, w->seq.m - w->first);
            sw_tile_rows(c->pairs, keys.k + t * keys.k_size, c->k, w->seq.k0 + w->first, count, w->head);
            sw_tile_rows(c->pairs, (sw_word *)(void *)mine, c->v, w->seq.k0 + w->first, count, w->head);
            sw_tile_interleave(c->pairs, keys.v + t * keys.v_size, (sw_word *)(void *)mine, c->value_padded);
        }
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < tasks; t++)
            forward_tile(c, &list[t].seq, list[t].head, list[t].first, &keys,
                         list[t].tiles + list[t].head / c->group * sw_tiles(list[t].seq.m), mine);
    }
    return 0;
}

/* ---- few queries */

enum { FEW = 4, KEYS = 256, AHEAD = 12 }; /* queries a sequence at most; keys a task; rows asked for before their turn */

/* A head's row in a cache is a short piece of a long row: memory is asked for it early, since nothing foresees the stride. */
static inline void ask_for(const sw_tensor *t, int64_t row, int64_t head)
{
    const char *at = sw_at(t, row * t->stride[0] + head * t->stride[1]);
    for (size_t i = 0, n = sw_dtype_bytes(t->dtype, t->shape[2]); i < n; i += 64)
        __builtin_prefetch(at + i);
}

/* What a run of keys gives one (query, head): maximum, sum, weighted values (in `line` floats). */
static void forward_run(const call *c, const sw_seq *p, int64_t key_head, int64_t from, float *part, int64_t line, float *space)
{
    int64_t to = SW_MIN(from + KEYS, p->m), rows = c->group * p->n, width = c->width, vw = c->value_width;
    float *queries = space, *row = queries + rows * c->padded, *score = row + SW_MAX(c->padded, c->value_padded);
    for (int64_t r = 0; r < rows; r++) {
        int64_t head = key_head * c->group + r / p->n, i = p->q0 + r % p->n;
        const float *at = sw_load(sw_at(c->q, i * c->q->stride[0] + head * c->q->stride[1]), c->q->dtype, width,
                                  queries + r * c->padded);
        if (at != queries + r * c->padded)
            memcpy(queries + r * c->padded, at, (size_t)width * sizeof *at);
        memset(queries + r * c->padded + width, 0, (size_t)(c->padded - width) * sizeof *at);
    }
    memset(row, 0, (size_t)SW_MAX(c->padded, c->value_padded) * sizeof *row);
    for (int64_t j = from; j < SW_MIN(from + AHEAD, to); j++)
        ask_for(c->k, p->k0 + j, key_head);
    for (int64_t j = from; j < to; j++) {
        ask_for(c->k, p->k0 + SW_MIN(j + AHEAD, to - 1), key_head);
        ask_for(c->v, p->k0 + j, key_head);
        const float *key = sw_load(sw_at(c->k, (p->k0 + j) * c->k->stride[0] + key_head * c->k->stride[1]), c->k->dtype, width, row);
        if (key != row)
            memcpy(row, key, (size_t)width * sizeof *row);
        for (int64_t r = 0; r < rows; r++) {
            const float *q = queries + r * c->padded;
            sw_vec lane = {0};
            for (int64_t d = 0; d < c->padded; d += SW_LANES)
                lane += *(const sw_vec *)(const void *)(q + d) * *(const sw_vec *)(const void *)(row + d);
            score[r * KEYS + j - from] = sw_lanes_sum(lane);
        }
    }
    for (int64_t r = 0; r < rows; r++) {
        int64_t head = key_head * c->group + r / p->n, lo, hi, place = p->m - p->n + r % p->n;
        float *v = score + r * KEYS, top = -INFINITY, total = 0, scale = (float)c->a->scale;
        sw_seen(c->a, p, r % p->n, &lo, &hi);
        for (int64_t j = 0; j < to - from; j++) {
            float x = v[j] * scale;
            if (c->a->softcap > 0)
                x = (float)c->a->softcap * sw_tanh(x / (float)c->a->softcap);
            if (c->a->alibi)
                x += c->a->alibi[head] * (float)(from + j - place);
            v[j] = from + j >= lo && from + j < hi ? x : -INFINITY;
        }
        for (int64_t j = 0; j < to - from; j++)
            top = v[j] > top ? v[j] : top;
        for (int64_t j = 0; j < to - from; j++) {
            v[j] = sw_exp(v[j] - (top == -INFINITY ? 0 : top));
            total += v[j];
        }
        part[r * line] = top;
        part[r * line + 1] = total;
        memset(part + r * line + 16, 0, (size_t)c->value_padded * sizeof *part);
    }
    for (int64_t j = from; j < to; j++) {
        const float *value = sw_load(sw_at(c->v, (p->k0 + j) * c->v->stride[0] + key_head * c->v->stride[1]), c->v->dtype, vw, row);
        for (int64_t r = 0; r < rows; r++) {
            float weight = score[r * KEYS + j - from], *sum = part + r * line + 16;
            if (weight != 0) /* what is masked, a key of NaN too, does not count */
                for (int64_t d = 0; d < vw; d++)
                    sum[d] += weight * value[d];
        }
    }
}

/* Joins the runs of keys of one (query, head) in order. */
static void join_runs(const call *c, int64_t row, int64_t head, const float *part, int64_t runs, int64_t step, float *line)
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
    float scale = total > 0 ? 1 / total : total;
    for (int64_t d = 0; d < c->value_width; d++)
        line[d] *= scale;
    sw_store(sw_at(c->out, row * c->out->stride[0] + head * c->out->stride[1]), c->out->dtype, c->value_width, line);
    write_lse(c, row, head, top, total);
}

static int forward_few(sw_stream *s, const call *c, const sw_tensor *seqs)
{
    int64_t key_heads = c->heads / c->group, tasks = 0, parts = 0, work = 0, line = 16 + c->value_padded;
    for (int64_t b = 0; b < seqs->shape[0]; b++) {
        sw_seq p = sw_seq_of(seqs, b);
        int64_t runs = p.n ? (p.m + KEYS - 1) / KEYS * key_heads : 0;
        tasks += runs;
        parts += runs * c->group * p.n;
        work += p.n ? p.m * key_heads * (c->padded + c->value_padded) : 0;
    }
    size_t each = (size_t)(FEW * c->group * (c->padded + KEYS) + SW_MAX(c->padded, c->value_padded)) * sizeof(float);
    each = (each + 127) & ~(size_t)63;
    size_t part_bytes = (size_t)(parts * line) * sizeof(float);
    char *space = sw_stream_scratch(s, each * (size_t)omp_get_max_threads() + part_bytes + (size_t)tasks * sizeof(task) + 64);
    if (!space)
        return -1;
    float *part = (float *)(void *)(space + each * (size_t)omp_get_max_threads());
    task *list = (task *)(void *)((char *)part + part_bytes);
    tasks = parts = 0;
    for (int64_t b = 0; b < seqs->shape[0]; b++) {
        sw_seq p = sw_seq_of(seqs, b);
        for (int64_t i = 0; p.n && i < p.m; i += KEYS)
            for (int64_t h = 0; h < key_heads; h++, parts += c->group * p.n)
                list[tasks++] = (task){p, h, i, parts};
    }
#pragma omp parallel for schedule(dynamic) if (work >= SW_PARALLEL && tasks > 1)
    for (int64_t t = 0; t < tasks; t++)
        forward_run(c, &list[t].seq, list[t].head, list[t].first, part + list[t].tiles * line, line,
                    (float *)(void *)(space + each * (size_t)omp_get_thread_num()));
    parts = 0;
    for (int64_t b = 0; b < seqs->shape[0]; b++) {
        sw_seq p = sw_seq_of(seqs, b);
        int64_t runs = p.n ? (p.m + KEYS - 1) / KEYS : 0, rows = c->group * p.n;
        for (int64_t h = 0; h < c->heads; h++)
            for (int64_t i = 0; i < p.n; i++)
                join_runs(c, p.q0 + i, h, part + (parts + h / c->group * rows + h % c->group * p.n + i) * line, runs,
                          key_heads * rows * line, (float *)(void *)space);
        parts += runs * key_heads * rows;
    }
    return 0;
}

int SW_CPU(attention_fwd)(sw_stream *s, sw_tensor *out, sw_tensor *lse, const sw_tensor *q, const sw_tensor *k,
                          const sw_tensor *v, const sw_tensor *seqs, const sw_attention *a)
{
    call c = {.out = out, .lse = lse, .q = q, .k = k, .v = v, .a = a, .heads = q->shape[1], .width = q->shape[2],
              .value_width = v->shape[2], .pairs = sw_pairs_for(q, k, v)};
    if (!c.heads)
        return 0;
    c.group = c.heads / k->shape[1];
    c.padded = sw_pad16(c.width);
    c.value_padded = sw_pad16(c.value_width);
    int64_t longest = 0;
    for (int64_t b = 0; b < seqs->shape[0]; b++)
        longest = SW_MAX(longest, sw_seq_of(seqs, b).n);
    return longest <= FEW ? forward_few(s, &c, seqs) : forward_many(s, &c, seqs);
}
