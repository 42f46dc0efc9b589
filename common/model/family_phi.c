/* Phi 1 to 4: first attention and feed-forward side by side, then Llama with packed projections. */
#include "model/family.h"

#include "base/json.h"

static int read_phi(sw_spec *s, const cJSON *config)
{
    bool norm;
    if (sw_json_bool(config, "qk_layernorm", false, &norm))
        return -1;
    s->qk_norm = norm ? SW_QK_HEAD : SW_QK_NONE;
    s->qk = s->norm;
    return 0;
}

static const sw_rename phi_names[] = {{"self_attn.o_proj", "self_attn.dense"}, {"self_attn.q_norm", "self_attn.q_layernorm"},
                                      {"self_attn.k_norm", "self_attn.k_layernorm"}, {"mlp.up_proj", "mlp.fc1"},
                                      {"mlp.down_proj", "mlp.fc2"}, {"model.norm", "model.final_layernorm"}, {0}};

const sw_family sw_family_phi[] = {
    {.name = "phi", .architectures = SW_NAMES("PhiForCausalLM", "PhiForSequenceClassification"), .model_types = SW_NAMES("phi"),
     .spec = {.norm = {.kind = SW_NORM_LAYER, .bias = true}, .parallel = SW_PARALLEL_SHARED, .plain_mlp = true, .act = SW_ACT_GELU_TANH,
              .q_bias = true, .k_bias = true, .v_bias = true, .o_bias = true, .mlp_bias = true, .down_bias = true, .head_bias = true,
              .rope = {{.partial = 0.5}}},
     .read = read_phi, .names = phi_names},
    {.name = "phi3", .architectures = SW_NAMES("Phi3ForCausalLM", "Phi3ForSequenceClassification"), .model_types = SW_NAMES("phi3"),
     .spec = {.packed = "qkv", .packed_mlp = true, .norm = {.eps = 1e-5}}, .read = sw_read_window},
    {0}};
