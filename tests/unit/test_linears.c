/* Linears that read one input: one product with all their adapters' first matrices each way, where these lie side by side, and
 * the numbers of one Linear after the other. */
#include "base/json.h"
#include "model/model.h"
#include "tests/unit/adapters.h"
#include "tests/unit/logits.h"

#include <stdlib.h>
#include <string.h>

enum { Q, K, V, LINEARS, IN = 32, ROWS = 9, WIDE = 24 + 8 + 16, MOST = 8192 };
static const int64_t width[LINEARS] = {24, 8, 16};
static const char *const paths[LINEARS] = {"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj",
                                           "model.layers.0.self_attn.v_proj"};
static sw_device *device;

typedef struct kind {
    const char *what, *config;
    int shared; /* of them make one product */
    bool training, k_off, attached_order, weights, quantised, bf16;
    enum { NONE, ABOVE, ABOVE_OFF, BELOW } louder; /* where another adapter hangs on q */
} kind;

typedef struct layer {
    const kind *kind;
    sw_params params;
    sw_linear l[LINEARS];
    sw_param *x;
    sw_modules modules;
    sw_tuned *tuned;
    sw_flat flat;
    size_t finals;
} layer;

/* ---- what products are asked for */

typedef struct product {
    enum { FORWARD, BACK_X, BACK_W } way;
    const char *matrix;
    int64_t rows;
    bool adds;
} product;
static struct {
    product at[256];
    size_t n;
} asked;

static void note(int way, const sw_tensor *w, double beta)
{
    assert_true(asked.n < SW_COUNT(asked.at));
    asked.at[asked.n++] = (product){way, w->data, w->shape[0], beta != 0};
}
static const sw_kernels *plain;
static int noted_fwd(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, double alpha,
                     double beta)
{
    note(FORWARD, w, beta);
    return plain->linear_fwd(s, y, x, w, bias, alpha, beta);
}
static int noted_bwd_x(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_tensor *w, double alpha, double beta)
{
    note(BACK_X, w, beta);
    return plain->linear_bwd_x(s, dx, dy, w, alpha, beta);
}
static int noted_bwd_w(sw_stream *s, sw_tensor *dw, const sw_tensor *dy, const sw_tensor *x, double alpha)
{
    note(BACK_W, dw, 1);
    return plain->linear_bwd_w(s, dw, dy, x, alpha);
}

static void listen(sw_kernels *noted)
{
    plain = device->k;
    *noted = *plain;
    noted->linear_fwd = noted_fwd;
    noted->linear_bwd_x = noted_bwd_x;
    noted->linear_bwd_w = noted_bwd_w;
    device->k = noted;
    asked.n = 0;
}
static void stop_listening(void) { device->k = plain; }

/* Products of a way with first matrices of adapters, and how many rows these had; *first: where the first of them is. */
static int with_first_matrices(const sw_tuned *t, int way, int64_t *rows, size_t *first)
{
    int n = 0;
    *rows = 0;
    for (size_t i = 0; i < asked.n; i++)
        for (size_t k = 0; k < t->params.n; k++) {
            const sw_param *p = t->params.at[k];
            const char *matrix = way == BACK_W ? p->v.grad->t.data : p->v.t.data;
            if (asked.at[i].way != (unsigned)way || !p->reads_x || asked.at[i].matrix != matrix)
                continue;
            *first = n++ ? *first : i;
            *rows += asked.at[i].rows;
        }
    return n;
}

/* ---- the layer */

static void fill(sw_param *p)
{
    sw_rng rng = {7, 0, sw_rng_site(p->name)};
    float values[1024];
    assert_true(sw_numel(&p->v.t) <= 1024 && p->v.t.dtype == SW_F32);
    for (int64_t i = 0; i < sw_numel(&p->v.t); i++)
        values[i] = 0.3f * (float)sw_rng_normal(&rng, (uint64_t)i);
    ok(device->put(device, p->v.t.data, values, sw_tensor_bytes(&p->v.t)));
}

static sw_param *param(layer *m, const char *name, int64_t rows, int64_t columns)
{
    sw_param *p = sw_param_new(&m->params, device, name, SW_F32, 2, (int64_t[]){rows, columns});
    assert_non_null(p);
    fill(p);
    return p;
}

static void make(layer *m, const kind *k)
{
    *m = (layer){.kind = k};
    m->x = param(m, "x", ROWS, IN);
    m->modules = (sw_modules){.params = &m->params, .device = device};
    for (int i = 0; i < LINEARS; i++) {
        m->l[i] = (sw_linear){.name = paths[i], .in = IN, .out = width[i], .w = param(m, paths[i], width[i], IN)};
        if (i == K) {
            m->l[i].bias = sw_param_new(&m->params, device, "bias", SW_F32, 1, &width[i]);
            assert_non_null(m->l[i].bias);
            fill(m->l[i].bias);
        }
        if (k->quantised) {
            sw_param *low = sw_param_new(&m->params, device, "low", SW_Q8_0, 2, (int64_t[]){width[i], IN});
            assert_non_null(low);
            unsigned char blocks[24 * 34];
            for (size_t b = 0; b < sizeof blocks; b++) /* a scale of 2^-8 in f16, and 32 whole numbers */
                blocks[b] = b % 34 == 0 ? 0 : b % 34 == 1 ? 0x1c : (unsigned char)(b * 37);
            ok(device->put(device, low->v.t.data, blocks, sw_tensor_bytes(&low->v.t)));
            m->l[i].w = low;
        }
        SW_PUSH(m->modules, ((sw_module){SW_MODULE_LINEAR, paths[i], &m->l[i], &m->l[i].w, &m->l[i].bias}));
    }
    cJSON *config = sw_json_parse(k->config, strlen(k->config));
    if (!(m->tuned = sw_tuner_attach(&m->modules, config, 1)))
        fail_msg("%s: %s", k->what, sw_error());
    cJSON_Delete(config);
    sw_params list = k->attached_order ? (sw_params){0} : sw_tuned_trainable(m->tuned);
    for (size_t i = 0; i < m->tuned->params.n; i++) {
        fill(m->tuned->params.at[i]);
        if (k->attached_order)
            SW_PUSH(list, m->tuned->params.at[i]);
    }
    SW_PUSH(list, m->x);
    for (int i = 0; i < LINEARS && k->weights; i++)
        SW_PUSH(list, m->l[i].w);
    for (size_t i = 0; i < list.n; i++)
        list.at[i]->trainable = true;
    ok(sw_flat_build(&m->flat, &list, device, k->bf16 ? SW_BF16 : SW_F32));
    assert_true(m->flat.n <= MOST);
    free(list.at);
    if (k->k_off) {
        m->l[K].adapter->off = true;
        sw_layout_changed();
    }
    if (k->louder) {
        sw_adapter *lora = m->l[Q].adapter, *a = new_louder(k->louder == ABOVE_OFF);
        sw_linear_attach(&m->l[Q], a);
        if (k->louder == BELOW) {
            m->l[Q].adapter = lora;
            lora->next = a;
            a->next = NULL;
        }
    }
}

/* ---- running it */

static int count_final(void *arg, sw_param *p)
{
    ((layer *)arg)->finals++;
    return p->v.uses;
}

/* All three of 2 x, weighed and added up, so that their gradients come in another order than theirs; [ROWS, 8]. */
static sw_var *three(sw_ctx *c, layer *m, sw_var *x, bool together)
{
    sw_linear *l[LINEARS] = {&m->l[Q], &m->l[K], &m->l[V]};
    sw_var *y[LINEARS] = {NULL}, *h = sw_scale(c, x, 2), *sum;
    if (!h || (together && sw_linears_forward(c, l, LINEARS, h, y)))
        return NULL;
    for (int i = 0; i < LINEARS && !together; i++)
        if (!(y[i] = sw_linear_forward(c, l[i], h)))
            return NULL;
    sum = sw_add(c, sw_glu(c, sw_columns(c, y[Q], 0, 8), y[K], SW_ACT_SILU), sw_columns(c, y[V], 8, 8));
    return sum ? sw_add(c, sum, sw_columns(c, y[Q], 16, 8)) : NULL;
}
static sw_var *together(sw_ctx *c, sw_var *x, void *m) { return three(c, m, x, true); }

enum { APART, TOGETHER, AGAIN };
typedef struct result {
    float y[ROWS * 8], gradients[MOST];
} result;

static void run(layer *m, int how, result *r)
{
    sw_ctx c;
    sw_kernels noted;
    float seed[ROWS * 8];
    m->finals = 0;
    ok(sw_ctx_init(&c, device, m->kind->bf16 ? SW_BF16 : SW_F32) || sw_flat_zero_grad(&m->flat));
    c.recording = true;
    c.training = m->kind->training;
    c.where = "outside";
    c.hooks = (sw_tape_hooks){.arg = m, .final_grad = count_final};
    listen(&noted);
    sw_var *y = how == AGAIN ? sw_recompute(&c, together, &m->x->v, m) : three(&c, m, &m->x->v, how == TOGETHER);
    sw_var *f = y ? sw_cast(&c, y, SW_F32) : NULL;
    if (!f)
        fail_msg("%s: %s", m->kind->what, sw_error());
    assert_string_equal(c.where, "outside");
    ok(sw_to_host(&c, f, r->y));
    for (int i = 0; i < ROWS * 8; i++)
        seed[i] = (float)sin(i);
    sw_var *g = sw_from_host(&c, SW_F32, 2, (int64_t[]){ROWS, 8}, seed);
    assert_non_null(g);
    ok(sw_backward(&c, f, &g->t));
    stop_listening();
    ok(device->get(device, r->gradients, m->flat.grad.data, (size_t)m->flat.n * sizeof(float)));
    sw_ctx_free(&c);
}

static void assert_same(const char *what, const float *a, const float *b, int64_t n, double relative)
{
    double largest = 0, most = 0;
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs((double)b[i]));
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    }
    if (!(most <= relative * largest) || largest == 0)
        fail_msg("%s: differs by %g of %g", what, most, largest);
}

static void assert_asked(const layer *m)
{
    const kind *k = m->kind;
    int64_t rows, on = 0;
    size_t first = 0;
    int each = 0;
    for (int i = 0; i < LINEARS; i++) {
        sw_adapter *a = m->l[i].adapter;
        sw_low_rank r = {0};
        while (a && !a->ops->low_rank)
            a = a->next;
        if (!a || a->off)
            continue;
        a->ops->low_rank(a, &r);
        on += r.a->v.t.shape[0];
        each++;
    }
    for (int way = FORWARD; way <= BACK_W; way++) {
        int products = with_first_matrices(m->tuned, way, &rows, &first);
        if (products != each - (k->shared ? k->shared - 1 : 0) || rows != on)
            fail_msg("%s: %d products of way %d with %d rows", k->what, products, way, (int)rows);
        for (size_t i = 0; i < asked.n && way == BACK_X && k->shared; i++)
            for (int l = 0; l < LINEARS; l++) /* the small one writes, the large ones add */
                if (asked.at[i].way == BACK_X && asked.at[i].matrix == m->l[l].w->v.t.data && (i < first || !asked.at[i].adds))
                    fail_msg("%s: the product of %s comes first on the way back", k->what, paths[l]);
        if (way == BACK_X && k->shared && asked.at[first].adds)
            fail_msg("%s: the small product adds", k->what);
    }
}

#define LORA "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 5, \"target_modules\": "
#define ALL LORA "[\"q_proj\", \"k_proj\", \"v_proj\"]"

static void linears(void **state)
{
    (void)state;
    static const kind kinds[] = {
        {"all", ALL "}", .shared = 3},
        {"all, whose weights train", ALL "}", .shared = 3, .weights = true},
        {"all in bf16", ALL "}", .shared = 3, .bf16 = true},
        {"all over blocks", ALL "}", .shared = 3, .quantised = true},
        {"other ranks and scales", ALL ", \"rank_pattern\": {\"k_proj\": 3}, \"alpha_pattern\": {\"v_proj\": 9}}", .shared = 3},
        {"q and v", LORA "[\"q_proj\", \"v_proj\"]}", .shared = 2},
        {"one", LORA "[\"v_proj\"]}", .shared = 0},
        {"dropout in training", ALL ", \"lora_dropout\": 0.3}", .shared = 0, .training = true},
        {"dropout elsewhere", ALL ", \"lora_dropout\": 0.3}", .shared = 3},
        {"one that is off", ALL "}", .shared = 0, .k_off = true},
        {"another adapter on q's", ALL "}", .shared = 2, .louder = ABOVE},
        {"another that is off", ALL "}", .shared = 3, .louder = ABOVE_OFF},
        {"another below q's", ALL "}", .shared = 2, .louder = BELOW},
        {"matrices apart", ALL "}", .shared = 0, .attached_order = true},
    };
    for (size_t i = 0; i < SW_COUNT(kinds); i++) {
        const kind *k = &kinds[i];
        static result one, all, again;
        layer m;
        make(&m, k);
        run(&m, APART, &one);
        run(&m, TOGETHER, &all);
        assert_asked(&m);
        assert_int_equal(m.finals, m.flat.n_params - (k->k_off ? 2 : 0));
        run(&m, AGAIN, &again);
        assert_memory_equal(all.y, again.y, sizeof all.y);
        assert_memory_equal(all.gradients, again.gradients, (size_t)m.flat.n * sizeof(float));
        double relative = k->bf16 ? 2e-2 : 1e-6;
        assert_same(k->what, all.y, one.y, ROWS * 8, relative);
        for (size_t p = 0; p < m.flat.n_params; p++) {
            const sw_param *q = m.flat.params[p];
            if (!k->k_off || !strstr(q->name, "k_proj"))
                assert_same(q->name, all.gradients + q->offset, one.gradients + q->offset, sw_numel(&q->v.t), relative);
        }
        free_tuned(&m.modules, m.tuned, &m.flat);
    }
}

/* ---- models */

static void models(void **state)
{
    (void)state;
    static const struct {
        const char *folder;
        int products; /* with first matrices, but of experts; of each layer: */
    } of[] = {
        {"llama", 8},           /* q k v, o, gate up, down */
        {"gpt2", 8},            /* packed, o, up, down */
        {"qwen3_5_text", 8},    /* qkv z b a, out, gate up, down; q k v, o, gate up, down */
        {"recurrent_gemma", 8}, /* x y, out, gate up, down; q k v, o, gate up, down */
        {"gemma4_text", 13},    /* before them 1; q k v, o, gate up, down, and 2 of the input of each layer */
        {"afmoe", 9},           /* q k v gate, o, gate up, down; the same with a router, gate up and down of the shared expert */
        {"kimi_linear", 16},    /* q k v, 5 small ones, o, gate up, down; q, 2 of latents, o, the router, gate up, down */
    };
    static const int32_t ids[] = {5, 9, 3, 7, 7, 2};
    enum { TOKENS = SW_COUNT(ids) };
    for (size_t i = 0; i < SW_COUNT(of); i++) {
        char path[128];
        snprintf(path, sizeof path, "tests/golden/llm/%s", of[i].folder);
        sw_model *m = sw_model_load(path, device, &(sw_load_options){.dtype = SW_F32});
        if (!m)
            fail_msg("%s", sw_error());
        sw_modules modules = sw_model_modules(m);
        cJSON *config = sw_json_parse(LORA "\"all-linear\"}", strlen(LORA "\"all-linear\"}"));
        sw_tuned *t = sw_tuner_attach(&modules, config, 1);
        cJSON_Delete(config);
        assert_non_null(t);
        sw_params list = sw_tuned_trainable(t);
        sw_flat flat;
        sw_ctx c;
        sw_kernels noted;
        ok(sw_flat_build(&flat, &list, device, SW_F32) || sw_flat_zero_grad(&flat) || sw_ctx_init(&c, device, SW_F32));
        free(list.at);
        c.recording = true;
        listen(&noted);
        sw_batch batch = {.n = TOKENS, .n_seqs = 1, .ids = ids, .lengths = &(int64_t){TOKENS}};
        sw_var *h = sw_model_forward(&c, m, &batch, false);
        if (!h)
            fail_msg("%s: %s", path, sw_error());
        sw_var *g = sw_like(&c, h);
        assert_non_null(g);
        ok(plain->fill(device->stream, &g->t, 1) || sw_backward(&c, h, &g->t));
        stop_listening();
        int64_t rows;
        size_t first;
        int forward = with_first_matrices(t, FORWARD, &rows, &first), back = with_first_matrices(t, BACK_W, &rows, &first);
        if (forward != of[i].products || back != of[i].products)
            fail_msg("%s: %d products forward, %d gradients, not %d", path, forward, back, of[i].products);
        sw_ctx_free(&c);
        sw_flat_free(&flat);
        free(modules.at);
        sw_model_free(m);
        sw_tuned_free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(linears), cmocka_unit_test(models)};
    int failed = 0;
    static const char *const devices[] = {"reference", "cpu", "emulator"};
    for (size_t i = 0; i < SW_COUNT(devices); i++) {
        if (!(device = sw_device_open(devices[i])))
            return 1;
        failed += cmocka_run_group_tests_name(devices[i], tests, NULL, NULL);
        device->close(device);
    }
    return failed;
}
