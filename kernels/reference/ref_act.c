/* Activations, gated units and the soft cap. */
#include "kernels/reference/reference.h"

#include <math.h>

#define SQRT_2_OVER_PI 0.79788456080286535588
#define GELU_CUBIC 0.044715

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

double ref_act(int kind, double x)
{
    switch (kind) {
    case SW_ACT_SILU: return x * sigmoid(x);
    case SW_ACT_GELU: return 0.5 * x * erfc(-x * M_SQRT1_2);
    case SW_ACT_GELU_TANH: return 0.5 * x * (1 + tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x)));
    case SW_ACT_RELU: return x > 0 ? x : 0;
    case SW_ACT_RELU2: return x > 0 ? x * x : 0;
    case SW_ACT_SIGMOID: return sigmoid(x);
    case SW_ACT_TANH: return tanh(x);
    case SW_ACT_GELU_QUICK: return x * sigmoid(1.702 * x);
    case SW_ACT_ELU: return x > 0 ? x : expm1(x);
    case SW_ACT_SOFTPLUS: return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
    case SW_ACT_EXP: return exp(x);
    case SW_ACT_SQRT: return x > 0 ? sqrt(x) : 0;
    default: assert(kind == SW_ACT_NONE); return x;
    }
}

double ref_act_slope(int kind, double x)
{
    switch (kind) {
    case SW_ACT_SILU: return sigmoid(x) * (1 + x * (1 - sigmoid(x)));
    case SW_ACT_GELU: return 0.5 * erfc(-x * M_SQRT1_2) + x * exp(-0.5 * x * x) * 0.5 * M_2_SQRTPI * M_SQRT1_2;
    case SW_ACT_GELU_TANH: {
        double t = tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x));
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * x * x);
    }
    case SW_ACT_RELU: return x > 0;
    case SW_ACT_RELU2: return x > 0 ? 2 * x : 0;
    case SW_ACT_SIGMOID: return sigmoid(x) * (1 - sigmoid(x));
    case SW_ACT_TANH: return 1 - tanh(x) * tanh(x);
    case SW_ACT_GELU_QUICK: {
        double g = sigmoid(1.702 * x);
        return g + 1.702 * x * g * (1 - g);
    }
    case SW_ACT_ELU: return x > 0 ? 1 : exp(x);
    case SW_ACT_SOFTPLUS: return sigmoid(x);
    case SW_ACT_EXP: return exp(x);
    case SW_ACT_SQRT: return x > 2.5e-7 ? 0.5 / sqrt(x) : 1000;
    default: assert(kind == SW_ACT_NONE); return 1;
    }
}

int ref_act_fwd(sw_stream *s, sw_tensor *y, const sw_tensor *x, int kind)
{
    assert(ref_same_shape(y, x));
    (void)s;
    for (int64_t i = 0, n = sw_numel(x); i < n; i++)
        ref_set(y, i, ref_act(kind, ref_get(x, i)));
    return 0;
}

int ref_act_bwd(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_tensor *x, int kind, int acc)
{
    assert(ref_same_shape(dx, x) && ref_same_shape(dy, x));
    (void)s;
    for (int64_t i = 0, n = sw_numel(x); i < n; i++)
        ref_set(dx, i, ref_get(dy, i) * ref_act_slope(kind, ref_get(x, i)) + (acc ? ref_get(dx, i) : 0));
    return 0;
}

int ref_glu_fwd(sw_stream *s, sw_tensor *y, const sw_tensor *gate, const sw_tensor *up, int kind)
{
    assert(ref_same_shape(y, gate) && ref_same_shape(y, up));
    (void)s;
    for (int64_t i = 0, n = sw_numel(y); i < n; i++)
        ref_set(y, i, ref_act(kind, ref_get(gate, i)) * ref_get(up, i));
    return 0;
}

int ref_glu_bwd(sw_stream *s, sw_tensor *dgate, sw_tensor *dup, const sw_tensor *dy, const sw_tensor *gate,
                const sw_tensor *up, int kind)
{
    assert(ref_same_shape(dgate, gate) && ref_same_shape(dup, gate) && ref_same_shape(dy, gate) &&
           ref_same_shape(up, gate));
    (void)s;
    for (int64_t i = 0, n = sw_numel(gate); i < n; i++) {
        double g = ref_get(gate, i), u = ref_get(up, i), d = ref_get(dy, i);
        ref_set(dgate, i, d * u * ref_act_slope(kind, g));
        ref_set(dup, i, d * ref_act(kind, g));
    }
    return 0;
}

int ref_softcap_fwd(sw_stream *s, sw_tensor *y, const sw_tensor *x, double cap)
{
    assert(ref_same_shape(y, x) && cap > 0);
    (void)s;
    for (int64_t i = 0, n = sw_numel(x); i < n; i++)
        ref_set(y, i, cap * tanh(ref_get(x, i) / cap));
    return 0;
}

int ref_softcap_bwd(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_tensor *y, double cap, int acc)
{
    assert(ref_same_shape(dx, y) && ref_same_shape(dy, y) && cap > 0);
    (void)s;
    for (int64_t i = 0, n = sw_numel(y); i < n; i++) {
        double t = ref_get(y, i) / cap;
        ref_set(dx, i, ref_get(dy, i) * (1 - t * t) + (acc ? ref_get(dx, i) : 0));
    }
    return 0;
}
