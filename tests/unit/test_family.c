/* Families: what configurations are refused, names both ways, and that a model read is written back as it was. */
#include "model/ffn_moe.h"
#include "model/mixer_compressed.h"
#include "model/model_save.h"

#include "base/fileio.h"
#include "base/json.h"
#include "store/checkpoint.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define CASES "tests/golden/llm"

static int read_spec(sw_spec *s, const char *text)
{
    cJSON *config = sw_json_parse(text, strlen(text));
    assert_non_null(config);
    int rc = sw_spec_from_config(s, config, "config.json");
    cJSON_Delete(config);
    return rc;
}

/* The configuration is refused, and the message has every one of the words. */
static void refuses(const char *text, const char *const *words)
{
    sw_spec s;
    if (!read_spec(&s, text)) {
        sw_spec_free(&s);
        fail_msg("accepted: %s", text);
    }
    for (; *words; words++)
        if (!strstr(sw_error(), *words))
            fail_msg("'%s' does not say '%s'", sw_error(), *words);
}

#define WORDS(...) (const char *const[]){"config.json", __VA_ARGS__, NULL}
#define HAS(arch, ...) "{\"architectures\":[\"" arch "\"],\"vocab_size\":12,\"hidden_size\":32," __VA_ARGS__ "}"
#define HEADS "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"intermediate_size\":40"

static void refusals(void **state)
{
    (void)state;
    refuses("[]", WORDS("an object"));
    refuses("{}", WORDS("architectures", "model_type"));
    refuses("{\"architectures\":[\"LamaForCausalLM\"]}", WORDS("\"architectures\"", "LamaForCausalLM", "LlamaForCausalLM"));
    refuses("{\"model_type\":\"qwen4\"}", WORDS("\"model_type\"", "qwen4", "nearest is qwen"));
    refuses(HAS("LlamaForCausalLM", "\"num_hidden_layers\":2,\"num_attention_heads\":4"), WORDS("intermediate_size"));
    refuses(HAS("LlamaForCausalLM", "\"num_hidden_layers\":99999999999,\"num_attention_heads\":4,\"intermediate_size\":8"),
            WORDS("num_hidden_layers"));
    refuses(HAS("LlamaForCausalLM", HEADS ",\"num_key_value_heads\":3"), WORDS("num_attention_heads", "num_key_value_heads"));
    refuses(HAS("LlamaForCausalLM", HEADS ",\"head_dim\":7"), WORDS("head_dim", "7"));
    refuses(HAS("LlamaForCausalLM", HEADS ",\"rope_scaling\":{\"type\":\"ntk\",\"factor\":2}"), WORDS("rope_type", "ntk", "yarn"));
    refuses(HAS("LlamaForCausalLM", HEADS ",\"rms_norm_eps\":-1"), WORDS("rms_norm_eps"));
    refuses(HAS("BloomForCausalLM", "\"n_layer\":2,\"n_head\":2147483647"), WORDS("n_head", "2147483647", "65536"));
    refuses(HAS("GPT2LMHeadModel", "\"n_layer\":2,\"n_head\":3,\"num_key_value_heads\":2"), WORDS("\"n_head\": 3 is no multiple of \"num_key_value_heads\""));
    refuses("{\"architectures\":[\"GPT2LMHeadModel\"],\"vocab_size\":12,\"n_embd\":32,\"n_head\":4}", WORDS("\"num_hidden_layers\": 0 is not between"));
    refuses("{\"architectures\":[\"MptForCausalLM\"],\"vocab_size\":12,\"d_model\":14,\"n_heads\":2,\"n_layers\":9999}", WORDS("n_layers", "9999"));
    refuses(HAS("BloomForCausalLM", "\"n_layer\":2,\"n_head\":4,\"layer_norm_epsilon\":-1"), WORDS("layer_norm_epsilon"));
    refuses(HAS("LlamaForCausalLM", HEADS ",\"max_position_embeddings\":[1]"), WORDS("max_position_embeddings", "array"));
    refuses(HAS("LlamaForCausalLM", HEADS ",\"eos_token_id\":0.5"), WORDS("eos_token_id"));
    refuses(HAS("LlamaForCausalLM", HEADS ",\"rope_parameters\":3"), WORDS("rope_parameters", "a number"));
    refuses(HAS("LlamaForCausalLM", HEADS ",\"rope_theta\":-1"), WORDS("rope_theta", "-1"));
    refuses(HAS("Gemma4ForCausalLM", HEADS ",\"sliding_window\":0"), WORDS("sliding_window"));
    refuses("{\"architectures\":{\"a\":1},\"model_type\":\"llama\"}", WORDS("architectures", "an object"));
    refuses("{\"architectures\":[3],\"model_type\":\"llama\"}", WORDS("architectures", "a number"));
    refuses(HAS("LlamaForCausalLM", HEADS ",\"hidden_act\":\"selu\""), WORDS("hidden_act", "selu"));
    refuses(HAS("DbrxForCausalLM", HEADS ",\"ffn_config\":{\"moe_normalize_expert_weights\":-1}"), WORDS("moe_normalize", "-1"));
    refuses(HAS("DbrxForCausalLM", HEADS ",\"ffn_config\":{\"ffn_act_fn\":{\"name\":\"selu\"}}"), WORDS("name", "selu"));
    refuses(HAS("DbrxForCausalLM", HEADS ",\"attn_config\":7"), WORDS("attn_config", "objects"));
    refuses(HAS("PhimoeForCausalLM", HEADS ",\"router_jitter_noise\":-0.5"), WORDS("router_jitter_noise"));
    refuses(HAS("PhimoeForCausalLM", HEADS ",\"num_experts_per_tok\":17"), WORDS("num_experts_per_tok", "17", "16"));
    refuses(HAS("Llama4ForCausalLM", HEADS ",\"no_rope_layers\":[1]"), WORDS("no_rope_layers", "2"));
    refuses(HAS("Llama4ForCausalLM", HEADS ",\"layer_types\":[\"full_attention\",\"mamba\"]"), WORDS("layer_types", "1"));
    refuses(HAS("MiMoV2FlashForCausalLM", HEADS ",\"n_routed_experts\":4,\"hybrid_layer_pattern\":[1]"), WORDS("hybrid_layer_pattern", "2"));
    refuses(HAS("MiMoV2FlashForCausalLM", HEADS ",\"n_routed_experts\":4,\"moe_layer_freq\":[1]"), WORDS("moe_layer_freq", "2"));
    refuses(HAS("JetMoeForCausalLM", "\"num_layers\":2,\"ffn_hidden_size\":8"), WORDS("num_key_value_heads", "kv_channels"));
    refuses(HAS("JetMoeForCausalLM", HEADS ",\"first_k_dense_replace\":1"), WORDS("no experts"));
    refuses(HAS("Gemma2ForCausalLM", HEADS ",\"layer_types\":[\"full_attention\"]"), WORDS("layer_types", "2"));
    refuses(HAS("Gemma2ForCausalLM", HEADS ",\"layer_types\":[\"full_attention\",\"diagonal\"]"), WORDS("layer_types", "layer 1"));
    refuses(HAS("Gemma2ForCausalLM", HEADS ",\"query_pre_attn_scalar\":0"), WORDS("query_pre_attn_scalar"));
    refuses(HAS("InternLM2ForCausalLM", HEADS ",\"num_key_value_heads\":3"), WORDS("num_key_value_heads"));
    refuses(HAS("CodeGenForCausalLM", "\"n_layer\":2,\"n_head\":2"), WORDS("packed"));
    refuses(HAS("GPTNeoForCausalLM", HEADS ",\"attention_layers\":[\"global\"]"), WORDS("attention_layers"));
    refuses(HAS("Zamba2ForCausalLM", HEADS), WORDS("layers_block_type"));
    refuses(HAS("Zamba2ForCausalLM", HEADS ",\"layers_block_type\":[\"hybrid\",\"attention\"]"), WORDS("layers_block_type", "layer 1"));
    refuses(HAS("Zamba2ForCausalLM", HEADS ",\"attention_hidden_size\":48"), WORDS("attention_hidden_size", "48", "64"));
    refuses(HAS("BailingHybridForCausalLM", HEADS ",\"num_experts\":4,\"kda_lower_bound\":1"), WORDS("kda_lower_bound", "negative"));
    refuses(HAS("HunYuanMoEV1ForCausalLM", HEADS ",\"num_experts\":4,\"moe_topk\":[1,2]"), WORDS("moe_topk", "layer"));
    refuses("{\"architectures\":[\"LlavaForConditionalGeneration\"]}", WORDS("text_config", "object"));
    refuses("{\"architectures\":[\"LlavaForConditionalGeneration\"],\"text_config\":{\"model_type\":\"lama\"}}",
            WORDS("text_config", "lama", "nearest"));
    refuses(HAS("GPTJForCausalLM", HEADS ",\"rotary_dim\":64"), WORDS("rotary_dim"));
    refuses(HAS("Gemma3nForCausalLM", HEADS ",\"num_kv_shared_layers\":2"), WORDS("num_kv_shared_layers"));
#define V4(...) HAS("DeepseekV4ForCausalLM", HEADS ",\"head_dim\":16,\"n_routed_experts\":8," __VA_ARGS__)
    refuses(V4("\"hc_mult\":17"), WORDS("hc_mult", "16"));
    refuses(V4("\"hc_eps\":2"), WORDS("hc_eps", "2"));
    refuses(V4("\"layer_types\":[\"full_attention\",\"sliding_attention\"]"), WORDS("layer_types", "layer 0", "compressed_sparse_attention"));
    refuses(V4("\"compress_ratios\":[4]"), WORDS("compress_ratios", "one a layer"));
    refuses(V4("\"compress_ratios\":[4,5]"), WORDS("compress_ratios", "layer 1"));
    refuses(V4("\"compress_rates\":4"), WORDS("compress_rates", "object"));
    refuses(V4("\"compress_rates\":{\"heavily_compressed_attention\":0}"), WORDS("heavily_compressed_attention"));
    refuses(V4("\"mlp_layer_types\":[\"moe\",\"dense\"]"), WORDS("mlp_layer_types", "layer 1", "hash_moe"));
    refuses(V4("\"mlp_layer_types\":[\"moe\"]"), WORDS("mlp_layer_types", "2"));
    refuses(V4("\"o_groups\":7"), WORDS("o_groups", "7"));
    refuses(V4("\"scoring_func\":\"tanh\""), WORDS("scoring_func", "tanh", "sqrtsoftplus"));
    refuses(V4("\"swiglu_limit\":0"), WORDS("swiglu_limit"));
    refuses(V4("\"sliding_window\":0"), WORDS("sliding_window"));
    refuses(V4("\"num_experts_per_tok\":9"), WORDS("num_experts_per_tok", "9"));
    refuses(V4("\"qk_rope_head_dim\":3"), WORDS("partial_rotary_factor", "even"));
    refuses(V4("\"qk_rope_head_dim\":8,\"index_head_dim\":6"), WORDS("index_head_dim", "8"));
    refuses(V4("\"compress_rope_theta\":-1"), WORDS("compress_rope_theta"));
    refuses(V4("\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}"), WORDS("rope_type"));
    refuses(HAS("Phi3ForCausalLM", HEADS ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1],\"long_factor\":[1]}"),
            WORDS("short_factor", "4"));
}

/* What a configuration leaves out is as transformers' class of it says: rotations that are scaled, and sizes. Where it says
 * anything of rotation, that holds alone. */
static void class_defaults(void **state)
{
    (void)state;
#define LLAMA3(factor, theta)                                                                                           \
    "\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":" theta ",\"factor\":" factor                            \
    ",\"original_max_position_embeddings\":8192,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0}"
    static const struct {
        const char *without, *with;
        sw_rope_kind kind;
        double factor;
    } cases[] = {
        {HAS("ApertusForCausalLM", HEADS), HAS("ApertusForCausalLM", HEADS "," LLAMA3("8.0", "12000000.0")), SW_ROPE_LLAMA3, 8},
        {HAS("CwmForCausalLM", HEADS), HAS("CwmForCausalLM", HEADS "," LLAMA3("16.0", "1000000.0")), SW_ROPE_LLAMA3, 16},
        {HAS("Ministral3ForCausalLM", HEADS), HAS("Ministral3ForCausalLM", HEADS ",\"rope_parameters\":{\"type\":\"yarn\",\"rope_theta\":1000000.0,"
             "\"factor\":16.0,\"original_max_position_embeddings\":16384,\"beta_fast\":32.0,\"beta_slow\":1.0,\"mscale_all_dim\":1.0,"
             "\"mscale\":1.0,\"llama_4_scaling_beta\":0.1}"), SW_ROPE_YARN, 16},
        {HAS("GptOssForCausalLM", HEADS ",\"num_local_experts\":4"), HAS("GptOssForCausalLM", HEADS ",\"num_local_experts\":4,\"rope_theta\":150000,"
             "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":32.0,\"beta_fast\":32.0,\"beta_slow\":1.0,\"truncate\":false,"
             "\"original_max_position_embeddings\":4096}"), SW_ROPE_YARN, 32}};
    for (size_t i = 0; i < SW_COUNT(cases); i++) {
        sw_spec a, b;
        assert_int_equal(read_spec(&a, cases[i].without), 0);
        assert_int_equal(read_spec(&b, cases[i].with), 0);
        assert_int_equal(a.rope[0].kind, cases[i].kind);
        assert_true(a.rope[0].factor == cases[i].factor);
        assert_memory_equal(&a.rope[0], &b.rope[0], sizeof a.rope[0]);
        assert_true(a.query_growth == b.query_growth && a.query_growth_length == b.query_growth_length);
        sw_spec_free(&a);
        sw_spec_free(&b);
    }
    sw_spec s;
    assert_int_equal(read_spec(&s, HAS("ApertusForCausalLM", HEADS ",\"rope_theta\":5000")), 0);
    assert_int_equal(s.rope[0].kind, SW_ROPE_DEFAULT);
    assert_true(s.rope[0].theta == 5000);
    sw_spec_free(&s);
    assert_int_equal(read_spec(&s, HAS("CwmForCausalLM", HEADS ",\"rope_scaling\":null")), 0);
    assert_int_equal(s.rope[0].kind, SW_ROPE_DEFAULT);
    sw_spec_free(&s);
    assert_int_equal(read_spec(&s, HAS("BloomForCausalLM", "\"max_position_embeddings\":64")), 0);
    assert_int_equal(s.layers, 2);
    assert_int_equal(s.heads, 8);
    sw_spec_free(&s);
    assert_int_equal(read_spec(&s, HAS("InternLM3ForCausalLM", HEADS)), 0);
    assert_int_equal(s.kv_heads, 2);
    sw_spec_free(&s);
}

/* What a head over words has is not that of a head for classes: a cap of the logits, a bias. */
static void heads_for_classes(void **state)
{
    (void)state;
    sw_model m = {0};
    assert_int_equal(read_spec(&m.spec, HAS("Gemma2ForTokenClassification", HEADS)), 0);
    assert_true(m.spec.logit_softcap > 0 && sw_model_head(&m).softcap == 0 && m.spec.head_bias);
    sw_spec_free(&m.spec);
    assert_int_equal(read_spec(&m.spec, HAS("Gemma2ForCausalLM", HEADS)), 0);
    assert_true(sw_model_head(&m).softcap == m.spec.logit_softcap);
    sw_spec_free(&m.spec);
    assert_int_equal(read_spec(&m.spec, HAS("PhiForSequenceClassification", HEADS)), 0);
    assert_false(m.spec.head_bias);
    sw_spec_free(&m.spec);
}

static void name_is(const sw_spec *s, int64_t layer, const char *ours, const char *theirs)
{
    char out[SW_NAME_MAX];
    assert_string_equal(sw_file_name(s, layer, ours, out), theirs);
}

static void names(void **state)
{
    (void)state;
    sw_spec s;
    assert_int_equal(read_spec(&s, HAS("Gemma2ForCausalLM", HEADS)), 0);
    name_is(&s, 1, "attn_post_norm.weight", "model.layers.1.post_attention_layernorm.weight");
    name_is(&s, 1, "mlp_norm.weight", "model.layers.1.pre_feedforward_layernorm.weight");
    name_is(&s, 1, "self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight");
    sw_spec_free(&s);
    assert_int_equal(read_spec(&s, HAS("GPTNeoForCausalLM", HEADS ",\"attention_layers\":[\"global\",\"local\"]")), 0);
    name_is(&s, 0, "self_attn.o_proj.bias", "transformer.h.0.attn.attention.out_proj.bias");
    name_is(&s, 0, "self_attn.q_proj.weight", "transformer.h.0.attn.attention.q_proj.weight");
    name_is(&s, -1, "model.embed_tokens.weight", "transformer.wte.weight");
    assert_int_equal(s.layer[0].window, 0);
    assert_int_equal(s.layer[1].window, 256);
    sw_spec_free(&s);
}

/* Models with towers: the text's part is read as it is, under other names; what stands outside holds for the whole. */
static void wrapped(void **state)
{
    (void)state;
    sw_spec s;
#define WRAPPED(arch, type)                                                                                                \
    "{\"architectures\":[\"" arch "\"],\"tie_word_embeddings\":true,\"eos_token_id\":9,\"text_config\":{\"model_type\":\"" type \
    "\",\"tie_word_embeddings\":false,\"vocab_size\":12,\"hidden_size\":32," HEADS "}}"
    assert_int_equal(read_spec(&s, WRAPPED("Mistral3ForConditionalGeneration", "mistral")), 0);
    assert_string_equal(s.family->name, "mistral");
    assert_true(s.tied);
    assert_int_equal(s.eos[0], 9);
    name_is(&s, 1, "self_attn.q_proj.weight", "language_model.model.layers.1.self_attn.q_proj.weight");
    name_is(&s, -1, "model.embed_tokens.weight", "language_model.model.embed_tokens.weight");
    name_is(&s, -1, "lm_head.weight", "language_model.lm_head.weight");
    sw_spec_free(&s);
    assert_int_equal(read_spec(&s, WRAPPED("Idefics3ForConditionalGeneration", "llama")), 0);
    name_is(&s, 1, "mlp_norm.weight", "model.text_model.layers.1.post_attention_layernorm.weight");
    name_is(&s, -1, "model.norm.weight", "model.text_model.norm.weight");
    name_is(&s, -1, "lm_head.weight", "lm_head.weight");
    sw_spec_free(&s);
    /* As the smaller Gemma 3 say no more than this. */
    assert_int_equal(read_spec(&s, "{\"architectures\":[\"Gemma3ForConditionalGeneration\"],\"text_config\":{\"model_type\":\"gemma3_text\","
                                   "\"hidden_size\":2560,\"intermediate_size\":10240,\"num_hidden_layers\":34,\"sliding_window\":1024,"
                                   "\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"}}}"),
                     0);
    assert_int_equal(s.heads, 8);
    assert_int_equal(s.kv_heads, 4);
    assert_int_equal(s.head_dim, 256);
    assert_int_equal(s.vocab, 262208);
    assert_int_equal(s.layer[0].window, 1024);
    assert_int_equal(s.layer[5].window, 0);
    sw_spec_free(&s);
}

/* The defaults of published files that leave fields out. */
static void defaults(void **state)
{
    (void)state;
    sw_spec s;
    assert_int_equal(read_spec(&s, HAS("Gemma2ForCausalLM", HEADS)), 0);
    assert_true(s.tied);
    assert_int_equal(s.layer[0].window, 4096);
    assert_int_equal(s.layer[1].window, 0);
    assert_float_equal(s.logit_softcap, 30, 0);
    sw_spec_free(&s);
    assert_int_equal(read_spec(&s, HAS("MiniMaxM2ForCausalLM", HEADS ",\"num_local_experts\":4,\"rotary_dim\":6")), 0);
    assert_int_equal(sw_rope_pairs(&s.rope[0]), 3);
    sw_spec_free(&s);
    assert_int_equal(read_spec(&s, HAS("HunYuanMoEV1ForCausalLM", HEADS ",\"num_experts\":4,\"moe_topk\":[3,3]")), 0);
    assert_int_equal(((const sw_moe *)s.layer[1].ffn_options)->router.k, 3);
    sw_spec_free(&s);
    assert_int_equal(read_spec(&s, HAS("Dots1ForCausalLM", HEADS ",\"n_routed_experts\":4,\"sliding_window\":7,\"max_window_layers\":1")), 0);
    assert_int_equal(s.layer[0].window, 0);
    assert_int_equal(s.layer[1].window, 7);
    sw_spec_free(&s);
    assert_int_equal(read_spec(&s, HAS("GPT2LMHeadModel", "\"n_layer\":1,\"n_head\":4,\"n_inner\":null")), 0);
    assert_true(s.tied);
    assert_int_equal(s.mlp, 128);
    assert_int_equal(s.layer[0].rope, -1);
    sw_spec_free(&s);
    assert_int_equal(read_spec(&s, HAS("FalconForCausalLM", HEADS ",\"alibi\":true,\"num_attention_heads\":6,\"hidden_size\":36")), 0);
    assert_int_equal(s.layer[0].kv_heads, 1);
    assert_non_null(s.alibi);
    sw_spec_free(&s);
}

/* DeepSeek 4 as its configuration is published, with the spellings of the version before, and as transformers writes it. */
static void deepseek_v4(void **state)
{
    (void)state;
    sw_spec s;
    assert_int_equal(read_spec(&s, HAS("DeepseekV4ForCausalLM", "\"num_hidden_layers\":4,\"num_attention_heads\":8,\"head_dim\":32,"
                                       "\"qk_rope_head_dim\":8,\"compress_ratios\":[0,4,128,0,0],\"num_hash_layers\":1,\"rope_theta\":500,"
                                       "\"compress_rope_theta\":7000,\"max_position_embeddings\":64,\"rope_scaling\":{\"type\":\"yarn\","
                                       "\"factor\":4,\"original_max_position_embeddings\":16},\"sliding_window\":9")),
                     0);
    static const int64_t every[] = {0, 4, 128, 0};
    for (int i = 0; i < 4; i++) {
        const sw_compressed *o = s.layer[i].mixer_options;
        const sw_moe *m = s.layer[i].ffn_options;
        assert_int_equal(o->every, every[i]);
        assert_int_equal(o->overlap, i == 1);
        assert_int_equal(o->indexer.topk, i == 1 ? 512 : 0);
        assert_int_equal(o->nope, 24);
        assert_int_equal(s.layer[i].rope, every[i] > 0);
        assert_int_equal(s.layer[i].window, 9);
        assert_int_equal(m->by_token, i == 0);
        assert_int_equal(m->correction, i > 0);
        assert_int_equal(m->router.k, 6);
        assert_int_equal(m->experts, 256);
    }
    assert_float_equal(s.rope[0].theta, 500, 0);
    assert_int_equal(s.rope[0].kind, SW_ROPE_DEFAULT);
    assert_float_equal(s.rope[1].theta, 7000, 0);
    assert_int_equal(s.rope[1].kind, SW_ROPE_YARN);
    assert_float_equal(s.rope[1].attention_factor, 1, 0);
    assert_int_equal(sw_rope_pairs(&s.rope[1]), 4);
    name_is(&s, 1, "self_attn.kv_norm.weight", "layers.1.attn.kv_norm.weight");
    name_is(&s, -1, "model.embed_tokens.weight", "embed.weight");
    name_is(&s, 1, "mlp.experts.3.w1.weight", "layers.1.ffn.experts.3.w1.weight");
    name_is(&s, 0, "mlp.router.by_token", "layers.0.ffn.gate.tid2eid");
    s.names = s.family->other_names;
    name_is(&s, 1, "self_attn.kv_norm.weight", "model.layers.1.attn.norm.weight");
    name_is(&s, -1, "model.embed_tokens.weight", "model.embed_tokens.weight");
    sw_spec_free(&s);
}

/* ---- what is read is written back */

static void same_tensors(const char *a, const char *b)
{
    sw_checkpoint *x = sw_checkpoint_open(a), *y = sw_checkpoint_open(b);
    assert_non_null(x);
    assert_non_null(y);
    assert_int_equal(sw_checkpoint_count(x), sw_checkpoint_count(y));
    for (size_t i = 0; i < sw_checkpoint_count(x); i++) {
        const sw_entry *e = sw_checkpoint_at(x, i), *f = sw_checkpoint_find(y, e->name);
        if (!f || f->t.dtype != e->t.dtype || f->t.ndim != e->t.ndim ||
            memcmp(f->t.shape, e->t.shape, (size_t)e->t.ndim * sizeof *e->t.shape) ||
            memcmp(f->t.data, e->t.data, sw_tensor_bytes(&e->t)))
            fail_msg("%s: %s is not what it was", a, e->name);
    }
    sw_checkpoint_close(x);
    sw_checkpoint_close(y);
}

static void round_trip(const char *from, sw_device *d)
{
    char out[] = "/tmp/swift-family-XXXXXX";
    assert_non_null(mkdtemp(out));
    sw_model *m = sw_model_load(from, d, &(sw_load_options){.dtype = SW_DTYPE_COUNT});
    if (!m)
        fail_msg("%s", sw_error());
    sw_modules modules = sw_model_modules(m);
    sw_save_report report;
    int rc = sw_model_save(m, &modules, out, &(sw_save_options){.dtype = SW_DTYPE_COUNT}, &report);
    free(modules.at);
    sw_model_free(m);
    if (rc)
        fail_msg("%s", sw_error());
    same_tensors(from, out);
    char *command = sw_strfmt("rm -rf '%s'", out);
    assert_int_equal(system(command), 0);
    free(command);
}

static void round_trips(void **state)
{
    (void)state;
    sw_device *d = sw_device_open("cpu");
    DIR *list = opendir(CASES);
    assert_non_null(d);
    assert_non_null(list);
    int n = 0;
    for (struct dirent *e; (e = readdir(list));) {
        if (e->d_name[0] == '.')
            continue;
        char *path = sw_path_join(CASES, e->d_name);
        round_trip(path, d);
        free(path);
        n++;
    }
    closedir(list);
    d->close(d);
    assert_true(n > 20);
}

/* Tuners see the modules that the hub's own classes have: a packed projection is one, in and out as it computes. */
static void packed_modules(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *path;
        int64_t out, in;
    } want[] = {{"gpt2", "transformer.h.1.attn.c_attn", 96, 32}, {"codegen", "transformer.h.0.attn.qkv_proj", 96, 32},
                {"hub_internlm2_reward", "model.layers.0.attention.wqkv", 64, 32}, {"phi3_longrope", "model.layers.1.mlp.gate_up_proj", 80, 32}};
    sw_device *d = sw_device_open("cpu");
    for (size_t i = 0; i < SW_COUNT(want); i++) {
        char *path = sw_path_join(CASES, want[i].folder);
        sw_model *m = sw_model_load(path, d, &(sw_load_options){.dtype = SW_DTYPE_COUNT});
        if (!m)
            fail_msg("%s", sw_error());
        const sw_module *found = NULL;
        for (size_t k = 0; k < m->modules.n; k++)
            if (!strcmp(m->modules.at[k].path, want[i].path))
                found = &m->modules.at[k];
        assert_non_null(found);
        assert_int_equal(found->kind, SW_MODULE_LINEAR);
        assert_int_equal(found->linear->out, want[i].out);
        assert_int_equal(found->linear->in, want[i].in);
        sw_model_free(m);
        free(path);
    }
    d->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(refusals), cmocka_unit_test(names), cmocka_unit_test(defaults),
                                       cmocka_unit_test(class_defaults), cmocka_unit_test(deepseek_v4), cmocka_unit_test(heads_for_classes),
                                       cmocka_unit_test(wrapped),
                                       cmocka_unit_test(round_trips), cmocka_unit_test(packed_modules)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
