/* How values turn, in GGUF's words: metadata, and divisors of frequencies that lie in tensors. */
#include "model/gguf_map.h"
#include "model/mixer_mla.h"

#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- from a file */

/* The rule that Llama 3's divisors follow, as far as they show it: what grows by a factor, and a slope before it. */
static bool llama3_rule(const double *d, int64_t n, double theta, double *factor, double *high, double *original)
{
    double a = 0, b = 0, slope[2], x[2];
    int64_t found = 0;
    *factor = 1;
    for (int64_t i = 0; i < n; i++)
        *factor = fmax(*factor, d[i]);
    if (!(*factor > 1))
        return false;
    for (int64_t i = 0; i < n; i++) { /* 1 / d is (1 - s) / factor + s, and s grows with the frequency */
        double s = (1 / d[i] - 1 / *factor) / (1 - 1 / *factor), f = pow(theta, -(double)i / (double)n) / (2 * M_PI);
        if (s > 1e-4 && s < 1 - 1e-4 && found < 2) {
            slope[found] = s;
            x[found++] = f;
        }
    }
    static const double lengths[] = {8192, 4096, 16384, 32768, 2048, 1024, 512, 256, 128, 64, 32, 65536, 131072};
    for (size_t k = 0; k <= SW_COUNT(lengths); k++) {
        if (k < SW_COUNT(lengths)) {
            *high = 4;
            *original = lengths[k];
        } else if (found == 2) { /* with a low factor of one */
            a = (slope[1] - slope[0]) / (x[1] - x[0]);
            b = slope[0] - a * x[0];
            *high = 1 - 1 / b;
            *original = a * (*high - 1);
        } else {
            return false;
        }
        double worst = 0;
        for (int64_t i = 0; i < n; i++) {
            double f = pow(theta, -(double)i / (double)n) / (2 * M_PI), s = fmin(fmax((*original * f - 1) / (*high - 1), 0), 1);
            worst = fmax(worst, fabs(((1 - s) / *factor + s) * d[i] - 1));
        }
        if (worst < 1e-5)
            return true;
    }
    return false;
}

static cJSON *numbers(const sw_entry *e)
{
    cJSON *list = cJSON_CreateArray();
    for (int64_t i = 0; i < sw_numel(&e->t); i++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber((double)(float)sw_scalar_get(e->t.data, e->t.dtype, i)));
    return list;
}

/* Divisors of the frequencies that lie in tensors: Llama 3's rule, or a list for short and one for long texts. */
static int read_divisors(const sw_gguf *g, const sw_gguf_kind *kind, cJSON *config)
{
    const sw_entry *one = sw_gguf_tensor(g, "rope_freqs.weight"), *small = sw_gguf_tensor(g, "rope_factors_short.weight"),
                   *large = sw_gguf_tensor(g, "rope_factors_long.weight");
    double theta, factor, high, original, attention;
    char key[SW_GGUF_KEY_MAX];
    for (int i = 0; i < 3; i++) {
        const sw_entry *e = i == 0 ? one : i == 1 ? small : large;
        if (!e)
            continue;
        if (e->t.dtype != SW_F32)
            return sw_fail("%s: numbers of type f32 are needed", e->name);
        for (int64_t k = 0; k < sw_numel(&e->t); k++)
            if (!(sw_scalar_get(e->t.data, SW_F32, k) > 0))
                return sw_fail("%s: number %lld is not positive", e->name, (long long)k);
    }
    if (!one && !(small && large))
        return 0;
    if (sw_gguf_f64(g, sw_gguf_full(kind->arch, "rope.freq_base", key), 10000, &theta) ||
        sw_gguf_f64(g, sw_gguf_full(kind->arch, "rope.scaling.original_context_length", key), 0, &original) ||
        sw_gguf_f64(g, sw_gguf_full(kind->arch, "rope.scaling.attn_factor", key), one ? 1 : 0, &attention))
        return -1;
    cJSON *o = cJSON_CreateObject();
    sw_gguf_set(config, "rope_scaling", o);
    if (one && !small) {
        int64_t n = sw_numel(&one->t);
        double *d = SW_NEW_ARRAY(double, (size_t)n);
        for (int64_t i = 0; i < n; i++)
            d[i] = sw_scalar_get(one->t.data, SW_F32, i);
        bool rule = llama3_rule(d, n, theta, &factor, &high, &original);
        free(d);
        if (rule) {
            cJSON_AddStringToObject(o, "rope_type", "llama3");
            cJSON_AddNumberToObject(o, "factor", (double)(float)factor);
            cJSON_AddNumberToObject(o, "low_freq_factor", 1);
            cJSON_AddNumberToObject(o, "high_freq_factor", high);
            cJSON_AddNumberToObject(o, "original_max_position_embeddings", original);
            return 0;
        }
        small = large = one;
    }
    cJSON_AddStringToObject(o, "rope_type", "longrope");
    cJSON_AddItemToObject(o, "short_factor", numbers(small));
    cJSON_AddItemToObject(o, "long_factor", numbers(large));
    if (original > 0)
        cJSON_AddNumberToObject(o, "original_max_position_embeddings", original);
    if (attention > 0)
        cJSON_AddNumberToObject(o, "attention_factor", attention);
    if (original > 0)
        sw_gguf_set(config, "original_max_position_embeddings", cJSON_CreateNumber(original));
    return 0;
}

int sw_gguf_read_rope(const sw_gguf *g, const sw_gguf_kind *kind, const sw_family *f, cJSON *config)
{
    static const struct {
        const char *gguf, *config;
    } fractions[] = {{"rope.scaling.factor", "factor"}, {"rope.scaling.yarn_beta_fast", "beta_fast"},
                     {"rope.scaling.yarn_beta_slow", "beta_slow"}, {"rope.scaling.original_context_length", "original_max_position_embeddings"}};
    char key[SW_GGUF_KEY_MAX];
    int64_t turned, heads, width, wide;
    if (sw_gguf_i64(g, sw_gguf_full(kind->arch, "rope.dimension_count", key), 0, 1 << 20, 0, &turned))
        return -1;
    const cJSON *head = sw_json_get(config, "head_dim");
    double d, factor;
    heads = sw_gguf_whole(config, "num_attention_heads");
    wide = sw_gguf_whole(config, "hidden_size");
    width = head ? sw_gguf_whole(config, "head_dim") : heads > 0 ? wide / heads : 0;
    if (turned && width && (turned != width || f->spec.rope[0].partial > 0) && !sw_json_get(config, "kv_lora_rank"))
        sw_gguf_set(config, "partial_rotary_factor", cJSON_CreateNumber((double)turned / (double)width));
    sw_span type = sw_gguf_str(g, sw_gguf_full(kind->arch, "rope.scaling.type", key));
    bool yarn = type.n == 4 && !memcmp(type.at, "yarn", 4), linear = type.n == 6 && !memcmp(type.at, "linear", 6);
    if (!yarn && !linear)
        return read_divisors(g, kind, config);
    if (sw_gguf_f64(g, sw_gguf_full(kind->arch, "rope.scaling.factor", key), 1, &factor))
        return -1;
    if (linear && factor == 1)
        return read_divisors(g, kind, config);
    cJSON *o = cJSON_CreateObject();
    sw_gguf_set(config, "rope_scaling", o);
    cJSON_AddStringToObject(o, "rope_type", yarn ? "yarn" : "linear");
    for (size_t i = 0; i < SW_COUNT(fractions); i++)
        if (sw_gguf_find(g, sw_gguf_full(kind->arch, fractions[i].gguf, key))) {
            if (sw_gguf_number(g, key, sw_gguf_find(g, key)->type == SW_GGUF_F32 ? SW_GGUF_FRACTION : SW_GGUF_WHOLE, &d))
                return -1;
            cJSON_AddNumberToObject(o, fractions[i].config, d);
        }
    if (sw_gguf_f64(g, sw_gguf_full(kind->arch, "rope.scaling.yarn_log_multiplier", key), 0, &d))
        return -1;
    if (d > 0) { /* with latent attention a tenth of what the hub has */
        double times = sw_json_get(config, "kv_lora_rank") ? 10 : 1;
        cJSON_AddNumberToObject(o, "mscale", (double)(float)(d * times));
        cJSON_AddNumberToObject(o, "mscale_all_dim", (double)(float)(d * times));
    }
    if (sw_gguf_f64(g, sw_gguf_full(kind->arch, "rope.scaling.attn_factor", key), 1, &d))
        return -1;
    if (yarn && d != 1) /* counted there as a multiple of the usual 1 + 0.1 ln(factor) */
        cJSON_AddNumberToObject(o, "attention_factor", d * (1 + 0.1 * log(factor)));
    return 0;
}

/* ---- to a file */

static void put_text(sw_gguf_writer *w, const sw_gguf_kind *kind, const char *key, const char *text)
{
    char full[SW_GGUF_KEY_MAX];
    sw_gguf_put_str(w, sw_gguf_full(kind->arch, key, full), text, strlen(text));
}

int sw_gguf_put_rope(sw_gguf_writer *w, const sw_gguf_kind *kind, const sw_spec *s)
{
    const bool second = kind->flags & SW_GGUF_SECOND_SCALES;
    const sw_rope_spec *r = &s->rope[second];
    char key[SW_GGUF_KEY_MAX];
    if (s->positions != SW_POSITIONS_ROPE || (kind->flags & SW_GGUF_NO_TURN))
        return 0;
    if (r->kind == SW_ROPE_DYNAMIC && !(r->alpha > 0))
        return sw_fail("GGUF's %s has no place for a rotary scaling that depends on the length of the text", kind->arch);
    sw_gguf_put_u32(w, sw_gguf_full(kind->arch, "rope.dimension_count", key), (uint32_t)(2 * sw_rope_pairs(r)));
    if (r->kind == SW_ROPE_LONGROPE) {
        put_text(w, kind, "rope.scaling.type", "longrope");
        double length = sw_rope_trained(r), scale = r->max_position / length;
        double factor = r->long_mscale > 0 ? r->long_mscale : r->attention_factor > 0 ? r->attention_factor : scale > 1 ? sqrt(1 + log(scale) / log(length)) : 1;
        sw_gguf_put_f32(w, sw_gguf_full(kind->arch, "rope.scaling.attn_factor", key), (float)factor);
        sw_gguf_put_u32(w, sw_gguf_full(kind->arch, "rope.scaling.original_context_length", key), (uint32_t)length);
    }
    if (r->kind != SW_ROPE_LINEAR && r->kind != SW_ROPE_YARN)
        return 0;
    put_text(w, kind, "rope.scaling.type", r->kind == SW_ROPE_YARN ? "yarn" : "linear");
    sw_gguf_put_f32(w, sw_gguf_full(kind->arch, "rope.scaling.factor", key), (float)r->factor);
    if (r->kind == SW_ROPE_LINEAR)
        return 0;
    sw_gguf_put_u32(w, sw_gguf_full(kind->arch, "rope.scaling.original_context_length", key), (uint32_t)sw_rope_trained(r));
    sw_gguf_put_f32(w, sw_gguf_full(kind->arch, "rope.scaling.yarn_beta_fast", key), (float)r->beta_fast);
    sw_gguf_put_f32(w, sw_gguf_full(kind->arch, "rope.scaling.yarn_beta_slow", key), (float)r->beta_slow);
    if (r->attention_factor > 0 && !second) /* counted there as a multiple of the usual 1 + 0.1 ln(factor) */
        sw_gguf_put_f32(w, sw_gguf_full(kind->arch, "rope.scaling.attn_factor", key), (float)(r->attention_factor / (1 + 0.1 * log(r->factor))));
    if (r->mscale_all_dim > 0)
        sw_gguf_put_f32(w, sw_gguf_full(kind->arch, "rope.scaling.yarn_log_multiplier", key), (float)((sw_gguf_latent(s) ? 0.1 : 1) * r->mscale_all_dim));
    return 0;
}

bool sw_gguf_rope_divisors(const sw_spec *s, float *divisors)
{
    if (s->rope[0].kind != SW_ROPE_LLAMA3)
        return false;
    int64_t pairs = sw_rope_pairs(&s->rope[0]);
    double scale;
    sw_rope_frequencies(&s->rope[0], s->max_position, divisors, &scale);
    for (int64_t i = 0; i < pairs; i++)
        divisors[i] = (float)(pow(s->rope[0].theta, -(double)i / (double)pairs) / divisors[i]);
    return true;
}

static void add_numbers(sw_entries *out, sw_arena *arena, const char *name, const float *values, int64_t n)
{
    SW_PUSH(*out, ((sw_entry){.name = sw_arena_strndup(arena, name, strlen(name)),
                              .t = sw_tensor_of((void *)(uintptr_t)values, SW_F32, 1, &n)}));
}

void sw_gguf_add_divisors(sw_entries *out, sw_arena *arena, const sw_spec *s)
{
    const sw_rope_spec *r = &s->rope[0];
    int64_t n = sw_rope_pairs(r);
    if (s->positions != SW_POSITIONS_ROPE || n < 1)
        return;
    float *d = sw_arena_zalloc(arena, (size_t)n * 2 * sizeof *d);
    if (sw_gguf_rope_divisors(s, d))
        add_numbers(out, arena, "rope_freqs.weight", d, n);
    if (r->kind == SW_ROPE_PROPORTIONAL) { /* what does not turn has an endless period */
        int64_t turned = (int64_t)(r->partial * (double)r->dim) / 2;
        for (int64_t i = 0; i < n; i++)
            d[i] = i < turned ? 1 : 1e30f;
        add_numbers(out, arena, "rope_freqs.weight", d, n);
    }
    if (r->kind != SW_ROPE_LONGROPE)
        return;
    for (int64_t i = 0; i < n; i++) {
        d[i] = (float)r->short_factor[i];
        d[n + i] = (float)r->long_factor[i];
    }
    add_numbers(out, arena, "rope_factors_short.weight", d, n);
    add_numbers(out, arena, "rope_factors_long.weight", d + n, n);
}

