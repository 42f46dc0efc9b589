/* Llama with latent attention. */
#include "model/mixer_mla.h"

#define PAIRS .rope = {{.mode = SW_ROPE_INTERLEAVED}}

const sw_family sw_family_mla[] = {
    {.name = "youtu", .architectures = SW_NAMES("YoutuForCausalLM"), .model_types = SW_NAMES("youtu", "youtu_llm"), .spec = {.tied = true, PAIRS},
     .layers = sw_mla_layers},
    {0}};
