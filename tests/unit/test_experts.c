/* Linears of experts: at once or one by one, with LoRA and without, give what each expert's own matrices give. */
#include "adapter/lora.h"
#include "tests/unit/adapters.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXPERTS = 4, IN = 24, OUT = 20, TOKENS = 9, K = 2, PLACES = TOKENS * K, MOST = 8192 };
static sw_device *device;

typedef struct kind {
    const char *what, *config; /* of LoRA; NULL: the weights train */
    bool one_bf16, one_bias;   /* of expert 2 */
    bool at_once;
} kind;

typedef struct layer {
    sw_params params;
    sw_linear l[EXPERTS];
    sw_linears all;
    sw_param *x;
    sw_modules modules;
    sw_tuned *tuned;
    sw_flat flat;
    char path[EXPERTS][64];
} layer;

typedef struct result {
    float y[PLACES * OUT], gradients[MOST];
    int32_t start[EXPERTS + 2];
    bool at_once;
} result;

static void fill(sw_param *p)
{
    sw_rng rng = {7, 0, sw_rng_site(p->name)};
    for (int64_t i = 0; i < sw_numel(&p->v.t); i++)
        sw_scalar_set(p->v.t.data, p->v.t.dtype, i, 0.3 * sw_rng_normal(&rng, (uint64_t)i));
}

static void make(layer *m, const kind *k)
{
    memset(m, 0, sizeof *m);
    m->all = (sw_linears){.at = m->l, .n = EXPERTS, .w = SW_NEW_ARRAY(sw_param *, EXPERTS)};
    m->x = sw_param_new(&m->params, device, "x", SW_F32, 2, (int64_t[]){PLACES, IN});
    m->x->trainable = true;
    fill(m->x);
    m->modules = (sw_modules){.params = &m->params, .device = device};
    for (int e = 0; e < EXPERTS; e++) {
        char name[80];
        snprintf(m->path[e], sizeof m->path[e], "mlp.experts.%d.up_proj", e);
        snprintf(name, sizeof name, "%s.weight", m->path[e]);
        m->l[e] = (sw_linear){.name = m->path[e], .in = IN, .out = OUT};
        m->l[e].w = sw_param_new(&m->params, device, name, e == 2 && k->one_bf16 ? SW_BF16 : SW_F32, 2, (int64_t[]){OUT, IN});
        fill(m->l[e].w);
        m->l[e].w->trainable = !k->config;
        if (e == 2 && k->one_bias) {
            m->l[e].bias = sw_param_new(&m->params, device, "bias", SW_F32, 1, (int64_t[]){OUT});
            memset(m->l[e].bias->v.t.data, 0, OUT * sizeof(float));
        }
        SW_PUSH(m->modules, ((sw_module){SW_MODULE_LINEAR, m->path[e], &m->l[e], &m->l[e].w, &m->l[e].bias}));
    }
    sw_params trained = {0};
    SW_PUSH(trained, m->x);
    cJSON *config = k->config ? cJSON_Parse(k->config) : NULL;
    if (config && !(m->tuned = sw_tuner_attach(&m->modules, config, 1)))
        fail_msg("%s: %s", k->what, sw_error());
    cJSON_Delete(config);
    for (int e = 0; !m->tuned && e < EXPERTS; e++)
        SW_PUSH(trained, m->l[e].w);
    for (size_t i = 0; m->tuned && i < m->tuned->params.n; i++) {
        fill(m->tuned->params.at[i]);
        SW_PUSH(trained, m->tuned->params.at[i]);
    }
    assert_int_equal(sw_flat_build(&m->flat, &trained, device, SW_F32), 0);
    assert_true(m->flat.n <= MOST);
    free(trained.at);
}

/* Where each pair goes; the last choice is none of these experts. */
static void choices(int32_t *ids)
{
    for (int i = 0; i < PLACES; i++)
        ids[i] = i % 2 ? i * 7 % (EXPERTS + 1) : i * 3 % 7 % EXPERTS;
}

static void run(layer *m, result *r)
{
    sw_ctx c;
    sw_dispatch d;
    int32_t to[PLACES];
    choices(to);
    memset(r, 0, sizeof *r);
    assert_int_equal(sw_ctx_init(&c, device, SW_F32) || sw_flat_zero_grad(&m->flat), 0);
    c.recording = true;
    sw_var *ids = sw_from_host(&c, SW_I32, 2, (int64_t[]){TOKENS, K}, to);
    assert_true(ids && !sw_dispatch_pairs(&c, ids, EXPERTS + 1, &d));
    sw_var *y = sw_linear_places(&c, &m->all, &m->x->v, &d);
    if (!y)
        fail_msg("%s", sw_error());
    for (size_t i = 0; i < c.nodes.n; i++)
        r->at_once |= !strcmp(c.nodes.at[i].op, "matmul_places");
    float seed[PLACES * OUT];
    for (int i = 0; i < PLACES * OUT; i++)
        seed[i] = (float)sin(i);
    assert_int_equal(sw_to_host(&c, y, r->y) || sw_to_host(&c, d.start, r->start), 0);
    sw_var *g = sw_from_host(&c, SW_F32, 2, (int64_t[]){PLACES, OUT}, seed);
    assert_int_equal(sw_backward(&c, y, &g->t), 0);
    assert_int_equal(device->get(device, r->gradients, m->flat.grad.data, (size_t)m->flat.n * sizeof(float)), 0);
    sw_ctx_free(&c);
}

static double value(const sw_param *p, int64_t i) { return sw_scalar_get(p->v.t.data, p->v.t.dtype, i); }

/* w x + scale b (a x) */
static double by_hand(const layer *m, int e, int place, int o)
{
    const sw_linear *l = &m->l[e];
    const sw_lora *a = (const sw_lora *)l->adapter;
    double sum = 0;
    for (int i = 0; i < IN; i++)
        sum += value(l->w, o * IN + i) * value(m->x, place * IN + i);
    for (int64_t k = 0; a && k < a->a->v.t.shape[0]; k++)
        for (int i = 0; i < IN; i++)
            sum += a->scale * value(a->b, o * a->a->v.t.shape[0] + k) * value(a->a, k * IN + i) * value(m->x, place * IN + i);
    return sum;
}

static void done(layer *m)
{
    free_tuned(&m->modules, m->tuned, &m->flat);
    free(m->all.w);
}

#define LORA "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 5, \"target_modules\": "

static void experts(void **state)
{
    (void)state;
    static const kind kinds[] = {
        {"weights", NULL, false, false, true},
        {"LoRA", LORA "[\"up_proj\"]}", false, false, true},
        {"ranks that differ", LORA "[\"up_proj\"], \"rank_pattern\": {\"experts.3.up_proj\": 2}}", false, false, false},
        {"LoRA on some", LORA "[\"1.up_proj\", \"2.up_proj\"]}", false, false, false},
        {"types that differ", LORA "[\"up_proj\"]}", true, false, false},
    };
    for (size_t i = 0; i < SW_COUNT(kinds); i++) {
        layer m;
        static result r, other;
        make(&m, &kinds[i]);
        run(&m, &r);
        if (r.at_once != kinds[i].at_once)
            fail_msg("%s: %s", kinds[i].what, r.at_once ? "at once" : "one by one");
        for (int e = 0; e <= EXPERTS; e++)
            for (int place = r.start[e]; place < r.start[e + 1]; place++)
                for (int o = 0; o < OUT; o++) {
                    double want = e < EXPERTS ? by_hand(&m, e, place, o) : 0, have = r.y[place * OUT + o];
                    if (!(fabs(want - have) <= 1e-5))
                        fail_msg("%s: place %d of expert %d, value %d is %g, not %g", kinds[i].what, place, e, o, have, want);
                }
        assert_int_equal(r.start[EXPERTS + 1], PLACES);
        assert_true(r.start[EXPERTS] < PLACES);
        done(&m);
        /* a bias of zeros changes nothing but that they are run one by one */
        kind apart = kinds[i];
        apart.one_bias = true;
        make(&m, &apart);
        run(&m, &other);
        assert_false(other.at_once);
        for (int64_t k = 0; k < m.flat.n; k++)
            if (!(fabsf(r.gradients[k] - other.gradients[k]) <= 2e-5f))
                fail_msg("%s: gradient %d is %g, one by one %g", kinds[i].what, (int)k, (double)r.gradients[k],
                         (double)other.gradients[k]);
        done(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(experts)};
    int failed = 0;
    static const char *const devices[] = {"reference", "cpu"};
    for (size_t i = 0; i < SW_COUNT(devices); i++) {
        if (!(device = sw_device_open(devices[i])))
            return 1;
        failed += cmocka_run_group_tests_name(devices[i], tests, NULL, NULL);
        device->close(device);
    }
    return failed;
}
