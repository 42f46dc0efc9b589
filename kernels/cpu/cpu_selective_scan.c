/* Selective scan: channels lie across the lanes, SW_LANES of them make a group. The way back makes the states again from
 * ones kept every EVERY places. */
#include "cpu_recurrent.h"
#include "cpu_vec.h"

enum { GROUPS = 4, PARTS = 16, EVERY = 32 };

typedef struct scan {
    const sw_tensor *x, *dt, *a, *b, *c, *skip, *dy;
    int64_t width;
} scan;

/* Channels [first, first + n) of row t, zeros beyond. */
static inline sw_vec load_group(const sw_tensor *x, int64_t t, int64_t first, int64_t n)
{
    const char *at = sw_at(x, t * x->stride[0] + first);
    float buf[SW_LANES];
    if (n == SW_LANES)
        return *(const sw_vec *)(const void *)sw_load(at, x->dtype, SW_LANES, buf);
    memset(buf, 0, sizeof buf);
    const float *from = sw_load(at, x->dtype, n, buf);
    if (from != buf)
        memcpy(buf, from, (size_t)n * sizeof *buf);
    return *(const sw_vec *)(const void *)buf;
}

static inline void store_group(sw_tensor *y, int64_t t, int64_t first, int64_t n, sw_vec v)
{
    if (y && n == SW_LANES)
        sw_store_part(y, t, first, SW_LANES, (const float *)(const void *)&v);
    else if (y)
        sw_store_part(y, t, first, n, (const float *)(const void *)&v);
}

/* [channels, width] of a group to [width] vectors, and back. */
static void load_states(sw_vec *to, const float *from, int64_t n, int64_t width)
{
    for (int64_t j = 0; j < width; j++)
        for (int64_t i = 0; i < SW_LANES; i++)
            to[j][i] = i < n ? from[i * width + j] : 0;
}
static void store_states(float *to, const sw_vec *from, int64_t n, int64_t width)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < width; j++)
            to[i * width + j] = from[j][i];
}

/* ---- forward */

/* `groups` groups of channels from `first` on, side by side: what a row holds of them lies close together. */
static void run_block(const scan *p, sw_tensor *y, sw_tensor *state, sw_run r, int64_t first, int64_t groups, sw_vec *space)
{
    int64_t width = p->width, channels = p->x->shape[1];
    sw_vec *h = space, *a = h + GROUPS * width, skip[GROUPS];
    float *b_buf = (float *)(void *)(a + GROUPS * width), *c_buf = b_buf + width;
    float *kept = r.slot >= 0 ? (float *)state->data + (r.slot * channels + first) * width : NULL;
    memset(h, 0, (size_t)(groups * width) * sizeof *h);
    for (int64_t g = 0; g < groups; g++) {
        int64_t at = first + g * SW_LANES, n = SW_MIN(SW_LANES, channels - at);
        load_states(a + g * width, (const float *)p->a->data + at * width, n, width);
        skip[g] = load_group(p->skip, 0, at, n);
        if (r.goes_on)
            load_states(h + g * width, kept + g * SW_LANES * width, n, width);
    }
    for (int64_t t = r.first; t < r.first + r.rows; t++) {
        const float *b = sw_load_part(p->b, t, 0, width, b_buf), *c = sw_load_part(p->c, t, 0, width, c_buf);
        for (int64_t g = 0; g < groups; g++) {
            int64_t at = first + g * SW_LANES, n = SW_MIN(SW_LANES, channels - at);
            sw_vec x = load_group(p->x, t, at, n), dt = load_group(p->dt, t, at, n), in = dt * x, sum = skip[g] * x, other = sw_splat(0);
            sw_vec *hg = h + g * width;
            const sw_vec *ag = a + g * width;
            int64_t j = 0;
            for (; j + 2 <= width; j += 2) {
                sw_vec one = sw_exp_vec(dt * ag[j]) * hg[j] + in * b[j], two = sw_exp_vec(dt * ag[j + 1]) * hg[j + 1] + in * b[j + 1];
                hg[j] = one;
                hg[j + 1] = two;
                sum += c[j] * one;
                other += c[j + 1] * two;
            }
            for (; j < width; j++) {
                hg[j] = sw_exp_vec(dt * ag[j]) * hg[j] + in * b[j];
                sum += c[j] * hg[j];
            }
            store_group(y, t, at, n, sum + other);
        }
    }
    for (int64_t g = 0; kept && g < groups; g++)
        store_states(kept + g * SW_LANES * width, h + g * width, SW_MIN(SW_LANES, channels - first - g * SW_LANES), width);
}

static size_t vectors(int64_t n) { return (size_t)n * sizeof(sw_vec); }

int SW_CPU(selective_scan_fwd)(sw_stream *s, sw_tensor *y, sw_tensor *state, const sw_tensor *x, const sw_tensor *dt, const sw_tensor *a,
                               const sw_tensor *b, const sw_tensor *c, const sw_tensor *skip, const sw_tensor *seqs)
{
    scan p = {x, dt, a, b, c, skip, NULL, a->shape[1]};
    int64_t channels = x->shape[1], groups = (channels + SW_LANES - 1) / SW_LANES, blocks = (groups + GROUPS - 1) / GROUPS;
    size_t each = vectors((2 * GROUPS + 2) * p.width);
    char *space = sw_thread_space(s, &each);
    if (!space)
        return -1;
#pragma omp parallel for schedule(dynamic) if (sw_numel(x) * p.width >= SW_PARALLEL)
    for (int64_t i = 0; i < blocks * seqs->shape[0]; i++) {
        int64_t first = i % blocks * GROUPS;
        sw_run r = sw_run_of(seqs, i / blocks);
        if (r.rows)
            run_block(&p, y, state, r, first * SW_LANES, SW_MIN(GROUPS, groups - first),
                      (sw_vec *)(void *)(space + (size_t)omp_get_thread_num() * each));
    }
    return 0;
}

/* ---- back */

/* What a part works with: vectors of its groups, one after the other. */
typedef struct part {
    int64_t first, groups, channels; /* the part's first channel; up to where channels go */
    sw_vec *kept;                    /* [chunks][groups][width]: the states before each chunk */
    sw_vec *dh, *a, *da;             /* [groups][width] */
    sw_vec *skip, *dskip;            /* [groups] */
    sw_vec *state, *decay;           /* of one group in one chunk: [EVERY + 1][width], [EVERY][width] */
    sw_vec *db, *dc;                 /* of a chunk: [EVERY][width] */
    float *b, *c;                    /* of a chunk, [EVERY][width] */
} part;

static int64_t group_width(const part *w, int64_t g) { return SW_MIN(SW_LANES, w->channels - w->first - g * SW_LANES); }

static int64_t part_vectors(int64_t groups, int64_t width, int64_t rows)
{
    return ((rows + EVERY - 1) / EVERY + 3) * groups * width + 2 * groups + (4 * EVERY + 1) * width + 2 * EVERY * width;
}

static part part_in(sw_vec *space, int64_t first, int64_t channels, int64_t width, int64_t rows)
{
    int64_t groups = (channels - first + SW_LANES - 1) / SW_LANES, all = groups * width;
    part w = {.first = first, .groups = groups, .channels = channels, .kept = space};
    w.dh = w.kept + (rows + EVERY - 1) / EVERY * all;
    w.a = w.dh + all;
    w.da = w.a + all;
    w.skip = w.da + all;
    w.dskip = w.skip + groups;
    w.state = w.dskip + groups;
    w.decay = w.state + (EVERY + 1) * width;
    w.db = w.decay + EVERY * width;
    w.dc = w.db + EVERY * width;
    w.b = (float *)(void *)(w.dc + EVERY * width);
    w.c = w.b + EVERY * width;
    return w;
}

/* b and c of places [first, first + n). */
static void load_both(const scan *p, part *w, int64_t first, int64_t n)
{
    const sw_tensor *from[] = {p->b, p->c};
    float *to[] = {w->b, w->c};
    for (int i = 0; i < 2; i++)
        for (int64_t t = 0; t < n; t++) {
            float *row = to[i] + t * p->width;
            const float *at = sw_load_part(from[i], first + t, 0, p->width, row);
            if (at != row)
                memcpy(row, at, (size_t)p->width * sizeof *row);
        }
}

/* A group through n places: states after each into w->state, where h[0] stands before, and the decays. */
static void again(const scan *p, part *w, int64_t g, int64_t first, int64_t n)
{
    int64_t width = p->width, channel = w->first + g * SW_LANES, lanes = group_width(w, g);
    const sw_vec *a = w->a + g * width;
    for (int64_t t = 0; t < n; t++) {
        sw_vec dt = load_group(p->dt, first + t, channel, lanes), in = dt * load_group(p->x, first + t, channel, lanes);
        sw_vec *h = w->state + t * width, *decay = w->decay + t * width;
        for (int64_t j = 0; j < width; j++) {
            decay[j] = sw_exp_vec(dt * a[j]);
            h[width + j] = decay[j] * h[j] + in * w->b[t * width + j];
        }
    }
}

static void group_back(const scan *p, part *w, sw_tensor *dx, sw_tensor *ddt, int64_t g, int64_t first, int64_t n)
{
    int64_t width = p->width, channel = w->first + g * SW_LANES, lanes = group_width(w, g);
    sw_vec *dh = w->dh + g * width, *da = w->da + g * width;
    const sw_vec *a = w->a + g * width;
    for (int64_t t = n; t-- > 0;) {
        int64_t row = first + t;
        sw_vec dt = load_group(p->dt, row, channel, lanes), x = load_group(p->x, row, channel, lanes), in = dt * x;
        sw_vec dy = load_group(p->dy, row, channel, lanes), d_step = sw_splat(0), d_in = sw_splat(0);
        const sw_vec *old = w->state + t * width, *now = old + width, *decay = w->decay + t * width;
        const float *b = w->b + t * width, *c = w->c + t * width;
        sw_vec *db = w->db + t * width, *dc = w->dc + t * width;
        for (int64_t j = 0; j < width; j++) {
            sw_vec d = dh[j] + dy * c[j], left = d * decay[j], gone = left * old[j];
            dc[j] += dy * now[j];
            db[j] += d * in;
            d_step += gone * a[j];
            d_in += d * b[j];
            da[j] += gone * dt;
            dh[j] = left;
        }
        store_group(dx, row, channel, lanes, d_in * dt + dy * w->skip[g]);
        store_group(ddt, row, channel, lanes, d_step + d_in * x);
        w->dskip[g] += dy * x;
    }
}

/* Lanes of [n][width] vectors added up, to rows of the part's sums. */
static void put_sums(float *to, const sw_vec *from, int64_t n)
{
    int64_t i = 0;
    for (; i + SW_LANES <= n; i += SW_LANES) {
        sw_vec v[SW_LANES];
        memcpy(v, from + i, sizeof v);
        *(sw_vec *)(void *)(to + i) = sw_lanes_sums(v);
    }
    for (; i < n; i++)
        to[i] = sw_lanes_sum(from[i]);
}

/* b_sum, c_sum f32 [N, width] of the part. */
static void run_back(const scan *p, part *w, sw_tensor *dx, sw_tensor *ddt, float *b_sum, float *c_sum, sw_run r)
{
    int64_t width = p->width, all = w->groups * width, chunks = (r.rows + EVERY - 1) / EVERY;
    memset(w->kept, 0, vectors(all));
    memset(w->dh, 0, vectors(all));
    for (int64_t i = 0; i + 1 < chunks; i++) {
        load_both(p, w, r.first + i * EVERY, EVERY);
        for (int64_t g = 0; g < w->groups; g++) {
            sw_vec *from = w->kept + i * all + g * width;
            memcpy(w->state, from, vectors(width));
            again(p, w, g, r.first + i * EVERY, EVERY);
            memcpy(from + all, w->state + EVERY * width, vectors(width));
        }
    }
    for (int64_t i = chunks; i-- > 0;) {
        int64_t first = r.first + i * EVERY, n = SW_MIN(EVERY, r.rows - i * EVERY);
        load_both(p, w, first, n);
        memset(w->db, 0, vectors(n * width));
        memset(w->dc, 0, vectors(n * width));
        for (int64_t g = 0; g < w->groups; g++) {
            memcpy(w->state, w->kept + i * all + g * width, vectors(width));
            again(p, w, g, first, n);
            group_back(p, w, dx, ddt, g, first, n);
        }
        put_sums(b_sum + first * width, w->db, n * width);
        put_sums(c_sum + first * width, w->dc, n * width);
    }
}

static void part_back(const scan *p, part *w, sw_tensor *dx, sw_tensor *ddt, sw_tensor *da, sw_tensor *dskip, float *b_sum, float *c_sum,
                      const sw_tensor *seqs)
{
    int64_t width = p->width;
    for (int64_t g = 0; g < w->groups; g++) {
        int64_t channel = w->first + g * SW_LANES, n = group_width(w, g);
        load_states(w->a + g * width, (const float *)p->a->data + channel * width, n, width);
        w->skip[g] = load_group(p->skip, 0, channel, n);
        w->dskip[g] = sw_splat(0);
    }
    memset(w->da, 0, vectors(w->groups * width));
    for (int64_t i = 0; i < seqs->shape[0]; i++)
        run_back(p, w, dx, ddt, b_sum, c_sum, sw_run_of(seqs, i));
    for (int64_t g = 0; g < w->groups; g++)
        for (int64_t i = 0, channel = w->first + g * SW_LANES; i < group_width(w, g); i++) {
            for (int64_t j = 0; da && j < width; j++)
                ((float *)da->data)[(channel + i) * width + j] += w->da[g * width + j][i];
            if (dskip)
                ((float *)dskip->data)[channel + i] += w->dskip[g][i];
        }
}

/* The channels are PARTS tasks, whatever the number of threads, each with sums of its own for db and dc. */
int SW_CPU(selective_scan_bwd)(sw_stream *s, sw_tensor *dx, sw_tensor *ddt, sw_tensor *da, sw_tensor *db, sw_tensor *dc,
                               sw_tensor *dskip, const sw_tensor *dy, const sw_tensor *x, const sw_tensor *dt, const sw_tensor *a,
                               const sw_tensor *b, const sw_tensor *c, const sw_tensor *skip, const sw_tensor *seqs)
{
    scan p = {x, dt, a, b, c, skip, dy, a->shape[1]};
    int64_t channels = x->shape[1], width = p.width, sums = x->shape[0] * width, longest = sw_longest_run(seqs);
    int64_t groups = (channels + SW_LANES - 1) / SW_LANES, most = (groups + PARTS - 1) / PARTS;
    size_t each = vectors(part_vectors(most, width, longest)), both = (size_t)(PARTS * 2 * sums) * sizeof(float);
    each = (each + 127) & ~(size_t)63;
    both = (both + 127) & ~(size_t)63;
    char *all = sw_stream_scratch(s, each * (size_t)omp_get_max_threads() + both);
    if (!all)
        return -1;
    float *space = (float *)(void *)(all + each * (size_t)omp_get_max_threads());
    memset(space, 0, both);
#pragma omp parallel for schedule(dynamic) if (sw_numel(x) * width >= SW_PARALLEL)
    for (int64_t i = 0; i < PARTS; i++) {
        int64_t first = i * groups / PARTS * SW_LANES, last = SW_MIN((i + 1) * groups / PARTS * SW_LANES, channels);
        if (first >= last)
            continue;
        part w = part_in((sw_vec *)(void *)(all + (size_t)omp_get_thread_num() * each), first, last, width, longest);
        part_back(&p, &w, dx, ddt, da, dskip, space + i * 2 * sums, space + (i * 2 + 1) * sums, seqs);
    }
    sw_tensor *to[] = {db, dc};
    for (int64_t i = 0; i < seqs->shape[0]; i++) {
        sw_run r = sw_run_of(seqs, i);
#pragma omp parallel for schedule(static) if (r.rows * width * PARTS >= SW_PARALLEL)
        for (int64_t row = r.first; row < r.first + r.rows; row++)
            for (int which = 0; which < 2; which++) {
                if (!to[which])
                    continue;
                float *total = space + which * sums + row * width;
                for (int64_t i_part = 1; i_part < PARTS; i_part++)
                    for (int64_t n = 0; n < width; n++)
                        total[n] += total[i_part * 2 * sums + n];
                sw_store_part(to[which], row, 0, width, total);
            }
    }
    return 0;
}
