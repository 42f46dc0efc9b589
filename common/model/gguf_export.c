#include "model/gguf_export.h"

#include "base/memory.h"
#include "base/strbuf.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Families that lay out q and k as Llama does are Llama to GGUF. */
static const char *architecture(const sw_spec *s)
{
    const sw_family *f = s->family;
    return f->gguf ? f->gguf : f->gguf_permuted ? "llama" : NULL;
}

static int check_words(const sw_spec *s)
{
    const char *what = NULL;
    if (s->task != SW_TASK_LM)
        what = "a classification head";
    else if (s->act != SW_ACT_SILU)
        what = "another activation than silu";
    else if (s->attention_scale != 0 || s->embedding_scale != 0 || s->logit_scale != 0)
        what = "scaled attention, embeddings or logits";
    else if (s->logit_softcap != 0 || s->attention_softcap != 0)
        what = "soft caps";
    else if (s->rope[0].kind == SW_ROPE_DYNAMIC || s->rope[0].kind == SW_ROPE_LONGROPE)
        what = "a rotary scaling that depends on the length of the text";
    else if (s->rope[0].partial != 0 && s->rope[0].partial != 1)
        what = "heads that turn in part";
    return what ? sw_fail("GGUF's %s has no place for %s", architecture(s), what) : 0;
}

static void put_u32(sw_gguf_writer *w, const char *arch, const char *key, int64_t v)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", arch, key);
    sw_gguf_put_u32(w, full, (uint32_t)v);
}

static void put_f32(sw_gguf_writer *w, const char *arch, const char *key, double v)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", arch, key);
    sw_gguf_put_f32(w, full, (float)v);
}

/* Llama 3's scaling is a tensor (sw_gguf_rope_divisors), these are values. */
static void put_scaling(sw_gguf_writer *w, const char *arch, const sw_spec *s)
{
    const sw_rope_spec *r = &s->rope[0];
    if (r->kind != SW_ROPE_LINEAR && r->kind != SW_ROPE_YARN)
        return;
    char key[128];
    const char *type = r->kind == SW_ROPE_YARN ? "yarn" : "linear";
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    sw_gguf_put_str(w, key, type, strlen(type));
    put_f32(w, arch, "rope.scaling.factor", r->factor);
    if (r->kind == SW_ROPE_LINEAR)
        return;
    put_u32(w, arch, "rope.scaling.original_context_length",
            r->original_length > 0 ? (int64_t)r->original_length : s->max_position);
    put_f32(w, arch, "rope.scaling.yarn_beta_fast", r->beta_fast);
    put_f32(w, arch, "rope.scaling.yarn_beta_slow", r->beta_slow);
    if (r->attention_factor > 0) /* counted there as a multiple of the usual 1 + 0.1 ln(factor) */
        put_f32(w, arch, "rope.scaling.attn_factor", r->attention_factor / (1 + 0.1 * log(r->factor)));
}

int sw_gguf_put_spec(sw_gguf_writer *w, const sw_spec *s)
{
    const char *arch = architecture(s);
    if (!arch)
        return sw_fail("models of the family %s are not written as GGUF", s->family->name);
    if (check_words(s))
        return -1;
    sw_gguf_put_str(w, "general.architecture", arch, strlen(arch));
    sw_gguf_put_str(w, "general.type", "model", 5);
    put_u32(w, arch, "block_count", s->layers);
    put_u32(w, arch, "context_length", s->max_position);
    put_u32(w, arch, "embedding_length", s->hidden);
    put_u32(w, arch, "feed_forward_length", s->mlp);
    put_u32(w, arch, "attention.head_count", s->heads);
    put_u32(w, arch, "attention.head_count_kv", s->kv_heads);
    put_u32(w, arch, "attention.key_length", s->head_dim);
    put_u32(w, arch, "attention.value_length", s->head_dim);
    put_u32(w, arch, "rope.dimension_count", 2 * sw_rope_pairs(&s->rope[0]));
    put_u32(w, arch, "vocab_size", s->vocab);
    put_f32(w, arch, "attention.layer_norm_rms_epsilon", s->norm.eps);
    put_f32(w, arch, "rope.freq_base", s->rope[0].theta);
    if (s->window)
        put_u32(w, arch, "attention.sliding_window", s->window);
    put_scaling(w, arch, s);
    return 0;
}

/* The layer of "model.layers.7.mlp...": the first part of the name that is a number; 0 where there is none. */
static int64_t layer_in(const char *name)
{
    for (const char *p = strchr(name, '.'); p; p = strchr(p + 1, '.'))
        if (isdigit((unsigned char)p[1]))
            return strtoll(p + 1, NULL, 10);
    return 0;
}

char *sw_gguf_tensor_name(const sw_spec *s, const char *name, char out[SW_NAME_MAX], int64_t *heads)
{
    static const char *const suffixes[] = {".weight", ".bias"};
    int64_t layer = layer_in(name);
    char ours[SW_NAME_MAX], theirs[SW_NAME_MAX];
    const char *known;
    bool in_layer;
    if (layer < 0 || layer >= s->layers)
        return NULL;
    for (size_t i = 0; (known = sw_gguf_known(i, &in_layer)); i++)
        for (size_t k = 0; k < SW_COUNT(suffixes); k++) {
            snprintf(ours, sizeof ours, "%s%s", known, suffixes[k]);
            if (strcmp(sw_file_name(s, in_layer ? layer : -1, ours, theirs), name))
                continue;
            bool query = !strcmp(known, "self_attn.q_proj"), key = !strcmp(known, "self_attn.k_proj");
            *heads = !s->family->gguf_permuted ? 0 : query ? s->heads : key ? s->kv_heads : 0;
            return sw_gguf_name(in_layer ? layer : -1, ours, out);
        }
    return NULL;
}

bool sw_gguf_rope_divisors(const sw_spec *s, float *divisors)
{
    if (s->rope[0].kind != SW_ROPE_LLAMA3 && !s->rope[0].divisors)
        return false;
    int64_t pairs = sw_rope_pairs(&s->rope[0]);
    double scale;
    sw_rope_frequencies(&s->rope[0], s->max_position, divisors, &scale);
    for (int64_t i = 0; i < pairs; i++)
        divisors[i] = (float)(pow(s->rope[0].theta, -(double)i / (double)pairs) / divisors[i]);
    return true;
}
