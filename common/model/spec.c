#include "model/spec.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

void sw_spec_free(sw_spec *s) { sw_arena_free(&s->arena); }

static const struct {
    const char *name;
    sw_rope_kind kind;
} rope_kinds[] = {{"default", SW_ROPE_DEFAULT}, {"linear", SW_ROPE_LINEAR}, {"dynamic", SW_ROPE_DYNAMIC},
                  {"yarn", SW_ROPE_YARN},       {"llama3", SW_ROPE_LLAMA3}, {"longrope", SW_ROPE_LONGROPE},
                  {"su", SW_ROPE_LONGROPE}}; /* su: the name that early Phi-3 files use */

int64_t sw_rope_pairs(const sw_spec *s)
{
    double share = s->rope.partial > 0 ? s->rope.partial : 1;
    return (int64_t)((double)s->head_dim * share) / 2;
}

static int read_factors(sw_spec *s, const cJSON *o, const char *key, double **out)
{
    const cJSON *list = sw_json_get(o, key);
    int64_t n = sw_rope_pairs(s), i = 0;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != n)
        return sw_fail("\"%s\": a list of %lld numbers is needed", key, (long long)n);
    *out = sw_arena_zalloc(&s->arena, (size_t)n * sizeof **out);
    for (const cJSON *v = list->child; v; v = v->next) {
        if (!cJSON_IsNumber(v) || !(v->valuedouble > 0))
            return sw_fail("\"%s\": item %lld is no positive number", key, (long long)i);
        (*out)[i++] = v->valuedouble;
    }
    return 0;
}

int sw_spec_read_rope(sw_spec *s, const cJSON *config)
{
    /* transformers 5 writes rope_parameters, with theta inside; published files write rope_scaling and rope_theta. */
    const cJSON *o = sw_json_get(config, "rope_parameters");
    if (!o)
        o = sw_json_get(config, "rope_scaling");
    if (o && !cJSON_IsObject(o))
        return sw_fail("\"rope_scaling\": an object is needed, not %s", sw_json_kind(o));
    const char *type;
    sw_rope_spec *r = &s->rope;
    double theta, partial;
    if (sw_json_str(o, "type", "default", &type) || sw_json_str(o, "rope_type", type, &type) ||
        sw_json_f64(config, "rope_theta", 10000, &theta) || sw_json_f64(o, "rope_theta", theta, &r->theta) ||
        sw_json_f64(config, "partial_rotary_factor", 0, &partial) || sw_json_f64(o, "partial_rotary_factor", partial, &r->partial) ||
        sw_json_f64(o, "factor", 1, &r->factor) || sw_json_f64(o, "low_freq_factor", 1, &r->low_freq_factor) ||
        sw_json_f64(o, "high_freq_factor", 4, &r->high_freq_factor) || sw_json_f64(o, "beta_fast", 32, &r->beta_fast) ||
        sw_json_f64(o, "beta_slow", 1, &r->beta_slow) || sw_json_f64(o, "attention_factor", 0, &r->attention_factor) ||
        sw_json_f64(o, "mscale", 0, &r->mscale) || sw_json_f64(o, "mscale_all_dim", 0, &r->mscale_all_dim) ||
        sw_json_bool(o, "truncate", true, &r->truncate))
        return -1;
    double original;
    if (sw_json_f64(config, "original_max_position_embeddings", 0, &original) ||
        sw_json_f64(o, "original_max_position_embeddings", original, &r->original_length))
        return -1;
    size_t i = 0;
    while (i < SW_COUNT(rope_kinds) && strcmp(rope_kinds[i].name, type))
        i++;
    if (i == SW_COUNT(rope_kinds))
        return sw_fail("\"rope_type\": '%s' is not known; known are default, linear, dynamic, yarn, llama3, longrope", type);
    r->kind = rope_kinds[i].kind;
    if (!(r->theta > 0) || !(r->factor > 0) || r->partial < 0 || r->partial > 1 || r->original_length < 0)
        return sw_fail("rope: theta %g, factor %g, partial_rotary_factor %g: theta and factor must be positive, the last in (0, 1]",
                       r->theta, r->factor, r->partial);
    if (r->kind == SW_ROPE_LLAMA3 && !(r->high_freq_factor > r->low_freq_factor && r->low_freq_factor > 0))
        return sw_fail("rope: high_freq_factor %g must be above low_freq_factor %g", r->high_freq_factor, r->low_freq_factor);
    if (r->kind == SW_ROPE_LONGROPE && (read_factors(s, o, "short_factor", &r->short_factor) || read_factors(s, o, "long_factor", &r->long_factor)))
        return -1;
    return 0;
}

int sw_spec_check(const sw_spec *s)
{
    const struct {
        const char *name;
        int64_t value, max;
    } sizes[] = {{"vocab_size", s->vocab, 1 << 28},       {"hidden_size", s->hidden, 1 << 20},
                 {"num_hidden_layers", s->layers, 4096},  {"num_attention_heads", s->heads, 1 << 16},
                 {"num_key_value_heads", s->kv_heads, 1 << 16}, {"head_dim", s->head_dim, 1 << 16},
                 {"intermediate_size", s->mlp, 1 << 24}};
    for (size_t i = 0; i < SW_COUNT(sizes); i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].max)
            return sw_fail("\"%s\": %lld is not between 1 and %lld", sizes[i].name, (long long)sizes[i].value, (long long)sizes[i].max);
    if (s->heads % s->kv_heads)
        return sw_fail("\"num_attention_heads\": %lld is no multiple of \"num_key_value_heads\", %lld", (long long)s->heads,
                       (long long)s->kv_heads);
    if (s->head_dim % 2)
        return sw_fail("\"head_dim\": %lld is odd, the rotary embedding needs pairs", (long long)s->head_dim);
    if (!(s->norm_eps >= 0 && s->norm_eps < 1))
        return sw_fail("\"rms_norm_eps\": %g is not between 0 and 1", s->norm_eps);
    return 0;
}

/* ---- frequencies, after transformers' modeling_rope_utils and the papers it names */

static double yarn_dim(const sw_spec *s, double rotations, int64_t dim, double length)
{
    return (double)dim * log(length / (rotations * 2 * M_PI)) / (2 * log(s->rope.theta));
}

static double yarn_mscale(double scale, double m) { return scale <= 1 ? 1 : 0.1 * m * log(scale) + 1; }

static void yarn(const sw_spec *s, int64_t dim, float *f, double *scale)
{
    const sw_rope_spec *r = &s->rope;
    double length = r->original_length > 0 ? r->original_length : (double)s->max_position;
    double low = yarn_dim(s, r->beta_fast, dim, length), high = yarn_dim(s, r->beta_slow, dim, length);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)dim - 1);
    if (low == high)
        high += 0.001;
    for (int64_t i = 0; i < dim / 2; i++) {
        double plain = 1 / pow(r->theta, 2.0 * (double)i / (double)dim);
        double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
        f[i] = (float)(plain / r->factor * ramp + plain * (1 - ramp));
    }
    if (r->attention_factor > 0)
        *scale = r->attention_factor;
    else if (r->mscale > 0 && r->mscale_all_dim > 0)
        *scale = yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all_dim);
    else
        *scale = yarn_mscale(r->factor, 1);
}

static void llama3(const sw_spec *s, int64_t dim, float *f)
{
    const sw_rope_spec *r = &s->rope;
    double length = r->original_length > 0 ? r->original_length : 8192;
    for (int64_t i = 0; i < dim / 2; i++) {
        double plain = 1 / pow(r->theta, 2.0 * (double)i / (double)dim), wave = 2 * M_PI / plain;
        if (wave > length / r->low_freq_factor)
            plain /= r->factor;
        else if (wave >= length / r->high_freq_factor) {
            double smooth = (length / wave - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
            plain = (1 - smooth) * plain / r->factor + smooth * plain;
        }
        f[i] = (float)plain;
    }
}

static void longrope(const sw_spec *s, int64_t dim, int64_t length, float *f, double *scale)
{
    const sw_rope_spec *r = &s->rope;
    double original = r->original_length > 0 ? r->original_length : (double)s->max_position;
    const double *factor = (double)length > original ? r->long_factor : r->short_factor;
    for (int64_t i = 0; i < dim / 2; i++)
        f[i] = (float)(1 / (factor[i] * pow(r->theta, 2.0 * (double)i / (double)dim)));
    double ratio = r->original_length > 0 ? (double)s->max_position / original : r->factor;
    if (r->attention_factor > 0)
        *scale = r->attention_factor;
    else
        *scale = ratio <= 1 ? 1 : sqrt(1 + log(ratio) / log(original));
}

void sw_rope_frequencies(const sw_spec *s, int64_t length, float *f, double *scale)
{
    const sw_rope_spec *r = &s->rope;
    int64_t dim = sw_rope_pairs(s) * 2;
    double theta = r->theta, divide = 1;
    *scale = 1;
    switch (r->kind) {
    case SW_ROPE_YARN: yarn(s, dim, f, scale); return;
    case SW_ROPE_LLAMA3: llama3(s, dim, f); return;
    case SW_ROPE_LONGROPE: longrope(s, dim, length, f, scale); return;
    case SW_ROPE_LINEAR: divide = r->factor; break;
    case SW_ROPE_DYNAMIC: {
        /* NTK-aware: the base grows with the longest sequence beyond the trained length. */
        double trained = r->original_length > 0 ? r->original_length : (double)s->max_position;
        double len = fmax((double)length, trained);
        theta *= pow(r->factor * len / trained - (r->factor - 1), (double)dim / ((double)dim - 2));
        break;
    }
    case SW_ROPE_DEFAULT: break;
    }
    for (int64_t i = 0; i < dim / 2; i++)
        f[i] = (float)(1 / pow(theta, 2.0 * (double)i / (double)dim) / divide / (r->divisors ? r->divisors[i] : 1));
}
