/* Encoders: both directions, token types, what stands for a text, the spellings of older files, and what is refused. Numbers
 * come from transformers on the checkpoints of tests/golden/llm. */
#include "model/generate.h"

#include "base/fileio.h"
#include "base/json.h"
#include "store/safetensors.h"
#include "tests/unit/folder.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define CASES "tests/golden/llm/"

static sw_device *device;

static sw_model *load(const char *path)
{
    sw_model *m = sw_model_load(path, device, &(sw_load_options){.dtype = SW_F32});
    if (!m)
        fail_msg("%s", sw_error());
    return m;
}

static void near(const float *got, const double *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) < 1e-4))
            fail_msg("value %zu is %.6f, not %.6f", i, got[i], want[i]);
}

static const int32_t text[] = {1, 5, 9, 14, 2};
enum { TEXT = 5, WIDTH = 32 };

/* ---- what a token sees and is */

static void words(sw_model *m, const int32_t *ids, const int32_t *types, float out[TEXT * 96])
{
    sw_ctx c;
    assert_int_equal(sw_ctx_init(&c, device, SW_F32), 0);
    sw_batch b = {.n = TEXT, .n_seqs = 1, .ids = ids, .types = types, .lengths = &(int64_t){TEXT}};
    sw_var *h = sw_model_forward(&c, m, &b, false);
    sw_head head = sw_model_head(m);
    sw_var *y = h ? sw_logits(&c, h, &head) : NULL;
    assert_true(y && !sw_to_host(&c, y, out));
    sw_ctx_free(&c);
}

static void token_types(void **state)
{
    (void)state;
    float y[TEXT * 96], none[TEXT * 96];
    sw_model *m = load(CASES "bert_mlm");
    words(m, text, (int32_t[]){0, 0, 0, 1, 1}, y);
    near(y + 96, (double[]){-0.7436537, -1.2568566, -0.9527995, 0.6803221}, 4);
    words(m, text, NULL, none);
    near(none + 96, (double[]){-0.4852837, -1.4650688, -1.3275327, 0.9071982}, 4);
    words(m, text, (int32_t[TEXT]){0}, y);
    assert_memory_equal(y, none, sizeof y);
    sw_ctx c;
    assert_int_equal(sw_ctx_init(&c, device, SW_F32), 0);
    sw_batch b = {.n = TEXT, .n_seqs = 1, .ids = text, .types = (int32_t[]){0, 0, 2, 0, 0}, .lengths = &(int64_t){TEXT}};
    assert_null(sw_model_forward(&c, m, &b, false));
    assert_non_null(strstr(sw_error(), "type 2"));
    sw_ctx_free(&c);
    sw_model_free(m);
}

/* The first token knows the last one, which a decoder's does not. */
static void directions(void **state)
{
    (void)state;
    static const char *const folders[] = {CASES "bert_mlm", CASES "gpt2"};
    const int32_t other[] = {1, 5, 9, 14, 7};
    for (int i = 0; i < 2; i++) {
        float a[TEXT * 96], b[TEXT * 96];
        sw_model *m = load(folders[i]);
        words(m, text, NULL, a);
        words(m, other, NULL, b);
        assert_int_equal(memcmp(a, b, 96 * sizeof *a) == 0, i);
        sw_model_free(m);
    }
}

static void does_not_generate(void **state)
{
    (void)state;
    sw_model *m = load(CASES "bert_mlm");
    sw_generator g;
    assert_int_not_equal(sw_generator_init(&g, m, SW_F32, 1), 0);
    assert_non_null(strstr(sw_error(), "bert reads texts in both directions"));
    sw_model_free(m);
}

/* ---- embedding models */

/* A base model in a folder of its own: bert_mlm's tensors as the first files of BERT called them, and no class's prefix. */
static char *base_folder(const char *pooling)
{
    char *base = sw_strdup(in("base"));
    assert_int_equal(mkdir(base, 0777), 0);
    sw_safetensors *s = sw_st_open(CASES "bert_mlm/model.safetensors");
    assert_non_null(s);
    size_t n = sw_st_count(s);
    sw_entry *e = SW_NEW_ARRAY(sw_entry, n);
    for (size_t i = 0; i < n; i++) {
        e[i] = *sw_st_at(s, i);
        const char *name = sw_starts_with(e[i].name, "bert.") ? e[i].name + 5 : e[i].name;
        const char *norm = strstr(name, "LayerNorm.");
        e[i].name = norm ? sw_strfmt("%.*s%s", (int)(norm + 10 - name), name, sw_ends_with(name, "weight") ? "gamma" : "beta") : sw_strfmt("%s", name);
    }
    char *file = sw_path_join(base, "model.safetensors"), *config = sw_path_join(base, "config.json");
    assert_int_equal(sw_st_save(file, e, n, NULL), 0);
    for (size_t i = 0; i < n; i++)
        free(e[i].name);
    free(e);
    sw_st_close(s);
    free(file);
    cJSON *o = sw_json_load(CASES "bert_mlm/config.json");
    assert_non_null(o);
    cJSON_ReplaceItemInObject(o, "architectures", cJSON_CreateStringArray((const char *const[]){"BertModel"}, 1));
    char *text_of = cJSON_Print(o);
    assert_int_equal(sw_write_file(config, text_of, strlen(text_of)), 0);
    cJSON_free(text_of);
    cJSON_Delete(o);
    free(config);
    if (pooling) {
        char *folder = sw_path_join(base, "1_Pooling"), *path = sw_path_join(folder, "config.json");
        assert_int_equal(mkdir(folder, 0777), 0);
        assert_int_equal(sw_write_file(path, pooling, strlen(pooling)), 0);
        free(folder);
        free(path);
    }
    return base;
}

static void remove_folder(char *base)
{
    assert_int_equal(sw_remove_tree(base), 0);
    free(base);
}

/* Two texts side by side, so that one's tokens could slip into the other's mean. */
static void embeds(const char *pooling, const double *want)
{
    char *base = base_folder(pooling);
    sw_model *m = load(base);
    sw_ctx c;
    assert_int_equal(m->spec.task, SW_TASK_EMBED);
    assert_int_equal(sw_ctx_init(&c, device, SW_F32), 0);
    const int32_t ids[] = {1, 44, 2, 1, 5, 9, 14, 2};
    sw_batch b = {.n = 3 + TEXT, .n_seqs = 2, .ids = ids, .lengths = (int64_t[]){3, TEXT}};
    sw_var *h = sw_model_forward(&c, m, &b, false), *y = h ? sw_model_pool(&c, m, &b, h) : NULL;
    float out[2 * WIDTH];
    assert_true(y && !sw_to_host(&c, y, out));
    near(out + WIDTH, want, 4);
    sw_ctx_free(&c);
    sw_model_free(m);
    remove_folder(base);
}

/* What a folder of sentence-transformers does after pooling is known, or the folder is refused. */
static void further_modules(void **state)
{
    (void)state;
    static const char known[] = "[{\"idx\":0,\"path\":\"\",\"type\":\"sentence_transformers.models.Transformer\"},"
                                "{\"idx\":1,\"path\":\"1_Pooling\",\"type\":\"sentence_transformers.models.Pooling\"},"
                                "{\"idx\":2,\"path\":\"2_Normalize\",\"type\":\"sentence_transformers.models.Normalize\"}]",
                      dense[] = "[{\"idx\":2,\"path\":\"2_Dense\",\"type\":\"sentence_transformers.models.Dense\"}]";
    char *base = base_folder(NULL), *path = sw_path_join(base, "modules.json");
    assert_int_equal(sw_write_file(path, known, strlen(known)), 0);
    sw_model_free(load(base));
    assert_int_equal(sw_write_file(path, dense, strlen(dense)), 0);
    assert_null(sw_model_load(base, device, &(sw_load_options){.dtype = SW_F32}));
    assert_non_null(strstr(sw_error(), "2_Dense"));
    free(path);
    remove_folder(base);
}

static void pooling(void **state)
{
    (void)state;
    const double mean[] = {2.4343205, -0.4030461, -0.4978984, -1.9235226}, first[] = {1.7270551, -0.8235404, -1.0708871, -1.8301710},
                 last[] = {2.8963506, -0.3443062, -0.2900488, -2.2869139};
    embeds(NULL, mean);
    embeds("{\"pooling_mode_cls_token\":false,\"pooling_mode_mean_tokens\":true}", mean);
    embeds("{\"word_embedding_dimension\":32,\"pooling_mode_cls_token\":true,\"pooling_mode_mean_tokens\":false}", first);
    embeds("{\"pooling_mode_lasttoken\":true}", last);
    embeds("{\"embedding_dimension\":32,\"pooling_mode\":\"cls\",\"pooling_mode_mean_tokens\":true}", first);
    embeds("{\"pooling_mode\":[\"lasttoken\"]}", last);
    static const char *const bad[][2] = {{"{\"pooling_mode_max_tokens\":true}", "pooling_mode_max_tokens"},
                                         {"{\"pooling_mode_cls_token\":true,\"pooling_mode_mean_tokens\":true}", "beside"},
                                         {"{\"pooling_mode\":\"max\"}", "\"max\": one of"},
                                         {"{\"pooling_mode\":[\"mean\",\"cls\"]}", "\"cls\" beside mean"},
                                         {"{\"pooling_mode\":[]}", "a name is needed, not"}};
    for (size_t i = 0; i < SW_COUNT(bad); i++) {
        char *base = base_folder(bad[i][0]);
        assert_null(sw_model_load(base, device, &(sw_load_options){.dtype = SW_F32}));
        assert_non_null(strstr(sw_error(), bad[i][1]));
        remove_folder(base);
    }
}

/* Bodies of other classes' checkpoints: transformers' means of the hidden states. T5's is the encoder of both. */
static void bodies(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *architecture;
        double want[4];
    } all[] = {{"t5_plain", "T5EncoderModel", {0.008115, -0.852400, -0.409973, -0.175396}},
               {"umt5", "UMT5EncoderModel", {-0.539521, -1.411994, 0.028445, 1.062321}},
               {"mt5", "MT5EncoderModel", {0.196868, 0.065604, 0.177854, -0.412159}},
               {"distilbert_cls", "DistilBertModel", {-1.222125, -0.001131, -0.395344, -0.755327}},
               {"mpnet_mlm", "MPNetModel", {-0.073019, 0.323093, -0.665717, 0.330360}},
               {"electra_mlm", "ElectraModel", {-0.349522, 0.040022, -0.328080, 0.990704}},
               {"albert_mlm", "AlbertModel", {-0.419134, -1.728327, -1.314395, -0.289462}},
               {"eurobert_cls", "EuroBertModel", {0.320349, -0.609893, 0.330510, 0.988418}},
               {"nomic_bert_mlm", "NomicBertModel", {0.761964, -0.313302, -1.274068, 1.193515}},
               {"jina_v3_cls", "JinaEmbeddingsV3Model", {-0.158507, 0.488748, -0.723435, 1.381466}},
               {"gte_cls", "GteModel", {-0.343873, 0.158090, -0.457868, 0.520826}}};
    const char *config = in("config.json");
    for (size_t i = 0; i < SW_COUNT(all); i++) {
        char *folder = sw_strfmt(CASES "%s", all[i].folder), *own = sw_path_join(folder, "config.json");
        cJSON *o = sw_json_load(own);
        assert_non_null(o);
        cJSON_ReplaceItemInObjectCaseSensitive(o, "architectures", cJSON_CreateStringArray(&all[i].architecture, 1));
        sw_buf text_ = {0};
        sw_json_print(&text_, o);
        assert_int_equal(sw_write_file(config, text_.at, text_.n), 0);
        sw_model *m = sw_model_load_config(folder, config, device, &(sw_load_options){.dtype = SW_F32});
        if (!m)
            fail_msg("%s", sw_error());
        sw_ctx c;
        assert_int_equal(m->spec.task, SW_TASK_EMBED);
        assert_int_equal(sw_ctx_init(&c, device, SW_F32), 0);
        const int32_t ids[] = {44, 3, 5, 9, 14, 2};
        sw_batch b = {.n = 1 + TEXT, .n_seqs = 2, .ids = ids, .lengths = (int64_t[]){1, TEXT}};
        sw_var *h = sw_model_forward(&c, m, &b, false), *y = h ? sw_model_pool(&c, m, &b, h) : NULL;
        float out[2 * WIDTH];
        assert_true(y && y->t.shape[1] <= WIDTH && !sw_to_host(&c, y, out));
        near(out + y->t.shape[1], all[i].want, 4);
        sw_ctx_free(&c);
        sw_model_free(m);
        sw_buf_free(&text_);
        cJSON_Delete(o);
        free(own);
        free(folder);
    }
}

/* ---- configurations */

static int read_spec(sw_spec *s, const char *config)
{
    cJSON *o = sw_json_parse(config, strlen(config));
    assert_non_null(o);
    int rc = sw_spec_from_config(s, o, "config.json");
    cJSON_Delete(o);
    return rc;
}

#define HAS(arch, ...)                                                                                                  \
    "{\"architectures\":[\"" arch "\"],\"vocab_size\":12,\"hidden_size\":32,\"num_attention_heads\":4,\"intermediate_size\":40," \
    "\"num_hidden_layers\":4" __VA_ARGS__ "}"

/* As published, with GPT-2's names. */
static void nomic(void **state)
{
    (void)state;
    sw_spec s;
    assert_int_equal(read_spec(&s, "{\"architectures\":[\"NomicBertModel\"],\"activation_function\":\"swiglu\",\"vocab_size\":12,\"n_embd\":32,"
                                   "\"n_head\":4,\"n_inner\":40,\"n_layer\":3,\"n_positions\":8192,\"layer_norm_epsilon\":1e-12,"
                                   "\"rotary_emb_base\":2000,\"rotary_emb_fraction\":1.0,\"qkv_proj_bias\":false,\"type_vocab_size\":2}"), 0);
    assert_int_equal(s.hidden, 32);
    assert_int_equal(s.mlp, 40);
    assert_int_equal(s.layers, 3);
    assert_int_equal(s.max_position, 8192);
    assert_int_equal(s.act, SW_ACT_SILU);
    assert_float_equal(s.rope[0].theta, 2000, 0);
    sw_spec_free(&s);
}

/* As published: bases by two names, every third layer full from the first on, windows that count both sides. */
static void modern_bert(void **state)
{
    (void)state;
    sw_spec s;
    assert_int_equal(read_spec(&s, HAS("ModernBertForMaskedLM", ",\"global_rope_theta\":50000,\"local_attention\":128")), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(s.layer[i].window, i % 3 ? 65 : 0);
        assert_int_equal(s.layer[i].rope, i % 3 ? 1 : 0);
    }
    assert_float_equal(s.rope[0].theta, 50000, 0);
    assert_float_equal(s.rope[1].theta, 10000, 0);
    sw_spec_free(&s);
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *config, *says;
    } bad[] = {{HAS("BertForMaskedLM", ",\"is_decoder\":true"), "is_decoder"},
               {HAS("BertForMaskedLM", ",\"position_embedding_type\":\"relative_key\""), "relative_key"},
               {HAS("RobertaForMaskedLM", ",\"max_position_embeddings\":2"), "max_position_embeddings"},
               {HAS("ModernBertForSequenceClassification", ",\"classifier_pooling\":\"max\""), "classifier_pooling"},
               {HAS("ModernBertModel", ",\"hidden_activation\":\"gulu\""), "gulu"},
               {HAS("ModernBertModel", ",\"local_rope_theta\":-1"), "local_rope_theta"},
               {HAS("ModernBertModel", ",\"layer_types\":[\"full_attention\",\"chunked_attention\",\"full_attention\",\"full_attention\"]"),
                "layer 1"},
               {HAS("ElectraForPreTraining"), "ElectraForSequenceClassification"},
               {HAS("AlbertModel", ",\"num_hidden_groups\":2"), "num_hidden_groups"},
               {HAS("MPNetModel", ",\"pad_token_id\":0"), "pad_token_id"},
               {HAS("NomicBertModel", ",\"moe_every_n_layers\":2"), "mixtures of experts"},
               {HAS("NomicBertModel", ",\"activation_function\":\"gelu\""), "swiglu is"},
               {HAS("NomicBertModel", ",\"rotary_emb_base\":0"), "theta and factor"},
               {HAS("EuroBertForSequenceClassification", ",\"classifier_pooling\":\"cls\""), "neither late"},
               {HAS("T5EncoderModel", ",\"is_decoder\":true"), "is_decoder"}};
    for (size_t i = 0; i < SW_COUNT(bad); i++) {
        sw_spec s;
        if (!read_spec(&s, bad[i].config))
            fail_msg("accepted: %s", bad[i].config);
        if (!strstr(sw_error(), bad[i].says))
            fail_msg("'%s' does not say '%s'", sw_error(), bad[i].says);
    }
}

int main(void)
{
    device = sw_device_open("cpu");
    const struct CMUnitTest tests[] = {cmocka_unit_test(token_types), cmocka_unit_test(directions), cmocka_unit_test(does_not_generate),
                                       cmocka_unit_test(pooling), cmocka_unit_test(further_modules), cmocka_unit_test(bodies), cmocka_unit_test(nomic),
                                       cmocka_unit_test(modern_bert), cmocka_unit_test(refusals)};
    int rc = cmocka_run_group_tests(tests, sw_folder_make, sw_folder_remove);
    device->close(device);
    return rc;
}
