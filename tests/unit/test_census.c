/* The census: published models, each resolved from what its config.json says. tests/unit/census.tsv has a line a model
 * type of ms-swift: the paper's release (2.3) first, then today's (4.6): P or N, model type, hub id, architecture,
 * quantisation. */
#include "model/family.h"
#include "model/release.h"
#include "store/scaled.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/strbuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define CENSUS "tests/unit/census.tsv"

enum { PERIOD, TYPE, ID, ARCHITECTURE, QUANTISATION, FIELDS };

/* Sizes under every name that some family has for them, as small as possible. */
#define SIZES                                                                                                          \
    "\"vocab_size\":96,\"padded_vocab_size\":96,\"hidden_size\":32,\"n_embd\":32,\"d_model\":32,\"num_hidden_"         \
    "layers\":2,"                                                                                                      \
    "\"n_layer\":2,\"num_layers\":2,\"n_layers\":2,\"num_attention_heads\":4,\"n_head\":4,\"n_heads\":4,"              \
    "\"intermediate_size\":48,\"ffn_hidden_size\":48,\"n_inner\":128,"                                                 \
    "\"max_position_embeddings\":64"
/* What some families cannot do without. */
#define LATENT ",\"kv_lora_rank\":8,\"qk_rope_head_dim\":4,\"qk_nope_head_dim\":4,\"v_head_dim\":4,\"q_lora_rank\":8"
static const struct {
    const char *architecture, *more;
} needs[] = {{"Deepseek", LATENT},
             {"DeepseekV4", ",\"num_experts_per_tok\":2"},
             {"GlmMoeDsa", LATENT},
             {"Longcat", LATENT ",\"ffn_hidden_size\":48,\"expert_ffn_hidden_size\":8"},
             {"NemotronH", ",\"hybrid_override_pattern\":\"*-\""},
             {"BailingMoeV2_5", LATENT},
             {"MiniMaxText01", ",\"postnorm\":true"},
             {"MiniMaxM1", ",\"postnorm\":true"}};

static cJSON *stub(const char *architecture, const char *type)
{
    char text[4096];
    size_t n = 0;
    n += (size_t)snprintf(text, sizeof text,
                          "{" SIZES
                          ",\"num_experts\":4,\"num_local_experts\":4,\"n_routed_experts\":4,\"moe_num_experts\":4,"
                          "\"moe_intermediate_size\":8");
    for (size_t i = 0; i < SW_COUNT(needs); i++)
        if (architecture && sw_starts_with(architecture, needs[i].architecture))
            n += (size_t)snprintf(text + n, sizeof text - n, "%s", needs[i].more);
    if (architecture)
        n += (size_t)snprintf(text + n, sizeof text - n, ",\"architectures\":[\"%s\"]", architecture);
    if (type)
        n += (size_t)snprintf(text + n, sizeof text - n, ",\"model_type\":\"%s\"", type);
    snprintf(text + n, sizeof text - n, "}");
    cJSON *config = sw_json_parse(text, strlen(text));
    assert_non_null(config);
    return config;
}

/* The family of a config.json that says so much; NULL with the error of the reader. */
static const sw_family *resolve(const char *architecture, const char *type)
{
    cJSON *config = stub(architecture, type);
    sw_spec s;
    const sw_family *f = sw_spec_from_config(&s, config, "config.json") ? NULL : s.family;
    if (f)
        sw_spec_free(&s);
    cJSON_Delete(config);
    return f;
}

static const sw_release *release_of(const char *id)
{
    const sw_release *r;
    for (size_t i = 0; (r = sw_release_at(i)); i++)
        if (!strcasecmp(r->id, id))
            return r;
    return NULL;
}

static const sw_family *family_called(const char *name)
{
    const sw_family *f;
    for (size_t i = 0; (f = sw_family_at(i)); i++)
        if (!strcmp(f->name, name))
            return f;
    return NULL;
}

static void split(char *line, char *field[FIELDS])
{
    for (int i = 0; i < FIELDS; i++) {
        field[i] = line;
        char *tab = strchr(line, '\t');
        if (!tab != (i == FIELDS - 1))
            fail_msg("%s: '%s' has not %d fields", CENSUS, line, FIELDS);
        if (tab) {
            *tab = 0;
            line = tab + 1;
        }
    }
}

/* Every model type resolves, to the family that models.def says of its id, with weights of the kind that it says. */
static void census(void **state)
{
    (void)state;
    sw_buf text = {0};
    assert_int_equal(sw_read_file(CENSUS, &text), 0);
    int paper = 0, now = 0, packed = 0, bad = 0;
    for (char *line = text.at, *end; *line; line = end + 1) {
        char *field[FIELDS];
        end = strchr(line, '\n');
        assert_non_null(end);
        *end = 0;
        split(line, field);
        const sw_family *f = resolve(field[ARCHITECTURE], NULL);
        const sw_release *r = release_of(field[ID]);
        const char *wrong = !f                           ? sw_error()
                            : !r                         ? "models.def does not have it"
                            : strcmp(r->family, f->name) ? "models.def says another family than its architecture"
                            : strcmp(field[QUANTISATION], "none") && r->kind == SW_RELEASE_PLAIN
                                ? "models.def calls it plain"
                                : NULL;
        if (wrong) {
            print_error("%s (%s, %s, %s): %s\n", field[TYPE], field[ID], field[ARCHITECTURE], field[QUANTISATION],
                        wrong);
            bad++;
            continue;
        }
        packed += r->kind != SW_RELEASE_PLAIN;
        *(*field[PERIOD] == 'P' ? &paper : &now) += 1;
    }
    sw_buf_free(&text);
    print_message("census: %d model types of the paper's release and %d of today's resolve (%d of them are packed releases)\n", paper, now, packed);
    assert_int_equal(bad, 0);
    assert_int_equal(paper, 339);
    assert_int_equal(now, 104);
}

/* Names are of one family each, and each resolves to it by itself: architectures and model types. */
static void names_are_unique(void **state)
{
    (void)state;
    const sw_family *f;
    for (size_t i = 0; (f = sw_family_at(i)); i++) {
        assert_ptr_equal(family_called(f->name), f);
        const sw_family *g;
        for (size_t k = i + 1; (g = sw_family_at(k)); k++) {
            for (const char *const *a = f->architectures; *a; a++)
                for (const char *const *b = g->architectures; *b; b++)
                    if (!strcmp(*a, *b))
                        fail_msg("%s is an architecture of %s and of %s", *a, f->name, g->name);
            for (const char *const *a = f->model_types; a && *a; a++)
                for (const char *const *b = g->model_types; b && *b; b++)
                    if (!strcmp(*a, *b))
                        fail_msg("%s is a model type of %s and of %s", *a, f->name, g->name);
        }
    }
    assert_string_equal(resolve(NULL, "internlm3")->name, "internlm3");
    assert_string_equal(resolve(NULL, "qwen2")->name, "qwen2");
    assert_null(resolve("LlavaForConditionalGeneration", NULL)); /* pictures are not claimed */
}

/* models.def names families that there are, ids once, and cases that the scripts make; a case that lies here is read by
 * the family that says so. */
static void releases(void **state)
{
    (void)state;
    const sw_release *r;
    for (size_t i = 0; (r = sw_release_at(i)); i++) {
        if (!family_called(r->family))
            fail_msg("models.def: %s is of %s, which is no family", r->id, r->family);
        if (release_of(r->id) != r)
            fail_msg("models.def: %s is there twice", r->id);
    }
    static const char *const methods[SW_RELEASE_KINDS] = {NULL, "fp8", "mxfp4", "gptq", "awq", "aqlm", "bitsandbytes"};
    for (int k = 1; k < SW_RELEASE_KINDS; k++) {
        char text[80];
        snprintf(text, sizeof text, "{\"quantization_config\":{\"quant_method\":\"%s\"}}", methods[k]);
        cJSON *config = cJSON_Parse(text);
        int rc = sw_scaled_check(config);
        if (sw_release_is_read((sw_release_kind)k) != !rc)
            fail_msg("%s: %s", methods[k], rc ? sw_error() : "is read after all");
        cJSON_Delete(config);
    }
    sw_buf native = {0}, hub = {0};
    assert_int_equal(sw_read_file("tests/golden/make_llm.py", &native), 0);
    assert_int_equal(sw_read_file("tests/golden/make_hub.py", &hub), 0);
    const sw_family *f;
    for (size_t i = 0; (f = sw_family_at(i)); i++)
        for (int twice = 0; twice < 2; twice++) {
            const char *cases = twice ? sw_family_rewritten(f) : sw_family_checked(f);
            for (const char *c = cases; c && *c; c += strspn(c, " ")) {
                size_t length = strcspn(c, " ");
                char made[128], path[160];
                snprintf(made, sizeof made, "case(\"%.*s\"", (int)length, c);
                if (!strstr(hub.at, made) && (twice || !strstr(native.at, made)))
                    fail_msg("%s: no script makes %.*s", f->name, (int)length, c);
                snprintf(path, sizeof path, "tests/golden/llm/%.*s/config.json", (int)length, c);
                c += length;
                cJSON *config = sw_is_file(path) ? sw_json_load(path) : NULL;
                sw_spec s;
                if (!config || !strcmp(f->name, "minimax_text_01")) { /* by the numbers of minimax, see text_01 */
                    cJSON_Delete(config);
                    continue;
                }
                if (sw_spec_from_config(&s, config, path))
                    fail_msg("%s", sw_error());
                if (s.family != f)
                    fail_msg("%s is read by %s, not by %s", path, s.family->name, f->name);
                sw_spec_free(&s);
                cJSON_Delete(config);
            }
        }
    sw_buf_free(&native);
    sw_buf_free(&hub);
}

/* The first files of MiniMax say with other words what the case minimax says. */
static void text_01(void **state)
{
    (void)state;
    cJSON *config = stub("MiniMaxText01ForCausalLM", NULL);
    sw_spec s;
    cJSON_AddItemToObject(config, "attn_type_list", cJSON_CreateIntArray((const int[]){0, 1}, 2));
    cJSON_AddNumberToObject(config, "rotary_dim", 4);
    assert_int_equal(sw_spec_from_config(&s, config, "config.json"), 0);
    assert_string_equal(s.layer[0].mixer->name, "lightning attention");
    assert_string_equal(s.layer[1].mixer->name, "attention");
    assert_float_equal(s.rope[0].partial, 0.5, 0);
    sw_spec_free(&s);
    cJSON_ReplaceItemInObject(config, "attn_type_list", cJSON_CreateIntArray((const int[]){0}, 1));
    assert_int_equal(sw_spec_from_config(&s, config, "config.json"), -1);
    assert_non_null(strstr(sw_error(), "attn_type_list"));
    cJSON_Delete(config);
}

/* EmbeddingGemma: half of the window to each side, the names of a body alone. */
static void embedding_gemma(void **state)
{
    (void)state;
    cJSON *config = stub("Gemma3TextModel", "gemma3_text");
    sw_spec s;
    char name[SW_NAME_MAX];
    cJSON_AddNumberToObject(config, "sliding_window", 512);
    assert_int_equal(sw_spec_from_config(&s, config, "config.json"), 0);
    assert_int_equal(s.task, SW_TASK_EMBED);
    assert_false(s.bidirectional);
    assert_int_equal(s.layer[0].window, 512);
    sw_spec_free(&s);
    cJSON_AddTrueToObject(config, "use_bidirectional_attention");
    assert_int_equal(sw_spec_from_config(&s, config, "config.json"), 0);
    assert_true(s.bidirectional);
    assert_int_equal(s.layer[0].window, 257);
    assert_int_equal(s.pooling, SW_POOL_MEAN);
    assert_string_equal(sw_file_name(&s, 1, "mlp_norm.weight", name), "layers.1.pre_feedforward_layernorm.weight");
    assert_string_equal(sw_file_name(&s, -1, "model.embed_tokens.weight", name), "embed_tokens.weight");
    sw_spec_free(&s);
    cJSON_Delete(config);
}

static void refused(const char *architecture, const char *key, const char *value, const char *word)
{
    cJSON *config = stub(architecture, NULL);
    sw_spec s;
    cJSON_DeleteItemFromObject(config, key);
    cJSON_AddItemToObject(config, key, sw_json_parse(value, strlen(value)));
    if (!sw_spec_from_config(&s, config, "config.json"))
        fail_msg("%s with %s %s is accepted", architecture, key, value);
    if (!strstr(sw_error(), word))
        fail_msg("'%s' does not say '%s'", sw_error(), word);
    cJSON_Delete(config);
}

static void refusals(void **state)
{
    (void)state;
    refused("MiniMaxM1ForCausalLM", "postnorm", "false", "postnorm");
    refused("MiniMaxM1ForCausalLM", "rotary_dim", "10", "rotary_dim");
    refused("YuanForCausalLM", "use_shareqk", "true", "use_shareqk");
    refused("YuanForCausalLM", "attention_projection_size", "30", "attention_projection_size");
    refused("YuanForCausalLM", "moe_config", "{\"moe_num_experts\":4,\"moe_top_k\":5,\"ffn_hidden_size\":8}",
            "num_experts_per_tok");
    refused("BaichuanM1ForCausalLM", "conv_window", "3", "conv_window");
    refused("BaichuanM1ForCausalLM", "sliding_window_layers", "[2]", "sliding_window_layers");
    refused("BaichuanM1ForCausalLM", "num_swa_attention_heads", "3", "num_swa_attention_heads");
    refused("BailingMoeForCausalLM", "norm_softmax", "true", "norm_softmax");
    refused("Phi3SmallForCausalLM", "rope_position_scale", "2", "rope_position_scale");
    refused("Phi3SmallForCausalLM", "gegelu_limit", "0", "gegelu_limit");
    refused("BlueLMForCausalLM", "rope_scaling", "{\"type\":\"ntkmixed\",\"factor\":16}", "power");
    refused("Grok1ModelForCausalLM", "num_experts_per_tok", "9", "num_experts_per_tok");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(census), cmocka_unit_test(names_are_unique),
                                       cmocka_unit_test(releases), cmocka_unit_test(text_01), cmocka_unit_test(embedding_gemma),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
