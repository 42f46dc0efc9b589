#include "model/rope.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    sw_rope_kind kind;
} rope_kinds[] = {{"default", SW_ROPE_DEFAULT}, {"linear", SW_ROPE_LINEAR}, {"dynamic", SW_ROPE_DYNAMIC},
                  {"yarn", SW_ROPE_YARN},       {"llama3", SW_ROPE_LLAMA3}, {"longrope", SW_ROPE_LONGROPE},
                  {"proportional", SW_ROPE_PROPORTIONAL}, {"ntkmixed", SW_ROPE_NTK_MIXED},
                  {"su", SW_ROPE_LONGROPE}}; /* su: the name that early Phi-3 files use */

/* The part of the head that turns; the exponents of its frequencies are over this, which may be odd. */
static int64_t width_of(const sw_rope_spec *r)
{
    double share = r->partial > 0 && r->kind != SW_ROPE_PROPORTIONAL ? r->partial : 1;
    return (int64_t)((double)r->dim * share);
}

int64_t sw_rope_pairs(const sw_rope_spec *r) { return (width_of(r) + 1) / 2; }

static int read_factors(const sw_rope_spec *r, const cJSON *o, const char *key, double **out, sw_arena *arena)
{
    const cJSON *list = sw_json_get(o, key);
    int64_t n = sw_rope_pairs(r), i = 0;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != n)
        return sw_fail("\"%s\": a list of %lld numbers is needed", key, (long long)n);
    *out = sw_arena_zalloc(arena, (size_t)n * sizeof **out);
    for (const cJSON *v = list->child; v; v = v->next) {
        if (!cJSON_IsNumber(v) || !(v->valuedouble > 0))
            return sw_fail("\"%s\": item %lld is no positive number", key, (long long)i);
        (*out)[i++] = v->valuedouble;
    }
    return 0;
}

/* A number that may stand in the object, or at the top under one of two names. */
static int either(const cJSON *o, const cJSON *config, const char *key, const char *older, double *out)
{
    double top;
    return sw_json_f64(config, older, *out, &top) || sw_json_f64(config, key, top, &top) || sw_json_f64(o, key, top, out) ? -1 : 0;
}

int sw_rope_read(sw_rope_spec *r, const cJSON *o, const cJSON *config, sw_arena *arena)
{
    const char *type;
    if (o && !cJSON_IsObject(o))
        return sw_fail("\"rope_parameters\" or \"rope_scaling\": an object is needed, not %s", sw_json_kind(o));
    if (!(r->theta > 0))
        r->theta = 10000;
    if (sw_json_str(o, "type", NULL, &type) || sw_json_str(o, "rope_type", type, &type) ||
        either(o, config, "rope_theta", "rotary_emb_base", &r->theta) ||
        either(o, config, "partial_rotary_factor", "rotary_pct", &r->partial) ||
        either(o, config, "original_max_position_embeddings", "original_max_position_embeddings", &r->original_length) ||
        sw_json_f64(o, "factor", 1, &r->factor) || sw_json_f64(o, "alpha", 0, &r->alpha) ||
        sw_json_f64(o, "power", 0, &r->power) ||
        sw_json_f64(o, "low_freq_factor", 1, &r->low_freq_factor) || sw_json_f64(o, "high_freq_factor", 4, &r->high_freq_factor) ||
        sw_json_f64(o, "beta_fast", 32, &r->beta_fast) || sw_json_f64(o, "beta_slow", 1, &r->beta_slow) ||
        sw_json_f64(o, "attention_factor", 0, &r->attention_factor) || sw_json_f64(o, "mscale", 0, &r->mscale) ||
        sw_json_f64(o, "mscale_all_dim", 0, &r->mscale_all_dim) || sw_json_bool(o, "truncate", true, &r->truncate) ||
        sw_json_f64(o, "short_mscale", 0, &r->short_mscale) || sw_json_f64(o, "long_mscale", 0, &r->long_mscale))
        return -1;
    size_t i = 0;
    while (type && i < SW_COUNT(rope_kinds) && strcmp(rope_kinds[i].name, type))
        i++;
    if (type && i == SW_COUNT(rope_kinds))
        return sw_fail("\"rope_type\": '%s' is not known; known are default, linear, dynamic, yarn, llama3, longrope, proportional, ntkmixed", type);
    if (type)
        r->kind = rope_kinds[i].kind;
    if (!(r->original_length >= 0))
        return sw_fail("\"original_max_position_embeddings\": %g is negative", r->original_length);
    if (r->kind == SW_ROPE_LONGROPE && r->original_length > 0 && !sw_json_get(o, "factor"))
        r->factor = r->max_position / r->original_length;
    if (!(r->theta > 0) || !(r->factor > 0) || !(r->partial >= 0 && r->partial <= 1) || !(r->alpha >= 0))
        return sw_fail("rope: \"rope_theta\" %g, \"factor\" %g, \"partial_rotary_factor\" %g: theta and factor must be positive, the last in (0, 1]",
                       r->theta, r->factor, r->partial);
    if (r->kind == SW_ROPE_LLAMA3 && !(r->high_freq_factor > r->low_freq_factor && r->low_freq_factor > 0))
        return sw_fail("rope: high_freq_factor %g must be above low_freq_factor %g", r->high_freq_factor, r->low_freq_factor);
    if (r->kind == SW_ROPE_NTK_MIXED && (!(r->power > 0) || !(r->factor >= 1)))
        return sw_fail("rope: power %g and factor %g: a positive number, and one of at least 1, are needed", r->power, r->factor);
    if (r->kind == SW_ROPE_LONGROPE && (read_factors(r, o, "short_factor", &r->short_factor, arena) ||
                                        read_factors(r, o, "long_factor", &r->long_factor, arena)))
        return -1;
    return 0;
}

/* ---- frequencies */

static double yarn_dim(const sw_rope_spec *r, double rotations, int64_t dim, double length)
{
    return (double)dim * log(length / (rotations * 2 * M_PI)) / (2 * log(r->theta));
}

static double yarn_mscale(double scale, double m) { return scale <= 1 ? 1 : 0.1 * m * log(scale) + 1; }

double sw_rope_score_scale(const sw_rope_spec *r)
{
    double m = r->kind == SW_ROPE_DEFAULT || !(r->mscale_all_dim != 0) ? 1 : yarn_mscale(r->factor, r->mscale_all_dim);
    return m * m;
}

static void yarn(const sw_rope_spec *r, int64_t dim, float *f, double *scale)
{
    double length = sw_rope_trained(r);
    double low = yarn_dim(r, r->beta_fast, dim, length), high = yarn_dim(r, r->beta_slow, dim, length);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)dim - 1);
    if (low == high)
        high += 0.001;
    for (int64_t i = 0; i < (dim + 1) / 2; i++) {
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

static void llama3(const sw_rope_spec *r, int64_t dim, float *f)
{
    double length = r->original_length > 0 ? r->original_length : 8192;
    for (int64_t i = 0; i < (dim + 1) / 2; i++) {
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

static void longrope(const sw_rope_spec *r, int64_t dim, int64_t length, float *f, double *scale)
{
    double original = sw_rope_trained(r);
    const double *factor = (double)length > original ? r->long_factor : r->short_factor;
    for (int64_t i = 0; i < (dim + 1) / 2; i++)
        f[i] = (float)(1 / (factor[i] * pow(r->theta, 2.0 * (double)i / (double)dim)));
    double by_length = (double)length > original ? r->long_mscale : r->short_mscale;
    if (by_length > 0)
        *scale = by_length;
    else if (r->attention_factor > 0)
        *scale = r->attention_factor;
    else
        *scale = r->factor <= 1 ? 1 : sqrt(1 + log(r->factor) / log(original));
}

static void frequencies(const sw_rope_spec *r, int64_t length, float *f, double *scale)
{
    int64_t dim = width_of(r);
    double theta = r->theta, divide = 1;
    *scale = 1;
    switch (r->kind) {
    case SW_ROPE_YARN: yarn(r, dim, f, scale); return;
    case SW_ROPE_LLAMA3: llama3(r, dim, f); return;
    case SW_ROPE_LONGROPE: longrope(r, dim, length, f, scale); return;
    case SW_ROPE_LINEAR: divide = r->factor; break;
    case SW_ROPE_DYNAMIC: {
        /* NTK-aware: the base grows with the longest sequence beyond the trained length. */
        if (r->alpha > 0) {
            theta *= pow(r->alpha, (double)dim / ((double)dim - 2));
            break;
        }
        double trained = sw_rope_trained(r);
        double len = fmax((double)length, trained);
        theta *= pow(r->factor * len / trained - (r->factor - 1), (double)dim / ((double)dim - 2));
        break;
    }
    case SW_ROPE_NTK_MIXED: { /* Su 2023, kexue.fm/archives/9706 */
        double a = log(r->factor) / pow((double)dim / 2, r->power);
        for (int64_t i = 0; i < dim / 2; i++)
            f[i] = (float)(1 / pow(theta, 2.0 * (double)i / (double)dim) / exp(a * pow((double)(i + 1), r->power)));
        return;
    }
    case SW_ROPE_PROPORTIONAL:
        for (int64_t i = 0; i < (dim + 1) / 2; i++) {
            bool turns = (double)i < (double)((int64_t)((double)dim * (r->partial > 0 ? r->partial : 1)) / 2);
            f[i] = turns ? (float)(1 / pow(theta, 2.0 * (double)i / (double)dim) / r->factor) : 0;
        }
        return;
    case SW_ROPE_DEFAULT: break;
    }
    for (int64_t i = 0; i < (dim + 1) / 2; i++)
        f[i] = (float)(1 / pow(theta, 2.0 * (double)i / (double)dim) / divide);
}

void sw_rope_frequencies(const sw_rope_spec *r, int64_t length, float *f, double *scale)
{
    frequencies(r, length, f, scale);
    for (int64_t i = 0; r->backward && i < sw_rope_pairs(r); i++)
        f[i] = -f[i];
}
