/* Decoding on the CUDA device: steps that come again are launched as one graph, give the same bits as calls one by one, and
 * ask for no memory; nor do steps of training. Neighbours that one kernel can do are one in graphs. */
#include "model/generate.h"
#include "tests/emulator/emulator_control.h"
#include "tools/swift-train/optimizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEQUENCES = 3, TOKENS = 30 };

typedef struct result {
    int32_t ids[SEQUENCES][TOKENS];
    double logprobs[SEQUENCES][TOKENS];
    sw_emulator_counts counts; /* of the whole */
    sw_emulator_counts late;   /* of the last six tokens */
    long most;                 /* launches of that of the last ten which took most: with graphs the one that is noted, call by call */
} result;

typedef struct watch {
    int tokens;
    long most;
    sw_emulator_counts before, before_last;
} watch;

static sw_emulator_counts since(sw_emulator_counts b)
{
    const sw_emulator_counts a = sw_emu_count;
    return (sw_emulator_counts){a.allocations - b.allocations, a.pinned - b.pinned, a.launches - b.launches, a.captures - b.captures,
                                a.graphs - b.graphs, a.beside - b.beside, a.waits - b.waits};
}

static int on_token(sw_sequence *s, int32_t id)
{
    watch *w = s->arg;
    (void)id;
    if (++w->tokens > TOKENS - 10)
        w->most = SW_MAX(w->most, since(w->before).launches);
    w->before = sw_emu_count;
    if (w->tokens == TOKENS - 6)
        w->before_last = sw_emu_count;
    return 0;
}

static const char *device = "emulator";
static sw_dtype type = SW_F32;
static sw_sampling how = {.top_p = 1, .repetition_penalty = 1};

/* Sequences of different lengths: the batch shrinks as they end. */
static void generate(const char *path, bool graphs, result *r)
{
    sw_device *d = sw_device_open(device);
    assert_non_null(d);
    if (!graphs)
        d->begin = NULL;
    sw_model *m = sw_model_load(path, d, &(sw_load_options){.dtype = type});
    if (!m)
        fail_msg("%s", sw_error());
    static const int32_t prompt[] = {3, 17, 5, 29, 8, 2, 11};
    sw_generator g;
    watch w = {0};
    assert_int_equal(sw_generator_init(&g, m, type, SEQUENCES), 0);
    sw_sequence s[SEQUENCES] = {{0}}, *at[SEQUENCES];
    for (int i = 0; i < SEQUENCES; i++) {
        s[i] = (sw_sequence){.prompt = prompt + i, .n_prompt = 7 - 2 * (size_t)i, .max_tokens = TOKENS - 10 * (SEQUENCES - 1 - i),
                             .want_logprobs = true, .sampling = how};
        at[i] = &s[i];
    }
    s[SEQUENCES - 1].on_token = on_token;
    s[SEQUENCES - 1].arg = &w;
    memset(r, 0, sizeof *r);
    sw_emulator_counts before = sw_emu_count;
    if (sw_generate(&g, at, SEQUENCES, NULL))
        fail_msg("%s: %s", path, sw_error());
    r->counts = since(before);
    r->late = since(w.before_last);
    r->most = w.most;
    for (int i = 0; i < SEQUENCES; i++) {
        memcpy(r->ids[i], s[i].out.at, s[i].out.n * sizeof **r->ids);
        memcpy(r->logprobs[i], s[i].logprobs.at, s[i].logprobs.n * sizeof **r->logprobs);
        sw_sequence_free(&s[i]);
    }
    sw_generator_free(&g);
    sw_model_free(m);
    d->close(d);
}

static void same_bits(const char *name, result *with, result *without)
{
    char path[256];
    snprintf(path, sizeof path, "tests/golden/llm/%s", name);
    generate(path, true, with);
    generate(path, false, without);
    assert_memory_equal(with->ids, without->ids, sizeof with->ids);
    assert_memory_equal(with->logprobs, without->logprobs, sizeof with->logprobs);
    assert_int_equal(without->counts.graphs, 0);
}

/* The batch is of three, two and one sequences; each is noted and captured once, or twice where the pool has grown meanwhile.
 * Nothing is read back in between, else there were no graph (cuda_steps.cuh): not for a choice of experts (table or router), nor of
 * earlier tokens (glm_moe_dsa) or rows of them (deepseek_v4), nor for latents, which are read where they lie. */
static void steps_become_graphs(void **state)
{
    (void)state;
    static const char *const names[] = {"llama",       "hub_xverse_moe", "glm4_moe",    "gpt_oss", "llama4_text", "longcat_flash",
                                        "jetmoe",      "minicpm3",       "deepseek_v2", "mamba2",  "kimi_linear", "llama_dynamic",
                                        "glm_moe_dsa", "deepseek_v4",    "deepseek_v4_yarn"};
    for (size_t i = 0; i < SW_COUNT(names); i++) {
        result with, without;
        same_bits(names[i], &with, &without);
        if (with.late.graphs != 6)
            fail_msg("%s: %ld of the last 6 tokens came from graphs", names[i], with.late.graphs);
        assert_in_range(with.counts.graphs, 20, TOKENS);
        assert_in_range(with.counts.captures, 3, 4);
        assert_int_equal(with.late.captures, 0);
        assert_int_equal(with.late.allocations + with.late.pinned, 0);
        assert_int_equal(without.late.allocations + without.late.pinned, 0);
        assert_in_range(with.late.launches, 1, without.late.launches); /* those of the graphs count too */
    }
}

/* What a layer asks for in a row is done at once: two sums are normed where they are made, queries and keys are turned together,
 * keys and values stored together; in a graph its queries, keys and values are a product, too, and its gate, what is multiplied by
 * it and that product another. The bits are those of the calls, biases and norms of heads among them. */
static void neighbours_are_one_kernel(void **state)
{
    (void)state;
    static const char *const names[] = {"llama", "qwen2", "qwen3"};
    static const sw_dtype types[] = {SW_F32, SW_BF16};
    enum { LAYERS = 2, PAIRS = 2 + 1 + 1, PRODUCTS = 2 + 2, LAST = 6 };
    for (size_t i = 0; i < SW_COUNT(names); i++)
        for (size_t k = 0; k < SW_COUNT(types); k++) {
            result with, without;
            type = types[k];
            same_bits(names[i], &with, &without);
            type = SW_F32;
            if (without.late.launches != LAST * (with.most - LAYERS * PAIRS) ||
                with.late.launches != LAST * (with.most - LAYERS * (PAIRS + PRODUCTS)))
                fail_msg("%s in %s: %ld kernels for a token by calls, %ld for six in pairs, %ld for six by graphs", names[i],
                         sw_dtypes[types[k]].name, with.most, without.late.launches, with.late.launches);
        }
}

/* Neighbours of which one reads or writes what the other writes stay two kernels. */
static void neighbours_that_need_each_other(void **state)
{
    (void)state;
    enum { ROWS = 4, WIDTH = 16, N = ROWS * WIDTH, STEPS = 4, PARTS = 6 };
    static float values[PARTS * N], got[2][PARTS * N];
    for (int i = 0; i < PARTS * N; i++)
        values[i] = (float)(i * 37 % 101 - 50) / 64;
    const int64_t shape[2] = {ROWS, WIDTH}, square[2] = {ROWS, ROWS}, heads[3] = {ROWS, 1, WIDTH}, angles[2] = {ROWS, WIDTH / 2};
    for (int graphs = 0; graphs < 2; graphs++) {
        sw_device *d = sw_device_open(device);
        assert_non_null(d);
        float *at = d->alloc(d, sizeof values);
        assert_non_null(at);
        sw_tensor a = sw_tensor_of(at, SW_F32, 2, shape), b = sw_tensor_of(at + N, SW_F32, 2, shape);
        sw_tensor sum = sw_tensor_of(at + 3 * N, SW_F32, 2, shape), over = sw_tensor_of(at + WIDTH, SW_F32, 2, shape);
        sw_tensor small = sw_tensor_of(at + 4 * N, SW_F32, 2, square), same = sw_tensor_of(at + 4 * N + 8, SW_F32, 2, square);
        sw_tensor q = sw_tensor_of(at, SW_F32, 3, heads), k = sw_tensor_of(at + N, SW_F32, 3, heads);
        sw_tensor turned = sw_tensor_of(at + 3 * N, SW_F32, 3, heads);
        sw_tensor c = sw_tensor_of(at + 5 * N, SW_F32, 2, angles), s = sw_tensor_of(at + 5 * N + N / 2, SW_F32, 2, angles);
        sw_emulator_counts before = {0};
        for (int i = 0; i < STEPS; i++) {
            assert_int_equal(d->put(d, at, values, sizeof values), 0);
            if (i == STEPS - 1)
                before = sw_emu_count;
            assert_int_equal(graphs ? d->begin(d, 1) : 0, 0);
            /* into part of what the first gives */
            assert_int_equal(d->k->linear_fwd(d->stream, &small, &a, &b, NULL, 1, 0) ||
                             d->k->linear_fwd(d->stream, &same, &a, &b, NULL, 1, 0), 0);
            /* rows of the norm over rows of what is added that others read */
            assert_int_equal(d->k->add(d->stream, &sum, &a, &b) || d->k->rmsnorm_fwd(d->stream, &over, NULL, &sum, NULL, 1e-5, 0), 0);
            /* what the first has turned */
            assert_int_equal(d->k->rope(d->stream, &turned, &q, &c, &s, SW_ROPE_HALF, 0) ||
                             d->k->rope(d->stream, &k, &turned, &c, &s, SW_ROPE_HALF, 0), 0);
            assert_int_equal(graphs ? d->end(d) : 0, 0);
        }
        assert_int_equal(d->get(d, got[graphs], at, sizeof values), 0);
        assert_int_equal(since(before).graphs, graphs);
        assert_int_equal(since(before).launches, 6);
        d->free(d, at);
        d->close(d);
    }
    assert_memory_equal(got[0], got[1], sizeof got[0]);
}

/* Kernels of a graph read their weights while those before them run, but where one of the step writes to them. */
static void weights_that_a_step_writes(void **state)
{
    (void)state;
    enum { OUT = 24, IN = 512, N = OUT * IN, STEPS = 5 };
    static float values[N + IN], got[2][STEPS][OUT];
    for (int i = 0; i < N + IN; i++)
        values[i] = (float)(i * 37 % 101 - 50) / 64;
    for (int graphs = 0; graphs < 2; graphs++) {
        sw_device *d = sw_device_open(device);
        assert_non_null(d);
        float *at = d->alloc(d, sizeof values), *y_at = d->alloc(d, sizeof got[0][0]);
        assert_true(at && y_at && !d->put(d, at, values, sizeof values));
        sw_tensor w = sw_tensor_of(at, SW_F32, 2, (int64_t[]){OUT, IN}), x = sw_tensor_of(at + N, SW_F32, 2, (int64_t[]){1, IN});
        sw_tensor y = sw_tensor_of(y_at, SW_F32, 2, (int64_t[]){1, OUT}), last = sw_tensor_of(at + N - IN, SW_F32, 2, (int64_t[]){1, IN});
        sw_emulator_counts before = sw_emu_count;
        for (int i = 0; i < STEPS; i++) {
            assert_int_equal(graphs ? d->begin(d, 1) : 0, 0);
            assert_int_equal(d->k->add(d->stream, &last, &last, &x) || d->k->linear_fwd(d->stream, &y, &x, &w, NULL, 1, 0), 0);
            assert_int_equal(graphs ? d->end(d) : 0, 0);
            assert_int_equal(d->get(d, got[graphs][i], y_at, sizeof got[0][0]), 0);
        }
        assert_int_equal(since(before).graphs, graphs * (STEPS - 1));
        assert_true(got[graphs][0][OUT - 1] != got[graphs][STEPS - 1][OUT - 1] && got[graphs][0][0] == got[graphs][STEPS - 1][0]);
        d->free(d, at);
        d->free(d, y_at);
        d->close(d);
    }
    assert_memory_equal(got[0], got[1], sizeof got[0]);
}

/* A gate, what it multiplies and their product: one kernel, by the bits of three, which leaves what the three leave. */
static void gated_products_are_one_kernel(void **state)
{
    (void)state;
    enum { MOST_ROWS = 6, OUT = 70, STEPS = 3, RESULTS = 3 * MOST_ROWS * OUT };
    static const struct {
        sw_dtype w, x;
        int64_t rows, in;
        sw_act kind;
        int fewer, into, bias; /* into: y of its own, or over the gate or what it multiplies */
    } cases[] = {{SW_F32, SW_F32, 1, 96, SW_ACT_SILU, 2, 0, 1},       {SW_BF16, SW_BF16, 1, 4096, SW_ACT_SILU, 2, 0, 0},
                 {SW_BF16, SW_F32, 4, 1030, SW_ACT_GELU_TANH, 2, 1, 1}, {SW_F16, SW_F16, 1, 264, SW_ACT_GELU_TANH, 2, 2, 0},
                 {SW_F8_E4M3, SW_BF16, 5, 1024, SW_ACT_SILU, 3, 2, 1},  {SW_Q8_0, SW_BF16, 6, 2048, SW_ACT_SILU, 4, 0, 0},
                 {SW_BF16, SW_BF16, 1, 64, SW_ACT_RELU2, 1, 0, 0}};
    for (size_t c = 0; c < SW_COUNT(cases); c++) {
        static unsigned char bytes[2][1 << 20], got[2][4 * RESULTS];
        sw_dtype type_w = cases[c].w, type_x = cases[c].x;
        int64_t rows = cases[c].rows, in = cases[c].in, block = sw_dtypes[type_w].block;
        size_t x_bytes = sw_dtype_bytes(type_x, rows * in), w_bytes = sw_dtype_bytes(type_w, OUT * in);
        assert_true(w_bytes + 8 * (size_t)sw_dtypes[type_w].bytes <= sizeof bytes[0] && x_bytes <= sizeof bytes[1]);
        for (int k = 0; k < 2; k++) /* exponents of about 1 in each of these types, and scales of blocks */
            for (size_t i = 0; i < sizeof bytes[k]; i++)
                bytes[k][i] = (unsigned char)((i * 2654435761u >> 13) + (size_t)k);
        size_t size = (size_t)sw_dtypes[type_w].bytes, top = block > 1 ? 1 : size - 1, x_size = (size_t)sw_dtypes[type_x].bytes;
        for (size_t i = 0; i < sizeof bytes[0]; i++)
            if (size == 1)
                bytes[0][i] &= 0xbf;
            else if (i % size == top)
                bytes[0][i] = (unsigned char)((type_w == SW_F32 || type_w == SW_BF16 ? 0x3c : 0x2c) | (bytes[0][i] & 0x81));
        for (size_t i = x_size - 1; i < sizeof bytes[1]; i += x_size)
            bytes[1][i] = 0x3c | (bytes[1][i] & 0x81);
        long launches[2];
        for (int graphs = 0; graphs < 2; graphs++) {
            sw_device *d = sw_device_open(device);
            assert_non_null(d);
            char *w_at = d->alloc(d, 2 * w_bytes), *x_at = d->alloc(d, x_bytes), *y_at = d->alloc(d, sizeof got[0]), *b_at = d->alloc(d, 4 * OUT), *s_at = d->alloc(d, 192);
            assert_true(w_at && x_at && y_at && b_at && s_at);
            assert_int_equal(d->put(d, w_at, bytes[0], w_bytes) || d->put(d, w_at + w_bytes, bytes[0] + 8 * size, w_bytes) ||
                             d->put(d, x_at, bytes[1], x_bytes) || d->put(d, b_at, bytes[1], 4 * OUT), 0);
            memset(got[graphs], 0, sizeof got[graphs]);
            assert_int_equal(d->put(d, y_at, got[graphs], sizeof got[graphs]), 0);
            sw_tensor w[2], y[3], x = sw_tensor_of(x_at, type_x, 2, (int64_t[]){rows, in});
            sw_tensor bias = sw_tensor_of(b_at, type_x, 1, (int64_t[]){OUT});
            for (int k = 0; k < 3; k++)
                y[k] = sw_tensor_of(y_at + 4 * k * MOST_ROWS * OUT, type_x, 2, (int64_t[]){rows, OUT});
            for (int k = 0; k < 2; k++)
                w[k] = sw_tensor_of(w_at + (size_t)k * w_bytes, type_w, 2, (int64_t[]){OUT, in});
            float factors[2][24];
            sw_scales scales[2];
            for (int k = 0; k < 2; k++) {
                for (int i = 0; i < 24; i++)
                    factors[k][i] = (float)(k + 1) / (float)(i + 3);
                scales[k] = (sw_scales){.at = (float *)s_at + 24 * (1 - k), .origin = w[k].data, .rows = OUT, .width = in, .high = 32, .wide = 128, .line = 8};
                w[k].scales = type_w == SW_F8_E4M3 ? &scales[k] : NULL;
            }
            assert_int_equal(d->put(d, s_at, factors, sizeof factors), 0);
            sw_tensor *h = cases[c].into ? &y[cases[c].into - 1] : &y[2];
            sw_emulator_counts before = sw_emu_count;
            for (int i = 0; i < STEPS; i++) {
                before = sw_emu_count;
                assert_int_equal(graphs ? d->begin(d, 1) : 0, 0);
                assert_int_equal(d->k->linear_fwd(d->stream, &y[0], &x, &w[0], cases[c].bias ? &bias : NULL, 1, 0) ||
                                 d->k->linear_fwd(d->stream, &y[1], &x, &w[1], NULL, 1, 0) ||
                                 d->k->glu_fwd(d->stream, h, &y[0], &y[1], (int)cases[c].kind), 0);
                assert_int_equal(graphs ? d->end(d) : 0, 0);
            }
            launches[graphs] = since(before).launches;
            assert_int_equal(d->get(d, got[graphs], y_at, sizeof got[graphs]), 0);
            d->free(d, w_at);
            d->free(d, x_at);
            d->free(d, y_at);
            d->free(d, b_at);
            d->free(d, s_at);
            d->close(d);
        }
        if (launches[0] - launches[1] != cases[c].fewer)
            fail_msg("case %zu: %ld kernels, %ld by calls", c, launches[1], launches[0]);
        if (memcmp(got[0], got[1], sizeof got[0]))
            fail_msg("case %zu: other bits", c);
    }
}

/* Draws with penalties: what is sent of tokens seen grows in steps, so that graphs go on. */
static void drawn_steps_become_graphs(void **state)
{
    (void)state;
    result with, without, host;
    how = (sw_sampling){.temperature = 1.1, .top_k = 30, .top_p = 0.95, .repetition_penalty = 1.2, .frequency_penalty = 0.3, .seed = 4};
    same_bits("llama", &with, &without);
    assert_in_range(with.counts.graphs, 10, TOKENS);
    device = "cpu";
    generate("tests/golden/llm/llama", false, &host);
    device = "emulator";
    how = sw_sampling_greedy;
    assert_memory_equal(with.ids, host.ids, sizeof host.ids);
}

/* A text that is read again from its start is a step of its own; with the same results either way. */
static void steps_that_differ(void **state)
{
    (void)state;
    result with, without;
    same_bits("phi3_longrope", &with, &without);
    assert_in_range(with.counts.graphs, 1, 19);
    assert_int_equal(with.late.allocations + with.late.pinned, 0);
}

/* From the third update on (the pool knows the sizes, the temporary space has its size) nothing is asked of the driver. */
static void training_asks_for_no_memory(void **state)
{
    (void)state;
    sw_device *d = sw_device_open("emulator");
    sw_model *m = d ? sw_model_load("tests/golden/llm/llama", d, &(sw_load_options){.dtype = SW_DTYPE_COUNT}) : NULL;
    if (!m)
        fail_msg("%s", sw_error());
    for (size_t i = 0; i < m->params.n; i++)
        m->params.at[i]->trainable = true;
    sw_flat f;
    sw_optimizer o;
    sw_ctx c;
    assert_int_equal(sw_ctx_init(&c, d, SW_BF16) || sw_flat_build(&f, &m->params, d, SW_BF16), 0);
    assert_int_equal(sw_optimizer_init(&o, sw_optimizer_find("adamw"), &(sw_optimizer_options){0.1, 0.9, 0.95, 1e-8}, &f), 0);
    int32_t ids[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    sw_emulator_counts before = {0};
    double norm[5];
    for (int step = 0; step < 5; step++) {
        if (step == 2)
            before = sw_emu_count;
        c.recording = true;
        sw_var *h = sw_model_forward(&c, m, &(sw_batch){.n = 12, .n_seqs = 2, .ids = ids, .lengths = (int64_t[]){5, 7}}, step % 2);
        sw_var *seed = h ? sw_like(&c, h) : NULL;
        assert_true(seed && !d->k->fill(d->stream, &seed->t, 1));
        assert_int_equal(sw_flat_zero_grad(&f) || sw_backward(&c, h, &seed->t) || sw_grad_norm(&f, &norm[step]), 0);
        assert_int_equal(sw_optimizer_step(&o, 1e-3, 1), 0);
        c.recording = false;
        sw_ctx_reset(&c);
    }
    assert_true(norm[0] > 0 && norm[4] > 0 && norm[4] != norm[0]);
    assert_int_equal(since(before).allocations + since(before).pinned, 0);
    sw_optimizer_free(&o);
    sw_flat_free(&f);
    sw_ctx_free(&c);
    sw_model_free(m);
    d->close(d);
}

/* Batches that are made ready in one context while the other is at work: the same bits whichever stream is late, and copied
 * while kernels of the batch before still wait. */
static void batches_are_sent_beside_kernels(void **state)
{
    (void)state;
    enum { BATCHES = 5, LENGTH = 12, WIDTH = 64 };
    static const char *const late[] = {"", "0", "1"};
    static float all[SW_COUNT(late)][BATCHES][LENGTH * WIDTH];
    for (size_t k = 0; k < SW_COUNT(late); k++) {
        setenv("SWIFT_EMULATOR_LATE", late[k], 1);
        sw_device *d = sw_device_open("emulator");
        sw_model *m = d ? sw_model_load("tests/golden/llm/llama", d, &(sw_load_options){.dtype = SW_F32}) : NULL;
        if (!m)
            fail_msg("%s", sw_error());
        assert_true(m->spec.hidden <= WIDTH);
        sw_ctx c[2];
        assert_int_equal(sw_ctx_init(&c[0], d, SW_F32), 0);
        sw_ctx_init_twin(&c[1], &c[0]);
        sw_emulator_counts before = sw_emu_count;
        sw_pass *next = NULL;
        for (int i = 0; i <= BATCHES; i++) {
            int32_t ids[LENGTH];
            for (int t = 0; t < LENGTH; t++)
                ids[t] = 1 + (7 * i + 3 * t) % 20;
            sw_var *h = i ? sw_model_run(&c[(i + 1) % 2], next, false) : NULL;
            next = sw_model_prepare(&c[i % 2], m, &(sw_batch){.n = LENGTH, .n_seqs = 2, .ids = ids, .lengths = (int64_t[]){3 + i, LENGTH - 3 - i}});
            assert_non_null(next);
            if (i)
                assert_int_equal(!h || sw_to_host(&c[(i + 1) % 2], h, all[k][i - 1]), 0);
            sw_ctx_reset(&c[(i + 1) % 2]);
        }
        if (k == 1)
            assert_in_range(since(before).beside, 4 * BATCHES, 100 * BATCHES); /* ids, positions and two tables */
        assert_memory_equal(all[k], all[0], sizeof all[0]);
        sw_ctx_free(&c[1]);
        sw_ctx_free(&c[0]);
        sw_model_free(m);
        d->close(d);
    }
    unsetenv("SWIFT_EMULATOR_LATE");
    assert_memory_not_equal(all[0][0], all[0][1], sizeof all[0][0]);
}

/* Memory that batches land in is used again while kernels that read it may still wait: the host asks for all of it and waits
 * for nothing. */
static void landing_is_left_before_it_is_used_again(void **state)
{
    (void)state;
    enum { WIDTH = 100, TIMES = 20 };
    static const char *const late[] = {"", "0", "1"};
    for (size_t k = 0; k < SW_COUNT(late); k++) {
        setenv("SWIFT_EMULATOR_LATE", late[k], 1);
        sw_device *d = sw_device_open("emulator");
        assert_non_null(d);
        int64_t n = WIDTH;
        float values[WIDTH];
        sw_ctx c;
        sw_tensor sum = sw_tensor_of(d->alloc(d, sizeof values), SW_F32, 1, &n);
        assert_int_equal(sw_ctx_init(&c, d, SW_F32) || d->k->fill(d->stream, &sum, 0), 0);
        for (int i = 1; i <= TIMES; i++) {
            for (int j = 0; j < WIDTH; j++)
                values[j] = (float)(i * (j + 1));
            sw_var *v = sw_from_host(&c, SW_F32, 1, &n, values);
            assert_non_null(v);
            assert_int_equal(d->k->axpby(d->stream, &sum, 1, &v->t, 1), 0);
            sw_ctx_reset(&c);
        }
        assert_int_equal(d->get(d, values, sum.data, sizeof values), 0);
        for (int j = 0; j < WIDTH; j++)
            assert_true(values[j] == (float)(TIMES * (TIMES + 1) / 2 * (j + 1)));
        sw_ctx_free(&c);
        d->free(d, sum.data);
        d->close(d);
    }
    unsetenv("SWIFT_EMULATOR_LATE");
}

static void weights_that_do_not_fit(void **state)
{
    (void)state;
    setenv("SWIFT_EMULATOR_MEMORY", "33600000", 1); /* 33.55 MB of it are the products' */
    sw_device *d = sw_device_open("emulator");
    if (!d)
        fail_msg("%s", sw_error());
    assert_null(sw_model_load("tests/golden/llm/llama", d, &(sw_load_options){.dtype = SW_F32}));
    assert_non_null(strstr(sw_error(), "tests/golden/llm/llama: its weights take "));
    assert_non_null(strstr(sw_error(), " of memory, of which emulator:0 has "));
    assert_non_null(strstr(sw_error(), "quantised model"));
    d->close(d);
    unsetenv("SWIFT_EMULATOR_MEMORY");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_become_graphs),
        cmocka_unit_test(neighbours_are_one_kernel),
        cmocka_unit_test(neighbours_that_need_each_other),
        cmocka_unit_test(weights_that_a_step_writes),
        cmocka_unit_test(gated_products_are_one_kernel),
        cmocka_unit_test(drawn_steps_become_graphs),
        cmocka_unit_test(steps_that_differ),
        cmocka_unit_test(training_asks_for_no_memory),
        cmocka_unit_test(batches_are_sent_beside_kernels),
        cmocka_unit_test(landing_is_left_before_it_is_used_again),
        cmocka_unit_test(weights_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
