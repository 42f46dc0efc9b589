/* The router of mixtures of experts: who is chosen, with which weight, and the gradients of those. */
#include "nn/linear.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 64 };
static sw_device *device;

typedef struct choice {
    int32_t ids[MOST];
    float weights[MOST], dlogits[MOST];
} choice;

/* Routes n tokens of E logits, to out->ids where the router says that they are given; with `seed` [n * k] also the gradient of the sum of seed * weights. */
static void route(const sw_router *r, int64_t n, int64_t experts, const float *logits, const float *correction, const float *seed,
                  choice *out)
{
    sw_params params = {0};
    sw_flat flat;
    sw_ctx c;
    sw_param *p = sw_param_new(&params, device, "logits", SW_F32, 2, (int64_t[]){n, experts});
    assert_non_null(p);
    memcpy(p->v.t.data, logits, (size_t)(n * experts) * sizeof *logits);
    p->trainable = true;
    assert_int_equal(sw_flat_build(&flat, &params, device, SW_F32), 0);
    assert_int_equal(sw_ctx_init(&c, device, SW_F32), 0);
    c.recording = seed != NULL;
    sw_param *add = correction ? sw_param_borrow(&params, "correction", sw_tensor_of((void *)(uintptr_t)correction, SW_F32, 1, &experts)) : NULL;
    sw_var *ids = r->given ? sw_from_host(&c, SW_I32, 2, (int64_t[]){n, r->k}, out->ids) : NULL, *w = sw_route(&c, sw_parameter(&c, p), add, r, &ids);
    assert_non_null(w);
    assert_int_equal(sw_to_host(&c, w, out->weights) || sw_to_host(&c, ids, out->ids), 0);
    if (seed) {
        sw_var *g = sw_from_host(&c, SW_F32, 2, (int64_t[]){n * r->k, 1}, seed);
        assert_int_equal(sw_backward(&c, w, &g->t), 0);
        memcpy(out->dlogits, flat.grad.data, (size_t)(n * experts) * sizeof(float));
    }
    sw_ctx_free(&c);
    sw_flat_free(&flat);
    sw_params_free(&params, device);
}

static void near(const float *have, const double *want, int n)
{
    for (int i = 0; i < n; i++)
        if (!(fabs(have[i] - want[i]) <= 2e-6))
            fail_msg("value %d is %.8g, not %.8g", i, (double)have[i], want[i]);
}

static void ids_are(const choice *c, const int32_t *want, int n)
{
    for (int i = 0; i < n; i++)
        if (c->ids[i] != want[i])
            fail_msg("choice %d is %d, not %d", i, c->ids[i], want[i]);
}

#define LOG(x) (float)log(x)

static void scores_and_normalisation(void **state)
{
    (void)state;
    const float logits[] = {LOG(1), LOG(4), LOG(2), LOG(3)}; /* softmax: .1 .4 .2 .3; sigmoid: 1/2 4/5 2/3 3/4 */
    choice c;
    route(&(sw_router){.score = SW_ROUTE_SOFTMAX, .k = 2, .scale = 1}, 1, 4, logits, NULL, NULL, &c);
    ids_are(&c, (int32_t[]){1, 3}, 2);
    near(c.weights, (double[]){.4, .3}, 2);
    route(&(sw_router){.score = SW_ROUTE_SOFTMAX, .k = 2, .normalise = true, .scale = 2.5}, 1, 4, logits, NULL, NULL, &c);
    near(c.weights, (double[]){2.5 * 4 / 7, 2.5 * 3 / 7}, 2);
    route(&(sw_router){.score = SW_ROUTE_SOFTMAX, .k = 2, .normalise = true, .power = 2, .scale = 1}, 1, 4, logits, NULL, NULL, &c);
    near(c.weights, (double[]){.8, .6}, 2);
    route(&(sw_router){.score = SW_ROUTE_SIGMOID, .k = 3, .scale = 1}, 1, 4, logits, NULL, NULL, &c);
    ids_are(&c, (int32_t[]){1, 3, 2}, 3);
    near(c.weights, (double[]){.8, .75, 2. / 3}, 3);
    route(&(sw_router){.score = SW_ROUTE_SIGMOID, .k = 2, .normalise = true, .eps = .45, .scale = 1}, 1, 4, logits, NULL, NULL, &c);
    near(c.weights, (double[]){.4, .375}, 2);
}

/* It decides who is chosen; weights are those of the scores themselves. */
static void correction_is_of_the_choice_only(void **state)
{
    (void)state;
    const float logits[] = {LOG(1), LOG(4), LOG(2), LOG(3)}, correction[] = {.45f, 0, 0, -.2f};
    choice c;
    route(&(sw_router){.score = SW_ROUTE_SIGMOID, .k = 2, .normalise = true, .scale = 1}, 1, 4, logits, correction, NULL, &c);
    ids_are(&c, (int32_t[]){0, 1}, 2);
    near(c.weights, (double[]){.5 / 1.3, .8 / 1.3}, 2);
}

static void groups(void **state)
{
    (void)state;
    /* softmax: .30 .02 | .20 .18 | .16 .14; the best alone is in the first group, the best two are in the second */
    const float logits[] = {LOG(30), LOG(2), LOG(20), LOG(18), LOG(16), LOG(14)};
    sw_router r = {.score = SW_ROUTE_SOFTMAX, .k = 2, .groups = 3, .top_groups = 1, .scale = 1};
    choice c;
    route(&r, 1, 6, logits, NULL, NULL, &c);
    ids_are(&c, (int32_t[]){0, 1}, 2);
    r.group_by_two = true;
    route(&r, 1, 6, logits, NULL, NULL, &c);
    ids_are(&c, (int32_t[]){2, 3}, 2);
    near(c.weights, (double[]){.20, .18}, 2);
    r.top_groups = 2;
    r.k = 3;
    route(&r, 1, 6, logits, NULL, NULL, &c);
    ids_are(&c, (int32_t[]){0, 2, 3}, 3);
    /* the correction counts for the groups, too */
    r.k = 2;
    r.top_groups = 1;
    route(&r, 1, 6, logits, (float[]){0, 0, 0, 0, .1f, 0}, NULL, &c);
    ids_are(&c, (int32_t[]){4, 5}, 2);
}

static void the_first_of_equal_ones(void **state)
{
    (void)state;
    const float logits[] = {1, 1, 1, 1, /* and another token */ -1, 2, 2, -1};
    choice c;
    for (int score = SW_ROUTE_SOFTMAX; score <= SW_ROUTE_SPARSEMIXER; score++) {
        route(&(sw_router){.score = (sw_router_score)score, .k = 3, .scale = 1, .jitter = .01}, 2, 4, logits, NULL, NULL, &c);
        ids_are(&c, (int32_t[]){0, 1, 2, 1, 2, 0}, 6);
    }
    route(&(sw_router){.score = SW_ROUTE_SIGMOID, .k = 2, .groups = 2, .top_groups = 1, .group_by_two = true, .scale = 1}, 2, 4, logits,
          NULL, NULL, &c);
    ids_are(&c, (int32_t[]){0, 1, 1, 0}, 4);
}

/* Each round's share is among what is left and not further below than twice the jitter. */
static void sparse_mixer(void **state)
{
    (void)state;
    const float logits[] = {2, 1.97f, 1.5f, 1.49f, /* far from each other */ 4, 1, -2, .5f};
    choice c;
    route(&(sw_router){.score = SW_ROUTE_SPARSEMIXER, .k = 2, .scale = 1, .jitter = .01}, 2, 4, logits, NULL, NULL, &c);
    ids_are(&c, (int32_t[]){0, 1, 0, 1}, 4);
    near(c.weights, (double[]){1 / (1 + exp(-.03)), 1, 1, 1}, 4);
    route(&(sw_router){.score = SW_ROUTE_SPARSEMIXER, .k = 2, .scale = 1, .jitter = .15}, 2, 4, logits, NULL, NULL, &c);
    near(c.weights,
         (double[]){1 / (1 + exp(-.03) + exp(-.5) + exp(-.51)), 1 / (1 + exp(-.47) + exp(-.48)), 1, 1}, 4);
}

/* sqrt(log(1 + e^x)); and experts that are given, whose weights alone the scores make. */
static void square_roots(void **state)
{
    (void)state;
    const float logits[] = {LOG(exp(4) - 1), LOG(exp(1) - 1), LOG(exp(9) - 1), LOG(exp(.25) - 1), 90, -90, 0, 0};
    choice c;
    route(&(sw_router){.score = SW_ROUTE_SQRT_SOFTPLUS, .k = 2, .scale = 1}, 2, 4, logits, NULL, NULL, &c);
    ids_are(&c, (int32_t[]){2, 0, 0, 2}, 4);
    near(c.weights, (double[]){3, 2, sqrt(90), sqrt(log(2))}, 4);
    c = (choice){.ids = {3, 1, 2, 1}};
    route(&(sw_router){.score = SW_ROUTE_SQRT_SOFTPLUS, .k = 2, .normalise = true, .scale = 3, .given = true}, 2, 4, logits, NULL, NULL, &c);
    ids_are(&c, (int32_t[]){3, 1, 2, 1}, 4);
    near(c.weights, (double[]){1, 2, 3, 0}, 4);
}

static void gradients_match_differences(void **state)
{
    (void)state;
    const float logits[] = {.3f, 1.2f, -.7f, .9f, .1f, -1.1f, /* token 2 */ 2, -.4f, 1.94f, .2f, .6f, 1.3f};
    const float seed[] = {.7f, -1.3f, .4f, 2, .5f, -.9f};
    const float correction[] = {.1f, -.3f, .2f, 0, .05f, 0};
    const sw_router all[] = {
        {.score = SW_ROUTE_SOFTMAX, .k = 3, .scale = 1.7},
        {.score = SW_ROUTE_SOFTMAX, .k = 3, .scale = 1, .normalise = true},
        {.score = SW_ROUTE_SOFTMAX, .k = 3, .scale = 1, .normalise = true, .power = 2, .eps = .1},
        {.score = SW_ROUTE_SOFTMAX, .k = 3, .scale = 2, .normalise = true, .power = 3},
        {.score = SW_ROUTE_SIGMOID, .k = 3, .scale = 1},
        {.score = SW_ROUTE_SIGMOID, .k = 3, .scale = 2.5, .normalise = true, .eps = .2},
        {.score = SW_ROUTE_SIGMOID, .k = 3, .scale = 1, .normalise = true, .groups = 3, .top_groups = 2, .group_by_two = true},
        {.score = SW_ROUTE_SPARSEMIXER, .k = 3, .scale = 1.5, .jitter = .13},
        {.score = SW_ROUTE_SQRT_SOFTPLUS, .k = 3, .scale = 1.5, .normalise = true, .eps = .1},
        {.score = SW_ROUTE_SQRT_SOFTPLUS, .k = 3, .scale = 1.5, .given = true},
    };
    for (size_t i = 0; i < SW_COUNT(all); i++) {
        const float *add = all[i].score == SW_ROUTE_SIGMOID ? correction : NULL;
        const choice given = {.ids = {5, 0, 2, 1, 4, 3}};
        choice at = given, up = given, down = given;
        route(&all[i], 2, 6, logits, add, seed, &at);
        for (int e = 0; e < 12; e++) {
            float moved[12];
            const float h = 4e-3f;
            memcpy(moved, logits, sizeof moved);
            moved[e] = logits[e] + h;
            route(&all[i], 2, 6, moved, add, NULL, &up);
            moved[e] = logits[e] - h;
            route(&all[i], 2, 6, moved, add, NULL, &down);
            double want = 0;
            for (int j = 0; j < 6; j++) {
                assert_int_equal(up.ids[j], at.ids[j]);
                assert_int_equal(down.ids[j], at.ids[j]);
                want += (double)seed[j] * ((double)up.weights[j] - down.weights[j]) / (2 * (double)h);
            }
            if (!(fabs(want - at.dlogits[e]) <= 2e-4))
                fail_msg("router %zu, logit %d: gradient %g, by differences %g", i, e, (double)at.dlogits[e], want);
        }
    }
}

int main(void)
{
    device = sw_device_open("reference");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_and_normalisation), cmocka_unit_test(correction_is_of_the_choice_only),
        cmocka_unit_test(groups),                   cmocka_unit_test(the_first_of_equal_ones),
        cmocka_unit_test(sparse_mixer),             cmocka_unit_test(square_roots), cmocka_unit_test(gradients_match_differences),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    device->close(device);
    return rc;
}
