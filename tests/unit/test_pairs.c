/* Calls of training that one kernel of the CUDA device can do together: the first waits for the next (cuda_pairs.cu). */
#include "tests/emulator/emulator_control.h"
#include "model/model.h"
#include "nn/param.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static long launches_since(sw_emulator_counts before) { return sw_emu_count.launches - before.launches; }

/* Kernels after which the device has nothing left to do. */
static const sw_kernels *alone;
static sw_device *alone_on;
static int add_alone(sw_stream *s, sw_tensor *y, const sw_tensor *a, const sw_tensor *b)
{
    return alone->add(s, y, a, b) || alone_on->sync(alone_on) ? -1 : 0;
}
static int rope_alone(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *cos, const sw_tensor *sin, int mode, int inverse)
{
    return alone->rope(s, y, x, cos, sin, mode, inverse) || alone_on->sync(alone_on) ? -1 : 0;
}

/* An update norms each of its sums where it is made, and turns queries and keys together, both ways; to the same bits. */
static void training_in_pairs(void **state)
{
    (void)state;
    enum { LAYERS = 2, SUMS = 2 * LAYERS, TURNS = 2 * LAYERS };
    static const struct {
        const char *path;
        sw_dtype type;
        long fewer;
    } runs[] = {{"tests/golden/llm/llama", SW_F32, SUMS + TURNS}, {"tests/golden/llm/llama", SW_BF16, SUMS + TURNS},
                {"tests/golden/llm/gpt2", SW_F32, SUMS + 1}}; /* with positions, which are added */
    for (size_t k = 0; k < SW_COUNT(runs); k++) {
        float *gradients[2];
        long launches[2];
        int64_t n = 0;
        for (int apart = 0; apart < 2; apart++) {
            sw_device *d = sw_device_open("emulator");
            sw_model *m = d ? sw_model_load(runs[k].path, d, &(sw_load_options){.dtype = SW_DTYPE_COUNT}) : NULL;
            if (!m)
                fail_msg("%s", sw_error());
            sw_kernels table = *d->k;
            alone = d->k;
            alone_on = d;
            if (apart) {
                table.add = add_alone;
                table.rope = rope_alone;
                d->k = &table;
            }
            for (size_t i = 0; i < m->params.n; i++)
                m->params.at[i]->trainable = true;
            sw_flat f;
            sw_ctx c;
            assert_int_equal(sw_ctx_init(&c, d, runs[k].type) || sw_flat_build(&f, &m->params, d, runs[k].type), 0);
            int32_t ids[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
            for (int step = 0; step < 2; step++) { /* the first asks for memory */
                sw_emulator_counts before = sw_emu_count;
                c.recording = true;
                sw_var *h = sw_model_forward(&c, m, &(sw_batch){.n = 12, .n_seqs = 2, .ids = ids, .lengths = (int64_t[]){5, 7}}, false);
                sw_var *seed = h ? sw_like(&c, h) : NULL;
                assert_true(seed && !d->k->fill(d->stream, &seed->t, 1));
                assert_int_equal(sw_flat_zero_grad(&f) || sw_backward(&c, h, &seed->t) || d->sync(d), 0);
                c.recording = false;
                sw_ctx_reset(&c);
                launches[apart] = launches_since(before);
            }
            n = f.n;
            gradients[apart] = malloc((size_t)n * sizeof **gradients);
            assert_int_equal(d->get(d, gradients[apart], f.grad.data, (size_t)n * sizeof **gradients), 0);
            sw_flat_free(&f);
            sw_ctx_free(&c);
            d->k = alone;
            sw_model_free(m);
            d->close(d);
        }
        assert_int_equal(launches[0], launches[1] - runs[k].fewer);
        assert_memory_equal(gradients[0], gradients[1], (size_t)n * sizeof **gradients);
        free(gradients[0]);
        free(gradients[1]);
    }
}

/* What LoRA's way back asks of one gradient, dt = dy b and db += dy^T t, reads it once; to the bits of two kernels. */
static void low_rank_reads_once(void **state)
{
    (void)state;
    enum { ROWS = 300, OUT = 264, RANK = 8, DY = ROWS * OUT, T = ROWS * RANK, B = OUT * RANK };
    static uint16_t in[DY + T + B], dt[2][T];
    static float zeros[B], db[2][B];
    for (int i = 0; i < DY + T + B; i++)
        in[i] = sw_f32_to_bf16((float)(i * 37 % 101 - 50) / 64);
    sw_device *d = sw_device_open("emulator");
    assert_non_null(d);
    uint16_t *at = d->alloc(d, sizeof in), *dt_at = d->alloc(d, sizeof dt[0]);
    float *db_at = d->alloc(d, sizeof zeros);
    assert_true(at && dt_at && db_at && !d->put(d, at, in, sizeof in));
    sw_tensor dy = sw_tensor_of(at, SW_BF16, 2, (int64_t[]){ROWS, OUT}), t = sw_tensor_of(at + DY, SW_BF16, 2, (int64_t[]){ROWS, RANK});
    sw_tensor b = sw_tensor_of(at + DY + T, SW_BF16, 2, (int64_t[]){OUT, RANK}), to = sw_tensor_of(dt_at, SW_BF16, 2, t.shape);
    sw_tensor sum = sw_tensor_of(db_at, SW_F32, 2, b.shape);
    for (int apart = 0; apart < 2; apart++) {
        assert_int_equal(d->put(d, db_at, zeros, sizeof zeros), 0);
        sw_emulator_counts before = sw_emu_count;
        assert_int_equal(d->k->linear_bwd_x(d->stream, &to, &dy, &b, 2, 0) || (apart && d->sync(d)) ||
                         d->k->linear_bwd_w(d->stream, &sum, &dy, &t, 2) || d->sync(d), 0);
        assert_int_equal(launches_since(before), apart ? 4 : 2);
        assert_int_equal(d->get(d, dt[apart], dt_at, sizeof dt[0]) || d->get(d, db[apart], db_at, sizeof zeros), 0);
    }
    assert_memory_equal(dt[0], dt[1], sizeof dt[0]);
    assert_memory_equal(db[0], db[1], sizeof db[0]);
    d->free(d, at);
    d->free(d, dt_at);
    d->free(d, db_at);
    d->close(d);
}

/* A call that could be the first of a pair is done before anything that is not a call: what the host reads or writes, memory that is
 * given back, marks that others wait for, the end. */
static void what_is_kept_is_settled(void **state)
{
    (void)state;
    enum { N = 64, TIMES = 5 };
    static float ones[N], got[N];
    for (int i = 0; i < N; i++)
        ones[i] = 1;
    sw_device *d = sw_device_open("emulator");
    assert_non_null(d);
    int64_t n = N;
    void *mark = NULL;
    sw_tensor x = sw_tensor_of(d->alloc(d, sizeof ones), SW_F32, 1, &n), y = sw_tensor_of(d->alloc(d, sizeof ones), SW_F32, 1, &n);
    void *spare = d->alloc(d, sizeof ones);
    assert_int_equal(d->put(d, x.data, ones, sizeof ones) || d->put(d, y.data, ones, sizeof ones), 0);
    for (int i = 0; i < TIMES; i++) {
        sw_emulator_counts before = sw_emu_count;
        assert_int_equal(d->k->add(d->stream, &y, &y, &x), 0);
        if (i == 0)
            assert_int_equal(d->get(d, got, y.data, sizeof got), 0);
        else if (i == 1)
            assert_int_equal(d->put(d, spare, ones, sizeof ones), 0);
        else if (i == 2)
            d->free(d, spare);
        else if (i == 3)
            assert_non_null(mark = d->mark(d, mark));
        else
            assert_int_equal(d->begin(d, 1), 0);
        assert_int_equal(launches_since(before), 1);
    }
    assert_int_equal(d->end(d) || d->sync(d) || d->get(d, got, y.data, sizeof got), 0);
    for (int i = 0; i < N; i++)
        assert_true(got[i] == TIMES + 1);
    assert_int_equal(d->k->add(d->stream, &y, &y, &x), 0);
    d->unmark(d, mark);
    d->free(d, x.data);
    d->free(d, y.data);
    d->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(training_in_pairs), cmocka_unit_test(low_rank_reads_once),
                                       cmocka_unit_test(what_is_kept_is_settled)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
