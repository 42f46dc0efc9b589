/* Drawing tokens: each setting against probabilities worked out by hand. */
#include "kernels/draw.h"
#include "model/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 4, DRAWS = 20000 };

static const double share[VOCAB] = {0.1, 0.4, 0.2, 0.3};

/* The token after the first n, of which n_prompt are the prompt; the logits are changed by the penalties. */
static int32_t sampled(float *logits, int64_t vocab, const sw_sampling *s, const int32_t *ids, size_t n, size_t n_prompt, uint32_t stream,
                       double *logp)
{
    sw_seen_tokens seen = {0};
    double out[2];
    sw_draw d = sw_sampling_draw(s, ids, n, n_prompt, stream, &seen);
    d.want_logp = logp != NULL;
    sw_draw_row(out, logits, vocab, &d, (const int32_t(*)[2])seen.at);
    free(seen.at);
    if (logp)
        *logp = out[1];
    return (int32_t)out[0];
}

/* Draws at the places 0 .. DRAWS - 1 of an answer; counts of each token. */
static void draw(const sw_sampling *s, const double *p, int counts[VOCAB])
{
    static int32_t seen[DRAWS + 1]; /* one token of prompt, which no penalty is asked for */
    memset(counts, 0, VOCAB * sizeof *counts);
    for (size_t i = 0; i < DRAWS; i++) {
        float logits[VOCAB];
        for (int k = 0; k < VOCAB; k++)
            logits[k] = (float)log(p[k]);
        counts[sampled(logits, VOCAB, s, seen, i + 1, 1, 0, NULL)]++;
    }
}

/* Counts are those of probabilities (any sum), within 4.5 standard deviations; what has none is never drawn. */
static void assert_drawn(const sw_sampling *s, double a, double b, double c, double d)
{
    const double want[VOCAB] = {a, b, c, d};
    int counts[VOCAB];
    draw(s, share, counts);
    for (int k = 0; k < VOCAB; k++) {
        double p = want[k] / (a + b + c + d);
        if (p == 0)
            assert_int_equal(counts[k], 0);
        else
            assert_true(fabs(counts[k] - p * DRAWS) <= 4.5 * sqrt(p * (1 - p) * DRAWS));
    }
}

static sw_sampling neutral(double temperature)
{
    sw_sampling s = sw_sampling_greedy;
    s.temperature = temperature;
    return s;
}

static void temperatures(void **state)
{
    (void)state;
    sw_sampling s = neutral(0);
    assert_drawn(&s, 0, 1, 0, 0);
    s.temperature = 1;
    assert_drawn(&s, 0.1, 0.4, 0.2, 0.3);
    s.temperature = 0.5; /* squares */
    assert_drawn(&s, 0.01, 0.16, 0.04, 0.09);
    s.temperature = 2;
    assert_drawn(&s, sqrt(0.1), sqrt(0.4), sqrt(0.2), sqrt(0.3));
    float tie[VOCAB] = {1, 2, 2, 0};
    s.temperature = 0;
    assert_int_equal(sampled(tie, VOCAB, &s, NULL, 0, 0, 0, NULL), 1);
}

static void cuts(void **state)
{
    (void)state;
    sw_sampling s = neutral(1);
    s.top_k = 2;
    assert_drawn(&s, 0, 0.4, 0, 0.3);
    s.top_k = 9;
    assert_drawn(&s, 0.1, 0.4, 0.2, 0.3);
    s.top_k = 0;
    s.top_p = 0.39;
    assert_drawn(&s, 0, 1, 0, 0);
    s.top_p = 0.55; /* the token that reaches it is in */
    assert_drawn(&s, 0, 0.4, 0, 0.3);
    s.top_p = 1;
    s.min_p = 0.45; /* of 0.4 */
    assert_drawn(&s, 0, 0.4, 0.2, 0.3);
    s.min_p = 1;
    assert_drawn(&s, 0, 1, 0, 0);
    /* top-p is of all, not of what min-p leaves. */
    s.min_p = 0.6;
    s.top_p = 0.55;
    assert_drawn(&s, 0, 0.4, 0, 0.3);
    /* top-p is of what top-k leaves: 0.4 of 0.7 reaches 0.55. */
    s.min_p = 0;
    s.top_k = 2;
    assert_drawn(&s, 0, 1, 0, 0);
}

/* Logits after the penalties, seen through the token that greedy takes and its log-probability. */
static void penalties(void **state)
{
    (void)state;
    const float plain[VOCAB] = {2, -1, 1.5f, 0};
    const int32_t seen[] = {0, 3, 2, 2, 1}; /* the first two are the prompt */
    float x[VOCAB];
    sw_sampling s = neutral(0);
    double logp;
    s.repetition_penalty = 2; /* all were seen, once or more */
    memcpy(x, plain, sizeof x);
    assert_int_equal(sampled(x, VOCAB, &s, seen, 5, 2, 0, &logp), 0);
    const float repeated[VOCAB] = {1, -2, 0.75f, 0};
    assert_memory_equal(x, repeated, sizeof x);
    double sum = exp(2) + exp(-1) + exp(1.5) + exp(0);
    assert_true(fabs(logp - (2 - log(sum))) < 1e-9); /* of the model, not of the penalised */
    s.repetition_penalty = 1;
    s.presence_penalty = 0.5;
    s.frequency_penalty = 0.25;
    memcpy(x, plain, sizeof x);
    sampled(x, VOCAB, &s, seen, 5, 2, 0, NULL);
    const float less[VOCAB] = {2, -1.75f, 0.5f, 0};
    assert_memory_equal(x, less, sizeof x);
}

static void seeds_and_streams(void **state)
{
    (void)state;
    sw_sampling s = neutral(1);
    int same[2] = {0, 0};
    for (size_t i = 0; i < 1000; i++) {
        int32_t got[4], seen[1] = {0};
        for (int k = 0; k < 4; k++) {
            float x[VOCAB] = {0, 0, 0, 0};
            s.seed = i + (k == 2 ? 5000 : 0);
            got[k] = sampled(x, VOCAB, &s, seen, 1, 1, k == 3, NULL);
        }
        assert_int_equal(got[0], got[1]);
        same[0] += got[0] == got[2];
        same[1] += got[0] == got[3];
    }
    for (int k = 0; k < 2; k++)
        assert_in_range(same[k], 180, 320); /* a quarter */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(temperatures),
        cmocka_unit_test(cuts),
        cmocka_unit_test(penalties),
        cmocka_unit_test(seeds_and_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
