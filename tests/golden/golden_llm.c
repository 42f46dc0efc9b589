/* Kind llm: logits, loss, every gradient and greedy tokens of tiny checkpoints (shared INDEX.md "llm"). */
#include "golden.h"

#include "base/fileio.h"
#include "base/json.h"
#include "model/model.h"
#include "store/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int is_case(const char *dir) { return golden_has(dir, "golden.safetensors") && golden_has(dir, "config.json"); }

/* The case's rows without padding, one after the other. */
typedef struct rows {
    int64_t width, n, n_rows;
    int32_t *ids, *positions, *targets;
    int64_t *lengths, *place; /* place: index in [row, column] of token i */
    double labelled;
    int32_t *source;         /* of models with an encoder: what it reads, and how many tokens of each row */
    int64_t *source_lengths;
} rows;

/* Of a model that reads one text and writes another: the texts that it reads, without padding. What it writes has none. */
static int read_sources(const sw_entry *ids, const sw_entry *mask, rows *r)
{
    int64_t width = ids->t.shape[1], n = 0;
    if (ids->t.shape[0] != r->n_rows || mask->t.shape[0] != r->n_rows || mask->t.shape[1] != width)
        return sw_fail("golden.safetensors: input_ids, attention_mask and decoder_input_ids differ in their rows");
    r->source = SW_NEW_ARRAY(int32_t, (size_t)(r->n_rows * width));
    r->source_lengths = SW_NEW_ARRAY(int64_t, (size_t)r->n_rows);
    for (int64_t i = 0; i < r->n_rows * width; i++)
        if (sw_scalar_get(mask->t.data, mask->t.dtype, i)) {
            r->source[n++] = (int32_t)sw_scalar_get(ids->t.data, ids->t.dtype, i);
            r->source_lengths[i / width]++;
        }
    return 0;
}

/* shift: the target of a token is the label of the next one, else its own. */
static int read_rows(const sw_safetensors *g, int64_t shift, rows *r)
{
    const sw_entry *ids = sw_st_find(g, "input_ids"), *mask = sw_st_find(g, "attention_mask"), *pos = sw_st_find(g, "position_ids"),
                   *labels = sw_st_find(g, "labels");
    if (!ids || !mask || ids->t.ndim != 2)
        return sw_fail("golden.safetensors: input_ids or attention_mask is missing");
    const sw_entry *source = ids, *decoder = sw_st_find(g, "decoder_input_ids");
    if (decoder) {
        ids = decoder;
        pos = NULL;
        shift = 0;
    }
    r->n_rows = ids->t.shape[0];
    r->width = ids->t.shape[1];
    size_t all = (size_t)(r->n_rows * r->width);
    r->ids = SW_NEW_ARRAY(int32_t, all);
    r->positions = SW_NEW_ARRAY(int32_t, all);
    r->targets = SW_NEW_ARRAY(int32_t, all);
    r->place = SW_NEW_ARRAY(int64_t, all);
    r->lengths = SW_NEW_ARRAY(int64_t, (size_t)r->n_rows);
    for (int64_t b = 0; b < r->n_rows; b++)
        for (int64_t t = 0; t < r->width; t++) {
            int64_t i = b * r->width + t;
            if (!decoder && !sw_scalar_get(mask->t.data, mask->t.dtype, i))
                continue;
            r->ids[r->n] = (int32_t)sw_scalar_get(ids->t.data, ids->t.dtype, i);
            r->positions[r->n] = pos ? (int32_t)sw_scalar_get(pos->t.data, pos->t.dtype, i) : (int32_t)r->lengths[b];
            int32_t target = -1;
            if (labels && labels->t.ndim == 2 && t + shift < r->width)
                target = (int32_t)sw_scalar_get(labels->t.data, labels->t.dtype, i + shift);
            r->targets[r->n] = target == -100 ? -1 : target;
            r->labelled += r->targets[r->n] >= 0;
            r->place[r->n++] = i;
            r->lengths[b]++;
        }
    return decoder ? read_sources(source, mask, r) : 0;
}

static void free_rows(rows *r)
{
    free(r->ids);
    free(r->positions);
    free(r->targets);
    free(r->place);
    free(r->lengths);
    free(r->source);
    free(r->source_lengths);
}

static int check(double *worst, double difference, double tolerance, const char *what)
{
    if (!(difference <= *worst))
        *worst = difference;
    return difference <= tolerance ? 0 : sw_fail("%s differs by %.3g, %.1g is allowed", what, difference, tolerance);
}

static int check_logits(sw_ctx *c, sw_var *logits, const sw_safetensors *g, const rows *r, double *worst)
{
    const sw_entry *e = sw_st_find(g, "logits");
    if (!e)
        return sw_fail("golden.safetensors: logits are missing");
    int64_t v = logits->t.shape[1];
    float *got = sw_malloc(sw_tensor_bytes(&logits->t));
    double d = 0;
    int rc = sw_to_host(c, logits, got);
    if (!rc && e->t.shape[e->t.ndim - 1] != v)
        rc = sw_fail("logits have %lld columns, not %lld", (long long)v, (long long)e->t.shape[e->t.ndim - 1]);
    for (int64_t i = 0; !rc && i < logits->t.shape[0]; i++)
        d = fmax(d, golden_max_diff(got + i * v, (const float *)e->t.data + (e->t.ndim == 3 ? r->place[i] : i) * v, (size_t)v));
    free(got);
    return rc ? rc : check(worst, d, 1e-4, "logits");
}

static int check_loss(double loss, const sw_safetensors *g, double *worst)
{
    const sw_entry *e = sw_st_find(g, "loss");
    return e ? check(worst, fabs(loss - sw_scalar_get(e->t.data, e->t.dtype, 0)), 1e-5, "loss") : sw_fail("golden.safetensors: loss is missing");
}

static bool is_zero(const sw_entry *e)
{
    for (int64_t i = 0; i < sw_numel(&e->t); i++)
        if (sw_scalar_get(e->t.data, e->t.dtype, i))
            return false;
    return true;
}

static int check_gradients(sw_model *m, const sw_safetensors *g, double *worst)
{
    size_t seen = 0;
    for (size_t i = 0; i < sw_st_count(g); i++) {
        const sw_entry *e = sw_st_at(g, i);
        if (strncmp(e->name, "grad.", 5))
            continue;
        const sw_stored *stored = sw_model_stored(m, e->name + 5);
        if (!stored && is_zero(e)) /* of another task's head */
            continue;
        if (!stored)
            return sw_fail("no parameter is called %s", e->name + 5);
        const sw_var *grad = stored->p->v.grad; /* NULL: nobody trains it, as if the gradient were zero */
        sw_tensor part = sw_stored_part(stored, grad ? &grad->t : &stored->p->v.t);
        size_t n = (size_t)sw_numel(&e->t);
        if (sw_numel(&part) != (int64_t)n)
            return sw_fail("%s has another size", e->name);
        float *got = SW_NEW_ARRAY(float, n);
        if (grad && m->device->get(m->device, got, part.data, n * sizeof *got)) {
            free(got);
            return -1;
        }
        double largest = 1, d = 0;
        const float *want = e->t.data;
        int64_t rows = part.ndim ? part.shape[0] : 1, columns = (int64_t)n / SW_MAX(rows, 1);
        for (size_t k = 0; k < n; k++) {
            size_t at = stored->transposed ? k % (size_t)columns * (size_t)rows + k / (size_t)columns : k;
            largest = fmax(largest, fabs(want[at]));
            d = fmax(d, golden_max_diff(got + k, want + at, 1));
        }
        free(got);
        if (check(worst, d, 1e-4 * largest, e->name))
            return -1;
        seen++;
    }
    return seen ? 0 : sw_fail("golden.safetensors: holds no gradient");
}

/* known: the head's gradient is made in the forward pass, as supervised training does. */
static int language_model(sw_ctx *c, sw_model *m, const sw_safetensors *g, const rows *r, bool known, bool recompute, double *worst)
{
    sw_batch b = {.n = r->n, .n_seqs = r->n_rows, .ids = r->ids, .positions = r->positions, .lengths = r->lengths,
                  .source_ids = r->source, .source_lengths = r->source_lengths};
    c->recording = true;
    sw_var *h = sw_model_forward(c, m, &b, recompute);
    if (!h)
        return -1;
    sw_head head = sw_model_head(m);
    sw_var *logits = sw_logits(c, h, &head);
    if (!logits || check_logits(c, logits, g, r, worst))
        return -1;
    float *seed = sw_ctx_alloc(c, (size_t)r->n * sizeof *seed), *logp = sw_ctx_alloc(c, (size_t)r->n * sizeof *logp);
    for (int64_t i = 0; i < r->n; i++)
        seed[i] = r->targets[i] >= 0 ? (float)(-1 / r->labelled) : 0;
    sw_logprobs out;
    sw_var *targets = sw_from_host(c, SW_I32, 1, &r->n, r->targets);
    if (!targets || sw_token_logprobs(c, h, &head, &(sw_logprob_request){.targets = targets, .dlogp = known ? seed : NULL}, &out) ||
        sw_to_host(c, out.logp, logp))
        return -1;
    double loss = 0;
    for (int64_t i = 0; i < r->n; i++)
        loss -= (double)logp[i] / r->labelled;
    sw_var *dlogp = sw_from_host(c, SW_F32, 1, &r->n, seed);
    if (!dlogp || check_loss(loss, g, worst) || sw_backward(c, out.logp, &dlogp->t))
        return -1;
    return check_gradients(m, g, worst);
}

/* -log sigmoid(score of row 1 - score of row 2), or cross entropy of labels. */
static int classifier(sw_ctx *c, sw_model *m, const sw_safetensors *g, const rows *r, bool reward, bool recompute, double *worst)
{
    sw_batch b = {.n = r->n, .n_seqs = r->n_rows, .ids = r->ids, .positions = r->positions, .lengths = r->lengths};
    c->recording = true;
    sw_var *h = sw_model_forward(c, m, &b, recompute), *pooled = h ? sw_model_pool(c, m, &b, h) : NULL;
    sw_var *y = pooled ? sw_model_score(c, m, pooled) : NULL;
    if (!y || check_logits(c, y, g, r, worst))
        return -1;
    int64_t n = r->n_rows, k = m->spec.labels;
    float *s = sw_ctx_alloc(c, (size_t)(n * k) * sizeof *s), *d = sw_ctx_alloc(c, (size_t)(n * k) * sizeof *d);
    if (sw_to_host(c, y, s))
        return -1;
    double loss = 0;
    const sw_entry *labels = sw_st_find(g, "labels");
    if (reward) {
        double p = 1 / (1 + exp(-((double)s[0] - s[k])));
        loss = -log(p);
        d[0] = (float)(p - 1);
        d[k] = (float)(1 - p);
    } else {
        for (int64_t i = 0; i < n; i++) {
            int64_t target = labels ? (int64_t)sw_scalar_get(labels->t.data, labels->t.dtype, i) : 0;
            double sum = 0;
            for (int64_t j = 0; j < k; j++)
                sum += exp(s[i * k + j]);
            loss -= ((double)s[i * k + target] - log(sum)) / (double)n;
            for (int64_t j = 0; j < k; j++)
                d[i * k + j] = (float)((exp(s[i * k + j]) / sum - (j == target)) / (double)n);
        }
    }
    sw_var *seed = sw_from_host(c, SW_F32, 2, (int64_t[]){n, k}, d);
    if (!seed || check_loss(loss, g, worst) || sw_backward(c, y, &seed->t))
        return -1;
    return check_gradients(m, g, worst);
}

static int argmax(const float *x, int64_t n)
{
    int best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = (int)i;
    return best;
}

static int greedy(sw_ctx *c, sw_model *m, const char *dir)
{
    char *path = sw_path_join(dir, "greedy.json");
    cJSON *o = sw_json_load(path);
    free(path);
    if (!o)
        return -1;
    int32_t ids[256], source[256];
    int64_t n = 0, v = m->spec.vocab, n_source = 0;
    for (const cJSON *t = sw_json_get(o, "prompt") ? sw_json_get(o, "prompt")->child : NULL; t && n < 256; t = t->next)
        ids[n++] = (int32_t)t->valuedouble;
    sw_cache cache;
    sw_head head = sw_model_head(m);
    float *row = sw_malloc((size_t)v * sizeof *row);
    c->recording = false;
    int rc = sw_cache_init(&cache, c, m, 1);
    int64_t step = 0;
    if (!rc && m->spec.encoder_layers) { /* the prompt is the source */
        memcpy(source, ids, sizeof ids);
        n_source = n;
        ids[0] = m->spec.decoder_start;
        n = 1;
    }
    for (const cJSON *t = sw_json_get(o, "tokens") ? sw_json_get(o, "tokens")->child : NULL; t && !rc; t = t->next, step++) {
        sw_batch b = {.n = n, .n_seqs = 1, .ids = ids, .lengths = &n, .cache = &cache, .slots = &(int64_t){0},
                      .source_ids = source, .source_lengths = &n_source};
        sw_var *h = sw_model_forward(c, m, &b, false);
        sw_var *y = h ? sw_logits(c, sw_row_range(c, h, n - 1, 1), &head) : NULL;
        rc = !y || sw_to_host(c, y, row) ? -1 : 0;
        if (!rc && (ids[0] = argmax(row, v)) != (int)t->valuedouble)
            rc = sw_fail("greedy token %lld is %d, not %d", (long long)step, ids[0], (int)t->valuedouble);
        n = 1;
        n_source = 0;
        sw_ctx_reset(c);
    }
    if (!rc && !step)
        rc = sw_fail("greedy.json: no tokens");
    sw_cache_free(&cache, m);
    free(row);
    cJSON_Delete(o);
    return rc;
}

static int run_with(const char *dir, const char *config, const sw_safetensors *g, bool variant, double *worst)
{
    sw_device *d = sw_device_open(golden_device);
    if (!d)
        return -1;
    sw_ctx c = {0};
    sw_flat flat = {0};
    rows r = {0};
    char *config_path = sw_path_join(dir, config);
    sw_model *m = sw_model_load_config(dir, config_path, d, &(sw_load_options){.dtype = SW_F32});
    free(config_path);
    int rc = m ? 0 : -1;
    for (size_t i = 0; m && i < m->params.n; i++)
        m->params.at[i]->trainable = true;
    if (!rc && !variant && golden_has(dir, "greedy.json"))
        rc = sw_ctx_init(&c, d, SW_F32) || greedy(&c, m, dir);
    sw_ctx_free(&c);
    rc = rc || sw_ctx_init(&c, d, SW_F32) || sw_flat_build(&flat, &m->params, d, SW_F32) || read_rows(g, m->spec.task == SW_TASK_LM, &r);
    c.check = true;
    const sw_entry *labels = sw_st_find(g, "labels");
    if (!rc && m->spec.task == SW_TASK_CLASSIFY)
        rc = classifier(&c, m, g, &r, !labels || m->spec.labels == 1, variant, worst);
    else if (!rc)
        rc = language_model(&c, m, g, &r, variant, variant, worst);
    sw_ctx_free(&c);
    sw_flat_free(&flat);
    sw_model_free(m);
    free_rows(&r);
    d->close(d);
    return rc ? -1 : 0;
}

/* Twice: plainly, then with recomputation, the fused head and the other spelling of the configuration. */
static int run(const char *dir, double *worst)
{
    char *path = sw_path_join(dir, "golden.safetensors");
    sw_safetensors *g = sw_st_open(path);
    free(path);
    int rc = g ? run_with(dir, "config.json", g, false, worst) : -1;
    if (!rc)
        rc = run_with(dir, golden_has(dir, "config_legacy.json") ? "config_legacy.json" : "config.json", g, true, worst);
    if (g)
        sw_st_close(g);
    return rc;
}

const golden_kind golden_llm = {"llm", is_case, run, NULL};
