/* nanochat: norms without weights, one of them behind the embedding, queries and keys normed after they have turned the other
 * way round. */
#include "model/family.h"

#include "base/json.h"

static int read_nanochat(sw_spec *s, const cJSON *config)
{
    if (sw_read_biases(s, config) || sw_json_f64(config, "final_logit_softcapping",
                                                 cJSON_HasObjectItem(config, "final_logit_softcapping") ? 0 : 15, &s->logit_softcap))
        return -1;
    s->rope[0].backward = true;
    s->mlp_bias = s->down_bias = false;
    return 0;
}

static const sw_rename names[] = {{"mlp.up_proj", "mlp.fc1"}, {"mlp.down_proj", "mlp.fc2"}, {0}};

const sw_family sw_family_nanochat[] = {
    {.name = "nanochat", .architectures = SW_NAMES("NanoChatForCausalLM"), .model_types = SW_NAMES("nanochat"),
     .spec = {.norm = {.plain = true}, .embed_norm = true, .qk_norm = SW_QK_HEAD, .qk_norm_after_rope = true, .plain_mlp = true,
              .act = SW_ACT_RELU2},
     .read = read_nanochat, .names = names},
    {0}};
