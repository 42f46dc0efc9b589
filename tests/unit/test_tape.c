/* The tape and its memory: sharing of gradients, views, recomputation, reuse of storage, the NaN finder. */
#include "nn/linear.h"
#include "nn/logprob.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static sw_device *device;

static sw_param *make_param(sw_params *list, const char *name, int64_t rows, int64_t columns, uint64_t seed)
{
    sw_param *p = columns ? sw_param_new(list, device, name, SW_F32, 2, (int64_t[]){rows, columns})
                          : sw_param_new(list, device, name, SW_F32, 1, &rows);
    assert_non_null(p);
    sw_rng rng = {seed, 0, sw_rng_site(name)};
    for (int64_t i = 0; i < sw_numel(&p->v.t); i++)
        ((float *)p->v.t.data)[i] = (float)(0.3 * sw_rng_normal(&rng, (uint64_t)i) + (columns ? 0 : 1));
    p->trainable = true;
    return p;
}

typedef struct net {
    sw_params params;
    sw_flat flat;
    sw_param *norm, *w1, *w2, *w3;
    enum { SERIAL, PARALLEL, LOW_RANK, FORMS } form;
} net;

static void net_init(net *n, int form)
{
    *n = (net){.form = form};
    n->norm = make_param(&n->params, "norm", 6, 0, 1);
    n->w1 = make_param(&n->params, "w1", 6, 6, 2);
    n->w2 = make_param(&n->params, "w2", 6, 6, 3);
    n->w3 = make_param(&n->params, "w3", 6, 6, 4);
    assert_int_equal(sw_flat_build(&n->flat, &n->params, device, SW_F32), 0);
}

static void net_free(net *n)
{
    sw_flat_free(&n->flat);
    sw_params_free(&n->params, device);
}

/* Residuals that share gradients: x + a(h) + b(h), where h is a norm of x, or one after the other. Or a product with one of low
 * rank beside it. */
static sw_var *block(sw_ctx *c, sw_var *x, void *arg)
{
    net *n = arg;
    sw_scope s = sw_scope_begin(c);
    sw_var *h = sw_rmsnorm(c, x, n->norm, 1e-5, 0);
    if (n->form == LOW_RANK) {
        sw_low_rank r = {n->w2, n->w3, .scale = 0.7, .dropout = 0.3, .site = 5};
        return sw_scope_return(c, s, sw_add(c, sw_matmul_low_rank(c, h, n->w1, n->norm, &r), x));
    }
    sw_var *a = sw_activation(c, sw_matmul(c, h, n->w1, NULL), SW_ACT_SILU);
    if (n->form == PARALLEL) {
        sw_var *b = sw_matmul_act(c, h, n->w2, NULL, SW_ACT_GELU);
        return sw_scope_return(c, s, sw_add(c, sw_add(c, b, a), x));
    }
    sw_var *y = sw_add(c, a, x);
    sw_var *g = sw_glu(c, sw_matmul(c, y, n->w2, NULL), sw_matmul(c, y, n->w3, NULL), SW_ACT_SILU);
    return sw_scope_return(c, s, sw_add(c, g, y));
}

static const float input[5][6] = {{1, -2, .5f, .3f, 2, -1}, {0, 1, 1, -1, .2f, .4f}, {2, 2, -1, .1f, 0, 1},
                                  {-.5f, .7f, 1.5f, -2, 1, 0}, {.3f, .2f, .1f, 1, 2, 3}};

/* sum of squares of the output of two blocks */
static double run(sw_ctx *c, net *n, bool recompute, bool record)
{
    c->recording = record;
    c->training = true;
    sw_var *x = sw_from_host(c, SW_F32, 2, (int64_t[]){5, 6}, input);
    for (int i = 0; i < 2; i++) {
        x = recompute ? sw_recompute(c, block, x, n) : block(c, x, n);
        assert_non_null(x);
    }
    float y[30], seed[30];
    double loss = 0;
    assert_int_equal(sw_to_host(c, x, y), 0);
    for (int i = 0; i < 30; i++) {
        loss += 0.5 * (double)y[i] * y[i];
        seed[i] = y[i];
    }
    if (record) {
        sw_var *g = sw_from_host(c, SW_F32, 2, (int64_t[]){5, 6}, seed);
        assert_int_equal(sw_backward(c, x, &g->t), 0);
    }
    sw_ctx_reset(c);
    return loss;
}

static void gradients_match_differences(void **state)
{
    (void)state;
    for (int form = 0; form < FORMS; form++) {
        net n;
        sw_ctx c;
        net_init(&n, form);
        assert_int_equal(sw_ctx_init(&c, device, SW_F32), 0);
        run(&c, &n, false, true);
        float *w = n.flat.master.data, *g = n.flat.grad.data;
        for (size_t p = 0; p < n.flat.n_params; p++) {
            if (form == PARALLEL && n.flat.params[p] == n.w3)
                continue;
            for (int64_t k = 0; k < sw_numel(&n.flat.params[p]->v.t); k += 5) {
                int64_t i = n.flat.params[p]->offset + k;
                float keep = w[i];
                const float h = 1e-2f;
                w[i] = keep + h;
                double up = run(&c, &n, false, false);
                w[i] = keep - h;
                double down = run(&c, &n, false, false);
                w[i] = keep;
                double want = (up - down) / (2 * (double)h);
                assert_true(fabs(want - g[i]) <= 2e-2 * fmax(1, fabs(want)));
            }
        }
        sw_ctx_free(&c);
        net_free(&n);
    }
}

static void recomputation_gives_the_same_bits(void **state)
{
    (void)state;
    for (int form = 0; form < FORMS; form++) {
        net n;
        sw_ctx c;
        net_init(&n, form);
        assert_int_equal(sw_ctx_init(&c, device, SW_F32), 0);
        float plain[256];
        size_t bytes = (size_t)n.flat.n * sizeof(float);
        assert_true(bytes <= sizeof plain);
        run(&c, &n, false, true);
        memcpy(plain, n.flat.grad.data, bytes);
        assert_int_equal(sw_flat_zero_grad(&n.flat), 0);
        run(&c, &n, true, true);
        assert_memory_equal(plain, n.flat.grad.data, bytes);
        sw_ctx_free(&c);
        net_free(&n);
    }
}

/* What products were asked for since `asked` was 0: with which matrix, and whether they add to what is there. */
static struct {
    const void *w;
    bool adds;
} asked_for[8];
static size_t asked;

static void note(const sw_tensor *w, double beta)
{
    assert_true(asked < SW_COUNT(asked_for));
    asked_for[asked].w = w->data;
    asked_for[asked++].adds = beta != 0;
}
static int noted_fwd(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, double alpha, double beta)
{
    note(w, beta);
    return device->k->linear_fwd(s, y, x, w, bias, alpha, beta);
}
static int noted_bwd_x(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_tensor *w, double alpha, double beta)
{
    note(w, beta);
    return device->k->linear_bwd_x(s, dx, dy, w, alpha, beta);
}

static void assert_asked(const sw_param *w, size_t at, bool adds)
{
    assert_true(at < asked);
    assert_ptr_equal(asked_for[at].w, w->v.t.data);
    assert_int_equal(asked_for[at].adds, adds);
}

/* A small product that adds reads what it need not, which is most of its time; a large one does so for nothing. */
static void the_large_product_adds_to_the_small_one(void **state)
{
    (void)state;
    net n;
    sw_ctx c;
    net_init(&n, SERIAL);
    n.w1->v.needs_grad = false;
    sw_kernels noted = *device->k;
    sw_device as = *device;
    noted.linear_fwd = noted_fwd;
    noted.linear_bwd_x = noted_bwd_x;
    as.k = &noted;
    assert_int_equal(sw_ctx_init(&c, &as, SW_F32), 0);
    c.recording = true;
    sw_low_rank r = {n.w2, n.w3, .scale = 0.7};
    sw_var *x = sw_from_host(&c, SW_F32, 2, (int64_t[]){5, 6}, input), *seed = sw_from_host(&c, SW_F32, 2, (int64_t[]){5, 6}, input);
    sw_var *h = sw_rmsnorm(&c, x, n.norm, 1e-5, 0), *y = sw_matmul_low_rank(&c, h, n.w1, NULL, &r);
    assert_int_equal(asked, 3);
    assert_asked(n.w2, 0, false);
    assert_asked(n.w3, 1, false);
    assert_asked(n.w1, 2, true);
    asked = 0;
    assert_int_equal(sw_backward(&c, y, &seed->t), 0);
    assert_int_equal(asked, 3);
    assert_asked(n.w3, 0, false);
    assert_asked(n.w2, 1, false);
    assert_asked(n.w1, 2, true);
    sw_ctx_free(&c);
    net_free(&n);
}

static void steps_reuse_their_memory(void **state)
{
    (void)state;
    net n;
    sw_ctx c;
    net_init(&n, SERIAL);
    assert_int_equal(sw_ctx_init(&c, device, SW_F32), 0);
    run(&c, &n, false, true);
    assert_int_equal(sw_ctx_bytes(&c), 0); /* nothing outlives a step */
    size_t peak = sw_ctx_peak(&c);
    for (int i = 0; i < 10; i++)
        run(&c, &n, i & 1, true);
    assert_int_equal(sw_ctx_peak(&c), peak);
    run(&c, &n, false, false);
    assert_int_equal(sw_ctx_bytes(&c), 0);
    sw_ctx_free(&c);
    net_free(&n);
}

static void the_limit_is_an_error(void **state)
{
    (void)state;
    sw_ctx c;
    assert_int_equal(sw_ctx_init(&c, device, SW_F32), 0);
    sw_ctx_limit(&c, 1000);
    c.where = "model.layers.0";
    assert_null(sw_tmp2(&c, SW_F32, 100, 100));
    assert_non_null(strstr(sw_error(), "model.layers.0"));
    assert_non_null(strstr(sw_error(), "memory limit"));
    sw_ctx_free(&c);
}

static void views_share_a_gradient(void **state)
{
    (void)state;
    sw_ctx c;
    sw_params params = {0};
    sw_flat flat;
    make_param(&params, "w", 4, 6, 9);
    assert_int_equal(sw_flat_build(&flat, &params, device, SW_F32), 0);
    assert_int_equal(sw_ctx_init(&c, device, SW_F32), 0);
    c.recording = true;
    int32_t ids[2] = {3, 1};
    sw_var *rows = sw_embedding(&c, params.at[0], sw_from_host(&c, SW_I32, 1, (int64_t[]){2}, ids), 1);
    sw_var *left = sw_columns(&c, rows, 0, 2), *right = sw_columns(&c, rows, 3, 2);
    sw_var *y = sw_mul(&c, left, right);
    float one[4] = {1, 1, 1, 1};
    assert_int_equal(sw_backward(&c, y, &sw_from_host(&c, SW_F32, 2, (int64_t[]){2, 2}, one)->t), 0);
    const float *w = flat.master.data, *g = flat.grad.data;
    for (int r = 0; r < 4; r++)
        for (int k = 0; k < 6; k++) {
            float want = (r == 0 || r == 2) ? 0 : k < 2 ? w[r * 6 + k + 3] : k >= 3 && k < 5 ? w[r * 6 + k - 3] : 0;
            assert_true(g[r * 6 + k] == want);
        }
    sw_ctx_free(&c);
    sw_flat_free(&flat);
    sw_params_free(&params, device);
}

static const sw_kernels *plain;
static int fills;
static int counted_fill(sw_stream *s, sw_tensor *y, double value)
{
    fills++;
    return plain->fill(s, y, value);
}

/* Two parts of y, 3 columns each as rows or as heads, multiplied: what is side by side is written without zeros before it, what nobody
 * reads gets zeros, what both read gets both. */
static void parts_are_written_once(void **state)
{
    (void)state;
    enum { N = 4, WIDTH = 8, PART = 3 };
    static const struct {
        int from[2], fills;
    } cases[] = {{{0, 3}, 1}, {{5, 2}, 1}, {{2, 5}, 1}, {{0, 5}, 1}, {{0, 2}, 1}, {{1, 1}, 2}, {{4, 0}, 2}};
    sw_kernels table = *device->k;
    plain = device->k;
    table.fill = counted_fill;
    device->k = &table;
    for (size_t k = 0; k < SW_COUNT(cases); k++)
        for (int heads = 0; heads < 2; heads++) {
            sw_ctx c;
            sw_params params = {0};
            sw_flat flat;
            make_param(&params, "w", N, WIDTH, 9);
            assert_int_equal(sw_flat_build(&flat, &params, device, SW_F32) || sw_flat_zero_grad(&flat) || sw_ctx_init(&c, device, SW_F32), 0);
            c.recording = true;
            sw_var *y = sw_scale(&c, sw_parameter(&c, params.at[0]), 2), *part[2];
            for (int i = 0; i < 2; i++)
                part[i] = heads ? sw_part(&c, y, cases[k].from[i], 3, (int64_t[]){N, 1, PART}, (int64_t[]){WIDTH, PART, 1})
                                : sw_columns(&c, y, cases[k].from[i], PART);
            sw_var *product = sw_mul(&c, part[0], part[1]), *seed = sw_like(&c, product);
            assert_int_equal(device->k->fill(device->stream, &seed->t, 1), 0);
            fills = 0;
            assert_int_equal(sw_backward(&c, product, &seed->t), 0);
            const float *w = flat.master.data, *g = flat.grad.data;
            for (int i = 0; i < N * WIDTH; i++) {
                float want = 0;
                for (int p = 0; p < 2; p++) {
                    int at = i % WIDTH - cases[k].from[p];
                    want += at >= 0 && at < PART ? 4 * w[i - i % WIDTH + cases[k].from[1 - p] + at] : 0;
                }
                assert_true(g[i] == want);
            }
            if (fills != cases[k].fills)
                fail_msg("parts from %d and %d: %d fills", cases[k].from[0], cases[k].from[1], fills);
            sw_ctx_free(&c);
            sw_flat_free(&flat);
            sw_params_free(&params, device);
        }
    device->k = plain;
}

static void the_first_nan_is_named(void **state)
{
    (void)state;
    net n;
    sw_ctx c;
    net_init(&n, SERIAL);
    assert_int_equal(sw_ctx_init(&c, device, SW_F32), 0);
    ((float *)n.flat.master.data)[n.w2->offset + 7] = NAN;
    c.check = c.recording = true;
    c.where = "model.layers.5";
    sw_var *x = sw_from_host(&c, SW_F32, 2, (int64_t[]){5, 6}, input);
    assert_non_null(x = sw_rmsnorm(&c, x, n.norm, 1e-5, 0));
    assert_non_null(x = sw_matmul(&c, x, n.w1, NULL));
    assert_null(sw_matmul(&c, x, n.w2, NULL));
    assert_non_null(strstr(sw_error(), "model.layers.5"));
    assert_non_null(strstr(sw_error(), "matmul"));
    sw_ctx_free(&c);
    net_free(&n);
}

static int count_final(void *arg, struct sw_param *p)
{
    (void)p;
    ++*(int *)arg;
    return 0;
}

static void every_parameter_becomes_final_once(void **state)
{
    (void)state;
    net n;
    sw_ctx c;
    int finals = 0;
    net_init(&n, SERIAL);
    assert_int_equal(sw_ctx_init(&c, device, SW_F32), 0);
    c.hooks = (sw_tape_hooks){.arg = &finals, .final_grad = count_final};
    run(&c, &n, false, true);
    assert_int_equal(finals, 4);
    sw_ctx_free(&c);
    net_free(&n);
}

/* Where blocks share parameters nothing is final before the end of the pass; the next pass is told anew. */
static void shared_parameters_are_never_final_early(void **state)
{
    (void)state;
    net n;
    sw_ctx c;
    int finals = 0;
    net_init(&n, SERIAL);
    assert_int_equal(sw_ctx_init(&c, device, SW_F32), 0);
    c.hooks = (sw_tape_hooks){.arg = &finals, .final_grad = count_final};
    c.late = true;
    run(&c, &n, true, true);
    assert_int_equal(finals, 0);
    sw_ctx_reset(&c);
    run(&c, &n, false, true);
    assert_int_equal(finals, 4);
    sw_ctx_free(&c);
    net_free(&n);
}

int main(void)
{
    device = sw_device_open("reference");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_match_differences), cmocka_unit_test(recomputation_gives_the_same_bits),
        cmocka_unit_test(the_large_product_adds_to_the_small_one), cmocka_unit_test(steps_reuse_their_memory),
        cmocka_unit_test(the_limit_is_an_error),
        cmocka_unit_test(views_share_a_gradient),      cmocka_unit_test(parts_are_written_once),
        cmocka_unit_test(the_first_nan_is_named),
        cmocka_unit_test(every_parameter_becomes_final_once), cmocka_unit_test(shared_parameters_are_never_final_early),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    device->close(device);
    return rc;
}
