/* LongCat-Flash (Meituan 2025, arXiv 2509.01322): a layer is two latent attentions and two dense feed-forwards; a mixture
 * of experts takes what the first feed-forward takes, and what it gives is added at the layer's end, so that machines can run
 * it beside all between. Some of its experts give back what they get. */
#include "model/ffn_moe.h"
#include "model/mixer_mla.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>

enum { HALVES = 2 };
static const char *const attention_places[HALVES] = {"self_attn.0.", "self_attn.1."}, *const mlp_places[HALVES] = {"mlps.0.", "mlps.1."},
                        *const norm_names[HALVES][2] = {{"attn_norm.0", "mlp_norm.0"}, {"attn_norm.1", "mlp_norm.1"}};

/* ---- the two attentions: a mixer for the sake of what it remembers; the block runs them one by one */

typedef struct attentions {
    sw_mla_parts half[HALVES];
} attentions;

static void declare_attentions(sw_builder *b, void *self)
{
    attentions *a = self;
    for (int i = 0; i < HALVES; i++)
        sw_mla_declare(b, &a->half[i], attention_places[i], sw_builder_layer(b)->mixer_options);
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    (void)s;
    for (int i = 0; i < HALVES; i++)
        out[i] = sw_mla_state(l->mixer_options);
    return HALVES;
}

static const sw_mixer_ops two_attentions = {"latent attention twice", sizeof(attentions), declare_attentions, NULL, states};

/* ---- the block */

typedef struct block {
    sw_norm norm[HALVES][2]; /* before attention, before feed-forward */
    sw_dense_parts mlp[HALVES];
} block;

static void declare(sw_builder *b, void *self)
{
    block *k = self;
    const sw_spec *s = sw_builder_spec(b);
    const sw_moe *m = sw_builder_layer(b)->ffn_options;
    for (int i = 0; i < HALVES; i++) {
        for (int n = 0; n < 2; n++)
            sw_ask_norm(b, &k->norm[i][n], norm_names[i][n], s->hidden, &s->norm);
        sw_dense_declare(b, &k->mlp[i], mlp_places[i]);
    }
    sw_declare_parts(b);
    for (int64_t e = m->experts; e < m->experts + m->identities; e++) /* some files have matrices for them that nobody uses */
        for (int n = 0; n < 2; n++) {
            char name[64];
            snprintf(name, sizeof name, "mlp.experts.%lld.%s_proj.weight", (long long)e, n ? "up" : "gate");
            (void)sw_ask_optional(b, name, 2, (int64_t[]){m->wide, s->hidden}, SW_ASK_FIXED);
        }
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    block *k = self;
    attentions *a = p->block->mixer;
    sw_var *far = NULL;
    sw_scope scope = sw_scope_begin(c);
    for (int i = 0; i < HALVES; i++) {
        sw_var *h = sw_norm_forward(c, &k->norm[i][0], x);
        h = h ? sw_mla_forward(c, &a->half[i], p, h, i) : NULL;
        x = h ? sw_add(c, h, x) : NULL;
        h = x ? sw_norm_forward(c, &k->norm[i][1], x) : NULL;
        if (!h || (i == 0 && !(far = sw_feed(c, p, h))))
            return NULL;
        h = sw_dense_forward(c, &k->mlp[i], p, h);
        if (!h || !(x = sw_add(c, h, x)))
            return NULL;
    }
    return sw_scope_return(c, scope, sw_add(c, far, x));
}

static const sw_block_ops shortcut = {sizeof(block), declare, forward};

/* ---- the family */

/* num_hidden_layers, where it is there, counts attentions. */
static int read(sw_spec *s, const cJSON *config)
{
    return sw_json_i64(config, "num_layers", 1, 4096, s->layers / HALVES, &s->layers);
}

SW_MOE_LAYERS(experts, .router = {.score = SW_ROUTE_SOFTMAX}, .correction = true)

static int layers(sw_spec *s, const cJSON *config)
{
    sw_mla *o;
    int64_t identities;
    if (sw_mla_read(s, config, &o) || experts(s, config) || sw_json_i64(config, "zero_expert_num", 0, 1 << 16, 0, &identities))
        return -1;
    if (!o->q_rank)
        return sw_fail("\"q_lora_rank\" is missing");
    o->q_scale = sqrt((double)s->hidden / (double)o->q_rank);
    o->kv_scale = sqrt((double)s->hidden / (double)o->kv_rank);
    sw_moe m = *(const sw_moe *)s->layer[0].ffn_options;
    m.identities = identities;
    m.router.normalise = false;
    m.router.groups = 1;
    if (sw_moe_check(&m))
        return -1;
    const sw_moe *kept = sw_moe_keep(s, &m);
    for (int64_t i = 0; i < s->layers; i++) {
        s->layer[i].mixer = &two_attentions;
        s->layer[i].mixer_options = o;
        s->layer[i].block = &shortcut;
        sw_moe_layer(s, i, kept);
        if (s->layer[i].mlp < 1 || s->layer[i].mlp > 1 << 24)
            return sw_fail("\"ffn_hidden_size\": %lld is not between 1 and %d", (long long)s->layer[i].mlp, 1 << 24);
    }
    return 0;
}

static const sw_rename names[] = {{"mlp.router", "mlp.router.classifier"}, {"mlp.correction", "mlp.router.e_score_correction_bias"}, {0}};

const sw_family sw_family_longcat[] = {
    {.name = "longcat_flash", .architectures = SW_NAMES("LongcatFlashForCausalLM"), .model_types = SW_NAMES("longcat_flash"),
     .spec = {.norm = {.eps = 1e-5}, .rope = {{.mode = SW_ROPE_INTERLEAVED, .theta = 1e7}}}, .read = read, .layers = layers, .names = names,
     .unread = SW_NAMES("model.mtp.")},
    {0}};
