/* Families published with code of their own on the hub: Baichuan, InternLM, Qwen (the first), TeleChat. */
#include "model/family.h"

#include "base/json.h"

#include <math.h>

/* ---- Baichuan 2's head: each row of the matrix counts by its direction only */

static int unit_head_back(sw_ctx *c, sw_node *n)
{
    const sw_kernels *k = sw_k(c);
    const sw_tensor *dy = &n->out[0]->grad->t, *unit = &n->saved[1]->t;
    sw_var *w = n->in[1];
    int acc;
    sw_tensor *dx = sw_grad(c, n->in[0], &acc);
    if (acc == -2 || (dx && k->linear_bwd_x(sw_s(c), dx, dy, unit, n->f[0], acc)))
        return -1;
    if (!w->needs_grad)
        return 0;
    sw_var *g = sw_tmp(c, SW_F32, 2, w->t.shape); /* the gradient of the unit rows, then back through their norm */
    if (!g || k->fill(sw_s(c), &g->t, 0) || k->linear_bwd_w(sw_s(c), &g->t, dy, &n->saved[0]->t, n->f[0]))
        return -1;
    sw_var *same = sw_cast(c, g, w->t.dtype), *dw = same ? sw_like(c, same) : NULL;
    return !dw || k->rmsnorm_bwd(sw_s(c), &dw->t, NULL, &same->t, &w->t, NULL, &n->saved[2]->t, 0, 0) ||
                   k->axpby(sw_s(c), &w->grad->t, 1, &dw->t, 1)
               ? -1
               : 0;
}

static sw_var *unit_head(sw_ctx *c, sw_linear *l, sw_var *x)
{
    sw_var *w = &l->w->v;
    if (l->adapter || !sw_is_float(w->t.dtype))
        return sw_fail_null("%s: a head of unit rows takes no adapter and no quantised type", l->name);
    sw_var *unit = sw_like(c, w), *rstd = sw_tmp1(c, SW_F32, w->t.shape[0]), *y = sw_tmp2(c, SW_F32, x->t.shape[0], w->t.shape[0]);
    double scale = 1 / sqrt((double)w->t.shape[1]); /* a norm over D gives rows of length sqrt(D) */
    if (!unit || !rstd || !y || sw_use(c, w, NULL) || sw_k(c)->rmsnorm_fwd(sw_s(c), &unit->t, &rstd->t, &w->t, NULL, 0, 0) ||
        sw_k(c)->linear_fwd(sw_s(c), &y->t, &x->t, &unit->t, NULL, scale, 0))
        return NULL;
    return sw_record(c, (sw_node){.op = "unit_head", .back = unit_head_back, .in = {x, w}, .out = {y},
                                  .saved = {w->needs_grad ? x : NULL, unit, rstd}, .f = {scale}});
}

/* The configuration does not say it: only the 13B files, which have no max_position_embeddings, use distances. */
static int read_baichuan(sw_spec *s, const cJSON *config)
{
    if (!sw_json_get(config, "max_position_embeddings") && s->heads > 0)
        sw_spec_alibi(s, 8, 1);
    if (sw_json_get(config, "z_loss_weight") || s->vocab == 125696) /* the second generation */
        s->head_product = unit_head;
    return 0;
}

static int read_internlm(sw_spec *s, const cJSON *config)
{
    bool bias;
    if (sw_json_bool(config, "bias", s->q_bias, &bias))
        return -1;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = bias;
    if (s->packed)
        s->packed_groups = s->kv_heads;
    return 0;
}

/* Its intermediate_size counts gate and up together. Beyond seq_length it would change its base and its scores
 * (use_dynamic_ntk, use_logn_attn); up to there both do nothing. */
static int read_qwen(sw_spec *s, const cJSON *config)
{
    bool plain;
    if (sw_json_bool(config, "no_bias", true, &plain))
        return -1;
    s->mlp /= 2;
    s->o_bias = s->mlp_bias = s->down_bias = !plain;
    return 0;
}

static int read_telechat(sw_spec *s, const cJSON *config)
{
    bool norm, after;
    if (sw_json_bool(config, "embed_layernorm", false, &norm) ||
        sw_json_bool(config, "apply_residual_connection_post_layernorm", false, &after))
        return -1;
    if (norm || after)
        return sw_fail("\"embed_layernorm\" and \"apply_residual_connection_post_layernorm\" must be false, as published models have them");
    s->packed_groups = s->kv_heads;
    return 0;
}

static const sw_rename baichuan_names[] = {{"self_attn.qkv_proj", "self_attn.W_pack"}, {0}};
static const sw_rename internlm2_names[] = {{"model.embed_tokens", "model.tok_embeddings"}, {"lm_head", "output"}, {"score", "v_head"},
                                            {"attn_norm", "attention_norm"}, {"mlp_norm", "ffn_norm"},
                                            {"self_attn.qkv_proj", "attention.wqkv"}, {"self_attn.o_proj", "attention.wo"},
                                            {"mlp.gate_proj", "feed_forward.w1"}, {"mlp.up_proj", "feed_forward.w3"},
                                            {"mlp.down_proj", "feed_forward.w2"}, {0}};
#define TRANSFORMER {"model.layers", "transformer.h"}, {"model.norm", "transformer.ln_f"}
static const sw_rename qwen_names[] = {TRANSFORMER, {"model.embed_tokens", "transformer.wte"}, {"attn_norm", "ln_1"}, {"mlp_norm", "ln_2"},
                                       {"self_attn.qkv_proj", "attn.c_attn"}, {"self_attn.o_proj", "attn.c_proj"},
                                       {"mlp.gate_proj", "mlp.w2"}, {"mlp.up_proj", "mlp.w1"}, {"mlp.down_proj", "mlp.c_proj"}, {0}};
static const sw_rename telechat_names[] = {TRANSFORMER, {"model.embed_tokens", "transformer.word_embeddings"},
                                           {"self_attn.q_proj", "self_attention.query"}, {"self_attn.kv_proj", "self_attention.key_value"},
                                           {"self_attn.o_proj", "self_attention.dense"}, {0}};

const sw_family sw_family_hub[] = {
    {.name = "baichuan", .architectures = SW_NAMES("BaichuanForCausalLM", "BaiChuanForCausalLM"), .model_types = SW_NAMES("baichuan"),
     .spec = {.packed = "qkv"}, .read = read_baichuan, .names = baichuan_names},
    {.name = "internlm", .architectures = SW_NAMES("InternLMForCausalLM"), .model_types = SW_NAMES("internlm"),
     .spec = {.q_bias = true}, .read = read_internlm},
    {.name = "internlm2", .architectures = SW_NAMES("InternLM2ForCausalLM", "InternLM2ForRewardModel"), .model_types = SW_NAMES("internlm2"),
     .spec = {.packed = "qkv"}, .read = read_internlm, .names = internlm2_names},
    {.name = "qwen", .architectures = SW_NAMES("QWenLMHeadModel"), .model_types = SW_NAMES("qwen"),
     .spec = {.packed = "qkv", .q_bias = true}, .read = read_qwen, .names = qwen_names},
    {.name = "telechat", .architectures = SW_NAMES("TELECHAT", "TelechatForCausalLM"), .model_types = SW_NAMES("telechat"),
     .spec = {.packed = "kv", .o_bias = true, .down_bias = true}, .read = read_telechat, .names = telechat_names},
    {0}};
