/* GGUF's descriptions of Gemma 3n and 4 (gguf_map.h): heads, widths and shared keys by layer, inputs of each layer. */
#include "model/ffn_moe.h"
#include "model/gemma_layers.h"
#include "model/gguf_rows.h"
#include "model/wrapper.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Item i of a list in the metadata, or the one number that stands for all; 0: there is none. */
static double item(const sw_gguf *g, const char *arch, const char *name, int64_t i)
{
    char key[128];
    double d = 0;
    snprintf(key, sizeof key, "%s.%s", arch, name);
    const sw_gguf_value *v = sw_gguf_find(g, key);
    if (v && v->type != SW_GGUF_ARRAY)
        return sw_gguf_f64(g, key, 0, &d) ? 0 : d;
    sw_gguf_iter it = v ? sw_gguf_items(v) : (sw_gguf_iter){0};
    for (int64_t k = 0; k <= i && v; k++)
        if (!sw_gguf_next_f64(&it, &d))
            return 0;
    return d;
}

/* The first layer of a kind; NULL: there is none. */
static const sw_layer *first(const sw_spec *s, bool slides)
{
    for (int64_t i = 0; i < s->layers; i++)
        if ((s->layer[i].window > 0) == slides)
            return &s->layer[i];
    return NULL;
}

static double shared(const sw_spec *s)
{
    int64_t n = 0;
    for (int64_t i = 0; i < s->layers; i++)
        n += ((const sw_kv_sharing *)s->layer[i].mixer_options)->source >= 0;
    return (double)n;
}

static double full_width(const sw_spec *s)
{
    const sw_layer *l = first(s, false);
    return (double)(l ? l->head_dim : s->head_dim);
}

static double sliding_width(const sw_spec *s)
{
    const sw_layer *l = first(s, true);
    return (double)(l ? l->head_dim : s->head_dim);
}
GET(soft_logits, s->logit_softcap) /* readers take 30 where nothing is said */
GET(window, (double)s->window)

/* Both: keys and values of some layers are those of others; an input for each layer. */
#define ATTENTION                                                                                                       \
    SW_GGUF_MODULE("attn_q", "self_attn.q_proj"), SW_GGUF_MODULE("attn_k", "self_attn.k_proj"), SW_GGUF_MODULE("attn_v", "self_attn.v_proj"), \
        SW_GGUF_MODULE("attn_output", "self_attn.o_proj"), SW_GGUF_MODULE("attn_q_norm", "self_attn.q_norm"),           \
        SW_GGUF_MODULE("attn_k_norm", "self_attn.k_norm"), SW_GGUF_MODULE("post_attention_norm", "attn_post_norm"),     \
        SW_GGUF_MODULE("post_ffw_norm", "mlp_post_norm")
#define LAYER_INPUTS                                                                                                    \
    SW_GGUF_MODULE("per_layer_model_proj", "model.per_layer_model_projection"), \
        SW_GGUF_MODULE("per_layer_proj_norm", "model.per_layer_projection_norm"), SW_GGUF_MODULE("inp_gate", "per_layer_input_gate"), \
        SW_GGUF_MODULE("proj", "per_layer_projection"), SW_GGUF_MODULE("post_norm", "post_per_layer_input_norm")

/* Tokens beyond the table's have the input of the first. */
static void input_table(sw_gguf_weaver *w, const sw_spec *s) { sw_gguf_tie_table(w, "per_layer_token_embd.weight", "model.embed_tokens_per_layer.weight", s->vocab); }

/* ---- Gemma 4 */

static int gemma4_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    const sw_layer *full = first(s, false), *slides = first(s, true);
    char key[128];
    cJSON *text = s->wrapper ? sw_wrapper_text(c->config) : NULL;
    int64_t width;
    int rc = sw_json_i64(text ? text : c->config, "hidden_size_per_layer_input", 0, 1 << 20, 256, &width);
    cJSON_Delete(text);
    if (rc)
        return -1;
    put_number(w, arch, "embedding_length_per_layer_input", width);
    int32_t *kv = SW_NEW_ARRAY(int32_t, (size_t)s->layers), *wide = SW_NEW_ARRAY(int32_t, (size_t)s->layers);
    for (int64_t i = 0; i < s->layers; i++) {
        const sw_layer *l = &s->layer[i], *kind = l->window ? slides : full;
        kv[i] = (int32_t)l->kv_heads;
        wide[i] = (int32_t)l->mlp;
        if (l->head_dim != kind->head_dim)
            rc = sw_fail("GGUF's %s has no place for heads that differ within a kind of layers", arch);
    }
    put_list(w, arch, "attention.head_count_kv", kv, s->layers);
    put_list(w, arch, "feed_forward_length", wide, s->layers);
    free(kv);
    free(wide);
    snprintf(key, sizeof key, "%s.rope.freq_base", arch);
    sw_gguf_put_f32(w, key, (float)s->rope[0].theta);
    snprintf(key, sizeof key, "%s.rope.freq_base_swa", arch);
    sw_gguf_put_f32(w, key, (float)s->rope[1].theta);
    put_number(w, arch, "rope.dimension_count", (int64_t)full_width(s));
    put_number(w, arch, "rope.dimension_count_swa", slides ? 2 * sw_rope_pairs(&s->rope[1]) : (int64_t)sliding_width(s));
    return rc;
}

/* What share of a full head turns: of the others the frequencies have endless divisors. */
static double turned_share(const sw_gguf *g)
{
    const sw_entry *e = sw_gguf_tensor(g, "rope_freqs.weight");
    int64_t n = e && e->t.dtype == SW_F32 ? sw_numel(&e->t) : 0, turned = 0;
    while (turned < n && sw_scalar_get(e->t.data, SW_F32, turned) < 1e20)
        turned++;
    double share = n ? (double)turned / (double)n : 1;
    return (int64_t)(2 * (double)n * share) < 2 * turned ? ((double)turned + 0.25) / (double)n : share; /* of a quotient that is cut */
}

static int gemma4_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    int64_t n = SW_MIN(sw_gguf_whole(config, "num_hidden_layers"), 4096), full = -1, slides = -1;
    cJSON *rope = cJSON_CreateObject(), *types = cJSON_GetObjectItemCaseSensitive(config, "layer_types");
    for (int64_t i = n - 1; i >= 0; i--) {
        const cJSON *t = cJSON_GetArrayItem(types, (int)i);
        *(cJSON_IsString(t) && !strcmp(t->valuestring, "sliding_attention") ? &slides : &full) = i;
    }
    sw_gguf_set(config, "rope_parameters", rope);
    set_text(rope, "full_attention.rope_type", "proportional");
    set_number(rope, "full_attention.partial_rotary_factor", turned_share(g));
    set_number(rope, "full_attention.rope_theta", item(g, arch, "rope.freq_base", 0));
    set_text(rope, "sliding_attention.rope_type", "default");
    double local = item(g, arch, "rope.freq_base_swa", 0), turned = item(g, arch, "rope.dimension_count_swa", 0), head = (double)sw_gguf_whole(config, "head_dim");
    set_number(rope, "sliding_attention.rope_theta", local > 0 ? local : 10000);
    if (turned > 0 && head > 0 && turned != head)
        set_number(rope, "sliding_attention.partial_rotary_factor", turned / head);
    bool values = full < 0 || has_in_layer(g, full, "attn_v.weight") || !has_in_layer(g, full, "attn_k.weight");
    set_bool(config, "attention_k_eq_v", !values);
    double few = full >= 0 ? item(g, arch, "attention.head_count_kv", full) : 0, many = slides >= 0 ? item(g, arch, "attention.head_count_kv", slides) : few;
    set_number(config, "num_key_value_heads", many);
    if (few != many && few > 0 && !values)
        set_number(config, "num_global_key_value_heads", few);
    double narrow = item(g, arch, "feed_forward_length", 0), wide = item(g, arch, "feed_forward_length", n - 1);
    set_number(config, "intermediate_size", narrow);
    set_bool(config, "use_double_wide_mlp", wide == 2 * narrow);
    set_bool(config, "enable_moe_block", has_in_layer(g, 0, "ffn_gate_inp.weight"));
    set_number(config, "hidden_size_per_layer_input", item(g, arch, "embedding_length_per_layer_input", 0));
    const cJSON *cap = sw_json_get(config, "final_logit_softcapping");
    if (cap && !(cap->valuedouble > 0))
        sw_gguf_set(config, "final_logit_softcapping", cJSON_CreateNull());
    const sw_entry *inputs = sw_gguf_tensor(g, "per_layer_token_embd.weight");
    if (inputs && inputs->t.ndim == 2)
        set_number(config, "vocab_size_per_layer_input", (double)inputs->t.shape[0]);
    return 0;
}

/* A dense feed-forward beside experts. */
static void gemma4_layer(sw_gguf_weaver *w, const sw_spec *s, const sw_layer *l)
{
    static const sw_gguf_row rows[] = {
        SW_GGUF_MODULE("ffn_gate", "mlp.gate_proj"), SW_GGUF_MODULE("ffn_up", "mlp.up_proj"), SW_GGUF_MODULE("ffn_down", "mlp.down_proj"),
        SW_GGUF_MODULE("post_ffw_norm_1", "dense_post_norm"), SW_GGUF_MODULE("post_ffw_norm_2", "moe_post_norm"),
        SW_GGUF_TENSOR("pre_ffw_norm_2.weight", "mlp.expert_norm.weight", SW_GGUF_AS_IS, SW_GGUF_SAME),
        SW_GGUF_TENSOR("ffn_gate_inp.scale", "mlp.router_scale", SW_GGUF_AS_IS, SW_GGUF_SAME),
        SW_GGUF_TENSOR("ffn_down_exps.scale", "mlp.expert_scale", SW_GGUF_AS_IS, SW_GGUF_SAME), {0}};
    (void)s;
    if (l->ffn == &sw_ffn_moe)
        sw_gguf_tie_rows(w, rows);
}

/* ---- Gemma 3n. Most of its sizes are written nowhere: readers have those of the published models. */

enum { STREAMS = 4, RANK = 64, INPUT = 256, CUT_LAYERS = 10, OWN_KEYS = 20 };

static double all_wide(const sw_spec *s) { return (double)s->layer[0].mlp; }
static double every_last(const sw_spec *s) { return sw_gguf_period(s, false); }
static double local_theta(const sw_spec *s) { return s->rope[1].theta; }

/* The share of gates that layer i cuts. */
static double cut(const cJSON *config, int64_t i)
{
    const cJSON *v = sw_json_get(config, "activation_sparsity_pattern");
    v = cJSON_IsArray(v) ? cJSON_GetArrayItem(v, (int)i) : v;
    return cJSON_IsNumber(v) ? v->valuedouble : i < CUT_LAYERS ? 0.95 : 0;
}

static int gemma3n_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    static const struct {
        const char *name;
        int64_t usual;
    } sizes[] = {{"altup_num_inputs", STREAMS}, {"altup_active_idx", 0}, {"laurel_rank", RANK}, {"hidden_size_per_layer_input", INPUT}};
    cJSON *text = s->wrapper ? sw_wrapper_text(c->config) : NULL;
    const cJSON *config = text ? text : c->config;
    char name[SW_NAME_MAX];
    int64_t n;
    bool scaled;
    int rc = sw_json_bool(config, "altup_correct_scale", true, &scaled);
    for (size_t k = 0; k < SW_COUNT(sizes) && !rc; k++) {
        rc = sw_json_i64(config, sizes[k].name, 0, 1 << 24, sizes[k].usual, &n);
        if (!rc && n != sizes[k].usual)
            rc = sw_fail("GGUF's %s has no place for \"%s\": it is %lld there, not %lld", arch, sizes[k].name, (long long)sizes[k].usual, (long long)n);
    }
    for (int64_t i = 0; i < s->layers && !rc; i++) {
        if (!scaled || fabs(cut(config, i) - (i < CUT_LAYERS ? 0.95 : 0)) > 1e-6 || s->layer[i].mlp != s->layer[0].mlp)
            rc = sw_fail("GGUF's %s has no place for layer %lld: the first %d cut 95 %% of their gates there, the others none, and all are as wide", arch,
                         (long long)i, CUT_LAYERS);
        bool borrows = ((const sw_kv_sharing *)s->layer[i].mixer_options)->source >= 0;
        if (!rc && borrows && !sw_file_find(c, sw_file_name(s, i, "self_attn.k_proj.weight", name)))
            rc = sw_fail("%s is missing: no layer uses it, but programs that run GGUF files want it", name);
    }
    cJSON_Delete(text);
    put_number(w, arch, "altup.num_inputs", STREAMS);
    put_number(w, arch, "altup.active_idx", 0);
    put_number(w, arch, "embedding_length_per_layer_input", INPUT);
    return rc;
}

static int gemma3n_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    char key[128];
    int64_t n = SW_MIN(sw_gguf_whole(config, "num_hidden_layers"), 4096);
    snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", arch);
    const sw_gguf_value *v = sw_gguf_find(g, key);
    double every = v && v->type != SW_GGUF_ARRAY ? item(g, arch, "attention.sliding_window_pattern", 0) : 5;
    cJSON *types = cJSON_CreateArray(), *cuts = cJSON_CreateArray();
    for (int64_t i = 0; i < n; i++) {
        bool slides = every >= 1 && (i + 1) % (int64_t)SW_MIN(every, 4096) != 0;
        cJSON_AddItemToArray(types, cJSON_CreateString(slides ? "sliding_attention" : "full_attention"));
        cJSON_AddItemToArray(cuts, cJSON_CreateNumber(i < CUT_LAYERS ? 0.95 : 0));
    }
    sw_gguf_set(config, "layer_types", types);
    sw_gguf_set(config, "activation_sparsity_pattern", cuts);
    set_number(config, "altup_num_inputs", STREAMS);
    set_number(config, "altup_active_idx", 0);
    set_number(config, "laurel_rank", RANK);
    set_number(config, "hidden_size_per_layer_input", INPUT);
    set_number(config, "num_kv_shared_layers", (double)SW_MAX(n - OWN_KEYS, 0));
    set_number(config, "final_logit_softcapping", 30);
    const sw_entry *inputs = sw_gguf_tensor(g, "per_layer_token_embd.weight");
    if (inputs && inputs->t.ndim == 2)
        set_number(config, "vocab_size_per_layer_input", (double)inputs->t.shape[0]);
    return 0;
}

static void gemma3n_around(sw_gguf_weaver *w, const sw_spec *s)
{
    static const char *const stacks[][2] = {{"altup_proj.weight", "model.altup_projections"}, {"altup_unembd_proj.weight", "model.altup_unembed_projections"}};
    char ours[64];
    int64_t h = s->hidden;
    input_table(w, s);
    for (size_t k = 0; k < SW_COUNT(stacks); k++)
        for (int64_t i = 0; i + 1 < STREAMS; i++) {
            snprintf(ours, sizeof ours, "%s.%lld.weight", stacks[k][1], (long long)i);
            sw_gguf_tie(w, stacks[k][0], ours, &(sw_gguf_part){.in_gguf = {i * h, h, 0, h}, .n = h, .gguf_rows = h, .gguf_stack = STREAMS - 1, .file_rows = h});
        }
}

const sw_gguf_kind sw_gguf_kinds_gemma[] = {
    {.arch = "gemma3n", .family = "gemma3n_text", .flags = SW_GGUF_WINDOWS,
     .more = ROWS(ATTENTION, LAYER_INPUTS, SW_GGUF_MODULE("altup_router", "altup.modality_router"), SW_GGUF_MODULE("altup_router_norm", "altup.router_norm"),
                  SW_GGUF_MODULE("altup_predict_coef", "altup.prediction_coefs"), SW_GGUF_MODULE("altup_correct_coef", "altup.correction_coefs"),
                  SW_GGUF_TENSOR("altup_correct_scale.weight", "altup.correct_output_scale", SW_GGUF_AS_IS, SW_GGUF_SAME),
                  SW_GGUF_MODULE("laurel_l", "laurel.linear_left"), SW_GGUF_MODULE("laurel_r", "laurel.linear_right"),
                  SW_GGUF_MODULE("laurel_post_norm", "laurel.post_laurel_norm")),
     .keys = KEYS(COUNT("feed_forward_length", "intermediate_size", all_wide), COUNT("attention.sliding_window_pattern", NULL, every_last),
                  COUNT("attention.shared_kv_layers", NULL, shared), SPEC("rope.freq_base_swa", "rope_local_base_freq", local_theta),
                  SPEC("final_logit_softcapping", NULL, soft_logits)),
     .words = WORDS("mlp_bias", ""), .around = gemma3n_around, .to_config = gemma3n_config, .from_config = gemma3n_keys},
    {.arch = "gemma4", .family = "gemma4_text", .flags = SW_GGUF_WINDOWS | SW_GGUF_NO_TURN | SW_GGUF_ALL_SPARSE,
     .names = ROWS(SW_GGUF_TENSOR("ffn_gate_up_exps.weight", "mlp.experts.gate_up", SW_GGUF_AS_IS, SW_GGUF_SAME)),
     .more = ROWS(ATTENTION, LAYER_INPUTS, SW_GGUF_TENSOR("layer_output_scale.weight", "layer_scalar", SW_GGUF_AS_IS, SW_GGUF_SAME)),
     .keys = KEYS(COUNT("attention.key_length", "global_head_dim", full_width), COUNT("attention.value_length", NULL, full_width),
                  COUNT("attention.key_length_swa", "head_dim", sliding_width), COUNT("attention.value_length_swa", NULL, sliding_width),
                  COUNT("attention.shared_kv_layers", "num_kv_shared_layers", shared), COUNT("attention.sliding_window", "sliding_window", window),
                  COUNT("attention.head_count_kv", NULL, NULL), COUNT("feed_forward_length", NULL, NULL),
                  SPEC("final_logit_softcapping", "final_logit_softcapping", soft_logits)),
     .words = WORDS("num_experts_per_tok", "top_k_experts", "norm_topk_prob", "", "mlp_bias", "", "n_shared_experts", "", "rope_theta", ""),
     .layer = gemma4_layer, .around = input_table, .to_config = gemma4_config, .from_config = gemma4_keys},
    {0}};
