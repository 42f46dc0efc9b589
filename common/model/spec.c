#include "model/family.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

void sw_spec_free(sw_spec *s) { sw_arena_free(&s->arena); }

const char *sw_task_name(sw_task t)
{
    static const char *const names[] = {"a language model", "a classifier or reward model", "a masked language model",
                                        "a classifier of tokens", "an embedding model"};
    return names[t];
}

int sw_spec_read_rope(sw_spec *s, const cJSON *config)
{
    /* transformers 5 writes rope_parameters, with theta inside; published files write rope_scaling and rope_theta. */
    const cJSON *o = sw_json_get(config, "rope_parameters"), *full = sw_json_get(o, "full_attention"),
                *sliding = sw_json_get(o, "sliding_attention");
    if (!o)
        o = sw_json_get(config, "rope_scaling");
    for (int i = 0; i < SW_MOST_ROPES; i++) {
        s->rope[i].dim = s->head_dim;
        s->rope[i].max_position = (double)s->max_position;
    }
    if (!full && !sliding)
        return sw_rope_read(&s->rope[0], o, config, &s->arena);
    return sw_rope_read(&s->rope[0], full, config, &s->arena) || sw_rope_read(&s->rope[1], sliding, config, &s->arena) ? -1 : 0;
}

double sw_alibi_slope(int64_t heads, int64_t i, double max_bias)
{
    int64_t power = 1;
    while (power * 2 <= heads)
        power *= 2;
    double place = i < power ? (double)(i + 1) / (double)power : (double)(2 * (i - power) + 1) / (double)(2 * power);
    return pow(2, -max_bias * place);
}

void sw_spec_alibi(sw_spec *s, double max_bias, double scale)
{
    s->positions = SW_POSITIONS_ALIBI;
    s->alibi = sw_arena_zalloc(&s->arena, (size_t)s->heads * sizeof *s->alibi);
    for (int64_t i = 0; i < s->heads; i++)
        s->alibi[i] = (float)(scale * sw_alibi_slope(s->heads, i, max_bias));
}

/* layer_types says per layer whether it slides. Other names belong to families that read them in their own `layers`. */
static int read_layer_types(sw_spec *s, const cJSON *config)
{
    const cJSON *types = sw_json_get(config, "layer_types");
    if (!types)
        return 0;
    if (!cJSON_IsArray(types) || cJSON_GetArraySize(types) != s->layers)
        return sw_fail("\"layer_types\": a list of %lld names is needed, one a layer", (long long)s->layers);
    sw_layer *l = s->layer;
    for (const cJSON *t = types->child; t; t = t->next, l++) {
        if (!cJSON_IsString(t))
            return sw_fail("\"layer_types\": layer %lld is no name", (long long)(l - s->layer));
        if (!strcmp(t->valuestring, "sliding_attention"))
            l->window = s->window;
        else if (!strcmp(t->valuestring, "full_attention"))
            l->window = 0;
        else if (!s->family->layers)
            return sw_fail("\"layer_types\": layer %lld is neither sliding_attention nor full_attention", (long long)(l - s->layer));
    }
    return 0;
}

/* What the configuration calls a size. */
static const char *key(const sw_spec *s, sw_size_key k)
{
    static const char *const usual[SW_SIZE_KEYS] = {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                                                    "max_position_embeddings", "num_key_value_heads", "head_dim"};
    return s->keys[k] ? s->keys[k] : usual[k];
}

typedef struct range {
    const char *name;
    int64_t value, max;
} range;

static int check_ranges(const range *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (r[i].value < 1 || r[i].value > r[i].max)
            return sw_fail("\"%s\": %lld is not between 1 and %lld", r[i].name, (long long)r[i].value, (long long)r[i].max);
    return 0;
}

int sw_spec_fill_layers(sw_spec *s, const cJSON *config)
{
    const range sizes[] = {{key(s, SW_KEY_VOCAB), s->vocab, 1 << 28}, {key(s, SW_KEY_HIDDEN), s->hidden, 1 << 20}, {key(s, SW_KEY_LAYERS), s->layers, 4096}};
    if (check_ranges(sizes, SW_COUNT(sizes)))
        return -1;
    if (!s->value_dim)
        s->value_dim = s->head_dim;
    if (!s->qk.eps)
        s->qk = (sw_norm_spec){s->norm.kind, s->norm.plain, false, s->norm.eps, s->norm.offset};
    if (!s->embedding.eps)
        s->embedding = s->norm;
    s->layer = sw_arena_zalloc(&s->arena, (size_t)s->layers * sizeof *s->layer);
    for (int64_t i = 0; i < s->layers; i++) {
        bool slides = i >= s->window_from && !(s->full_every && (i + 1) % s->full_every == 0);
        s->layer[i] = (sw_layer){
            .mixer = &sw_mixer_attention, .ffn = &sw_ffn_dense, .block = &sw_block_standard,
            .heads = s->heads, .kv_heads = s->kv_heads, .head_dim = s->head_dim, .value_dim = s->value_dim, .mlp = s->mlp,
            .bidirectional = s->bidirectional, .window = slides ? s->window : 0, .rope = s->positions == SW_POSITIONS_ROPE ? 0 : -1,
            .attention_scale = s->attention_scale > 0 ? s->attention_scale : 1 / sqrt((double)s->head_dim)};
    }
    if (read_layer_types(s, config))
        return -1;
    for (int64_t i = 0; i < s->layers; i++)
        if (s->layer[i].rope == 0 && s->layer[i].window && s->rope[1].theta > 0)
            s->layer[i].rope = 1;
    return 0;
}

static int check_layer(const sw_spec *s, const sw_layer *l)
{
    const char *heads = key(s, SW_KEY_HEADS), *width = key(s, SW_KEY_HEAD_DIM);
    const range sizes[] = {{heads, l->heads, 1 << 16}, {key(s, SW_KEY_KV_HEADS), l->kv_heads, 1 << 16}, {width, l->head_dim, 1 << 16}, {"v_head_dim", l->value_dim, 1 << 16}};
    if (l->mixer == &sw_mixer_attention) {
        if (check_ranges(sizes, SW_COUNT(sizes)))
            return -1;
        if (l->heads % l->kv_heads)
            return sw_fail("\"%s\": %lld is no multiple of \"%s\", %lld", heads, (long long)l->heads, key(s, SW_KEY_KV_HEADS),
                           (long long)l->kv_heads);
        if (l->rope >= 0 && sw_rope_pairs(&s->rope[l->rope]) * 2 > l->head_dim)
            return sw_fail("\"%s\": %lld values a head, but %lld turn", width, (long long)l->head_dim,
                           (long long)sw_rope_pairs(&s->rope[l->rope]) * 2);
        if (l->rope >= 0 && l->head_dim % 2)
            return sw_fail("\"%s\": %lld is odd, the rotary embedding needs pairs", width, (long long)l->head_dim);
        if (s->query_growth > 0 && l->head_dim % 2)
            return sw_fail("\"%s\": %lld is odd, queries that grow with their position need pairs", width, (long long)l->head_dim);
        if (s->packed && s->packed_groups && (l->heads % s->packed_groups || (strchr(s->packed, 'k') && l->kv_heads % s->packed_groups)))
            return sw_fail("\"%s\": %lld and %lld key heads do not come in %lld packed groups", heads, (long long)l->heads,
                           (long long)l->kv_heads, (long long)s->packed_groups);
    }
    return l->ffn == &sw_ffn_dense ? check_ranges(&(range){key(s, SW_KEY_MLP), l->mlp, 1 << 24}, 1) : 0;
}

int sw_spec_check(const sw_spec *s)
{
    for (int64_t i = 0; i < s->layers; i++)
        if (check_layer(s, &s->layer[i]))
            return sw_fail_in("layer %lld", (long long)i);
    if (!(s->norm.eps >= 0 && s->norm.eps < 1))
        return sw_fail("\"%s\": %g is not between 0 and 1", s->norm.kind == SW_NORM_RMS ? "rms_norm_eps" : "layer_norm_eps", s->norm.eps);
    return 0;
}
