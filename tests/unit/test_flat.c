/* Flat buffers that ranks share: their layout, what each holds, and what the optimiser touches. */
#include "nn/param.h"
#include "tools/swift-train/optimizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { RANKS = 4 };
static const struct {
    const char *name;
    int64_t rows, columns;
} shapes[] = {
    {"model.embed_tokens.weight", 300, 64}, {"model.layers.0.q_proj.weight", 64, 64}, {"model.layers.0.norm.weight", 64, 1},
    {"model.layers.1.q_proj.weight", 64, 64}, {"model.layers.1.norm.weight", 64, 1}, {"model.layers.10.q_proj.weight", 1, 7},
    {"model.norm.weight", 64, 1},
};

static float value(size_t i, int64_t k) { return (float)(i + 1) + (float)k / 1024; }

static void build(sw_flat *f, sw_params *list, sw_device *d, sw_dtype compute, sw_share_stage stage, int rank, int64_t bucket)
{
    *list = (sw_params){0};
    for (size_t i = 0; i < SW_COUNT(shapes); i++) {
        sw_param *p = sw_param_new(list, d, shapes[i].name, SW_F32, 2, (int64_t[]){shapes[i].rows, shapes[i].columns});
        assert_non_null(p);
        p->trainable = true;
        for (int64_t k = 0; k < sw_numel(&p->v.t); k++)
            ((float *)p->v.t.data)[k] = value(i, k);
    }
    assert_int_equal(sw_flat_build_shared(f, list, d, compute, &(sw_flat_plan){stage, rank, RANKS, bucket}), 0);
}

static void test_layout(void **state)
{
    (void)state;
    sw_device *d = sw_device_open("cpu");
    sw_flat f;
    sw_params list;
    build(&f, &list, d, SW_F32, SW_SHARE_NONE, 0, 0);
    assert_int_equal(f.n_buckets, 5); /* one a layer, and what is of none alone */
    for (int64_t b = 0, at = 0; b < f.n_buckets; b++)
        for (int r = 0; r < RANKS; r++) {
            int64_t start, n = sw_flat_part(&f, b, r, &start);
            assert_int_equal(start, at); /* the parts cover all */
            assert_int_equal(n * 2 % 4096, 0);
            at += n;
            assert_true(b + 1 < f.n_buckets || r + 1 < RANKS || at == f.n);
        }
    for (size_t i = 0; i < f.n_params; i++) {
        int64_t b = sw_flat_bucket(&f, f.params[i]->offset), end = f.params[i]->offset + sw_numel(&f.params[i]->v.t);
        assert_true(f.buckets[b] <= f.params[i]->offset && end <= f.buckets[b + 1]);
    }
    assert_int_equal(sw_flat_bucket(&f, f.params[1]->offset), sw_flat_bucket(&f, f.params[2]->offset));
    assert_int_not_equal(sw_flat_bucket(&f, f.params[3]->offset), sw_flat_bucket(&f, f.params[5]->offset)); /* 1 is not 10 */
    sw_flat_free(&f);
    sw_params_free(&list, d);
    build(&f, &list, d, SW_F32, SW_SHARE_NONE, 0, 1 << 20);
    assert_int_equal(f.n_buckets, 1);
    sw_flat_free(&f);
    sw_params_free(&list, d);
    d->close(d);
}

/* What rank 1 has of a buffer after building: its own parts as they were, elsewhere zeros or all. */
static void expect_parts(const sw_flat *f, const sw_tensor *t, bool shared)
{
    for (size_t i = 0; i < f->n_params; i++)
        for (int64_t k = 0; k < sw_numel(&f->params[i]->v.t); k++) {
            int64_t at = f->params[i]->offset + k, start, n = sw_flat_part(f, sw_flat_bucket(f, at), f->plan.rank, &start);
            bool mine = at >= start && at < start + n;
            double want = mine || !shared ? value(i, k) : 0, have = sw_scalar_get(t->data, t->dtype, at);
            assert_true(have == (t->dtype == SW_BF16 ? sw_bf16_to_f32(sw_f32_to_bf16((float)want)) : want));
        }
}

static void test_parts(void **state)
{
    (void)state;
    sw_device *d = sw_device_open("cpu");
    for (sw_share_stage stage = SW_SHARE_NONE; stage <= SW_SHARE_PARAMETERS; stage++)
        for (int low = 0; low < 2; low++) {
            sw_flat f;
            sw_params list;
            build(&f, &list, d, low ? SW_BF16 : SW_F32, stage, 1, 0);
            expect_parts(&f, &f.master, stage >= (low ? SW_SHARE_OPTIMIZER : SW_SHARE_PARAMETERS));
            if (low)
                expect_parts(&f, &f.low, stage >= SW_SHARE_PARAMETERS);
            sw_flat_free(&f);
            sw_params_free(&list, d);
        }
    d->close(d);
}

/* A step moves what the rank holds and nothing else. */
static void test_step(void **state)
{
    (void)state;
    sw_device *d = sw_device_open("cpu");
    for (sw_share_stage stage = SW_SHARE_NONE; stage <= SW_SHARE_OPTIMIZER; stage++) {
        sw_flat f;
        sw_params list;
        sw_optimizer o;
        build(&f, &list, d, SW_F32, stage, 1, 0);
        assert_int_equal(sw_optimizer_init(&o, sw_optimizer_find("adamw"), &(sw_optimizer_options){0, 0.9, 0.95, 1e-8}, &f), 0);
        assert_int_equal(d->k->fill(NULL, &f.grad, 1), 0);
        assert_int_equal(sw_optimizer_step(&o, 0.5, 1), 0);
        for (size_t i = 0; i < f.n_params; i++)
            for (int64_t k = 0; k < sw_numel(&f.params[i]->v.t); k++) {
                int64_t at = f.params[i]->offset + k, start, n = sw_flat_part(&f, sw_flat_bucket(&f, at), 1, &start);
                bool moves = stage == SW_SHARE_NONE || (at >= start && at < start + n);
                assert_true((((float *)f.master.data)[at] != value(i, k)) == moves);
                assert_true((((float *)o.state[0].data)[at] != 0) == moves);
            }
        sw_optimizer_free(&o);
        sw_flat_free(&f);
        sw_params_free(&list, d);
    }
    d->close(d);
}

int main(void)
{
    return cmocka_run_group_tests(((const struct CMUnitTest[]){cmocka_unit_test(test_layout), cmocka_unit_test(test_parts), cmocka_unit_test(test_step)}),
                                  NULL, NULL);
}
