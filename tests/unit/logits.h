/* What tests of models ask of them: logits of a batch, and how far two lists of numbers are apart. */
#ifndef SW_TESTS_LOGITS_H
#define SW_TESTS_LOGITS_H

#include "model/model.h"
#include "nn/logprob.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static inline void ok(int rc)
{
    if (rc)
        fail_msg("%s", sw_error());
}

/* Logits [n, V] of the batch's tokens to `to`. */
static inline void logits_of(sw_ctx *c, sw_model *m, const sw_batch *b, float *to)
{
    sw_head head = sw_model_head(m);
    sw_var *h = sw_model_forward(c, m, b, false), *y = h ? sw_logits(c, h, &head) : NULL;
    ok(!y || sw_to_host(c, y, to));
    sw_ctx_reset(c);
}

/* The largest difference, as a share of the largest of a; infinite where one is no number. */
static inline double apart(const float *a, const float *b, int64_t n)
{
    double most = 0, d = 0;
    for (int64_t i = 0; i < n; i++) {
        double x = fabs((double)a[i] - b[i]);
        most = fmax(most, fabs((double)a[i]));
        d = x >= 0 ? fmax(d, x) : INFINITY;
    }
    return d / most;
}

#endif
