/* Hugging Face models in the words of GGUF: rotary divisors, metadata, tokenizer. */
#include "model/gguf_export.h"

#include "base/json.h"
#include "text/tokenizer.h"
#include "tests/unit/folder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define SIZES "\"vocab_size\":12,\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2," \
              "\"intermediate_size\":96,\"max_position_embeddings\":131072,\"rope_theta\":500000,\"eos_token_id\":[7,8]"
#define LLAMA "{\"architectures\":[\"LlamaForCausalLM\"]," SIZES
#define LLAMA3 LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4," \
                     "\"original_max_position_embeddings\":8192}}"

static void spec_of(sw_spec *s, const char *text)
{
    *s = (sw_spec){0};
    cJSON *config = sw_json_parse(text, strlen(text));
    assert_non_null(config);
    if (sw_spec_from_config(s, config, "test"))
        fail_msg("%s", sw_error());
    cJSON_Delete(config);
}

/* Llama 3: wavelengths up to 8192 / 4 stay, from 8192 / 1 on they grow eightfold, between there is a slope. */
static void divisors(void **state)
{
    (void)state;
    sw_spec s;
    float d[8];
    spec_of(&s, LLAMA "}");
    assert_false(sw_gguf_rope_divisors(&s, d));
    sw_spec_free(&s);
    spec_of(&s, LLAMA3);
    assert_int_equal(sw_rope_pairs(&s.rope[0]), 8);
    assert_true(sw_gguf_rope_divisors(&s, d));
    for (int i = 0; i < 8; i++) {
        double wavelength = 2 * M_PI * pow(500000, i / 8.0), smooth = (8192 / wavelength - 1) / 3;
        double want = wavelength < 2048 ? 1 : wavelength > 8192 ? 8 : 1 / ((1 - smooth) / 8 + smooth);
        assert_true(fabs(d[i] / want - 1) < 1e-5);
    }
    sw_spec_free(&s);
}

static void put(const char *name, const char *text) { assert_int_equal(sw_write_file(in(name), text, strlen(text)), 0); }

/* Spec and tokenizer written to a file without tensors, opened again; NULL with the reason. */
static sw_gguf *exported(const char *config, const char *tokenizer, const char *tokenizer_config)
{
    sw_spec s;
    spec_of(&s, config);
    cJSON *json = sw_json_parse(config, strlen(config));
    const sw_gguf_kind *kind = sw_gguf_kind_for(&s, json);
    assert_non_null(kind);
    put("tokenizer.json", tokenizer);
    put("tokenizer_config.json", tokenizer_config);
    sw_gguf_writer *w = sw_gguf_writer_new();
    sw_checkpoint c = {.config = json};
    int rc = sw_gguf_put_config(w, kind, &s, &c) || sw_gguf_put_tokenizer(w, dir, &s, 12) || sw_gguf_writer_open(w, in("m.gguf"));
    sw_spec_free(&s);
    cJSON_Delete(json);
    if (rc) {
        sw_gguf_writer_abort(w);
        return NULL;
    }
    assert_int_equal(sw_gguf_writer_commit(w), 0);
    return sw_gguf_open(in("m.gguf"));
}

static void string_is(const sw_gguf *g, const char *key, const char *want)
{
    sw_span s = sw_gguf_str(g, key);
    assert_int_equal(s.n, strlen(want));
    assert_memory_equal(s.at, want, s.n);
}

static void number_is(const sw_gguf *g, const char *key, int64_t want)
{
    int64_t n;
    assert_int_equal(sw_gguf_i64(g, key, INT64_MIN, INT64_MAX, -77, &n), 0);
    assert_int_equal(n, want);
}

static void list_is(const sw_gguf *g, const char *key, const char *want) /* items with commas */
{
    sw_buf b = {0};
    sw_gguf_iter it = sw_gguf_items(sw_gguf_find(g, key));
    sw_span s;
    double f;
    while (sw_gguf_next_str(&it, &s))
        sw_buf_printf(&b, "%.*s,", (int)s.n, s.at);
    while (sw_gguf_next_f64(&it, &f))
        sw_buf_printf(&b, "%g,", f);
    assert_string_equal(b.at ? b.at : "", want);
    sw_buf_free(&b);
}

#define BYTE_LEVEL "{\"added_tokens\":[{\"id\":7,\"content\":\"</s>\",\"special\":true},{\"id\":8,\"content\":\"<u>\",\"special\":false}]," \
                   "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true}," \
                   "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}]},\"model\":{\"type\":\"BPE\"," \
                   "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"abb\":3},\"merges\":[[\"a\",\"b\"],\"ab b\"]}}"

static void byte_level(void **state)
{
    (void)state;
    sw_gguf *g = exported(LLAMA3, BYTE_LEVEL, "{\"bos_token\":{\"content\":\"<u>\"},\"eos_token\":\"</s>\",\"add_bos_token\":true,\"chat_template\":\"t\"}");
    if (!g)
        fail_msg("%s", sw_error());
    string_is(g, "general.architecture", "llama");
    number_is(g, "llama.block_count", 2);
    number_is(g, "llama.attention.head_count_kv", 2);
    number_is(g, "llama.rope.dimension_count", 16);
    number_is(g, "llama.context_length", 131072);
    assert_null(sw_gguf_find(g, "llama.rope.scaling.type")); /* that one is a tensor */
    string_is(g, "tokenizer.ggml.model", "gpt2");
    string_is(g, "tokenizer.ggml.pre", "smollm");
    string_is(g, "tokenizer.chat_template", "t");
    list_is(g, "tokenizer.ggml.tokens", "a,b,ab,abb,[PAD4],[PAD5],[PAD6],</s>,<u>,[PAD9],[PAD10],[PAD11],");
    list_is(g, "tokenizer.ggml.token_type", "1,1,1,1,5,5,5,3,4,5,5,5,");
    list_is(g, "tokenizer.ggml.merges", "a b,ab b,");
    number_is(g, "tokenizer.ggml.bos_token_id", 8);
    number_is(g, "tokenizer.ggml.eos_token_id", 7);
    number_is(g, "tokenizer.ggml.padding_token_id", -77);
    sw_gguf_close(g);
}

static void sentencepiece(void **state)
{
    (void)state;
    sw_gguf *g = exported(LLAMA "}",
                          "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},{\"id\":1,\"content\":\"<s>\",\"special\":true}],"
                          "\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"_\"},\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":"
                          "[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}]},\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,"
                          "\"unk_token\":\"<unk>\",\"vocab\":{\"<unk>\":0,\"<s>\":1,\"<0x0A>\":2,\"a\":3,\"b\":4,\"ab\":5,\"abb\":6},"
                          "\"merges\":[\"a b\",\"ab b\",\"a bb\"]}}", "{}");
    if (!g)
        fail_msg("%s", sw_error());
    string_is(g, "tokenizer.ggml.model", "llama");
    list_is(g, "tokenizer.ggml.token_type", "2,3,6,1,1,1,1,5,5,5,5,5,");
    list_is(g, "tokenizer.ggml.scores", "-1000,-1000,0,-1e+09,-1e+09,0,-1,-1000,-1000,-1000,-1000,-1000,");
    bool yes;
    assert_int_equal(sw_gguf_bool(g, "tokenizer.ggml.add_bos_token", false, &yes), 0);
    assert_true(yes);
    assert_int_equal(sw_gguf_bool(g, "tokenizer.ggml.add_eos_token", true, &yes), 0);
    assert_false(yes);
    assert_int_equal(sw_gguf_bool(g, "tokenizer.ggml.add_space_prefix", false, &yes), 0);
    assert_true(yes);
    number_is(g, "tokenizer.ggml.unknown_token_id", 0);
    number_is(g, "tokenizer.ggml.eos_token_id", 7); /* config.json's */
    sw_gguf_close(g);
}

static void refused(const char *config, const char *tokenizer, const char *why)
{
    sw_gguf *g = exported(config, tokenizer, "{}");
    if (g || !strstr(sw_error(), why))
        fail_msg("%s: '%s' does not say '%s'", g ? "accepted" : "refused", sw_error(), why);
}

/* The ids of texts by the file's vocabulary are those by the folder's. */
static void same_ids(const sw_gguf *g, const char *const *texts)
{
    sw_tokenizer *a = sw_tokenizer_load(dir), *b = sw_tokenizer_from_gguf(g);
    if (!a || !b)
        fail_msg("%s", sw_error());
    sw_encoder *x = sw_encoder_new(a), *y = sw_encoder_new(b);
    for (; *texts; texts++) {
        sw_ids m = {0}, n = {0};
        assert_int_equal(sw_encode(x, *texts, strlen(*texts), true, &m, NULL), 0);
        assert_int_equal(sw_encode(y, *texts, strlen(*texts), true, &n, NULL), 0);
        if (m.n != n.n || memcmp(m.at, n.at, m.n * sizeof *m.at))
            fail_msg("'%s' has other ids", *texts);
        free(m.at);
        free(n.at);
    }
    sw_encoder_free(x);
    sw_encoder_free(y);
    sw_tokenizer_free(a);
    sw_tokenizer_free(b);
}

#define BERT "{\"architectures\":[\"BertModel\"],\"vocab_size\":12,\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2," \
             "\"intermediate_size\":16,\"max_position_embeddings\":16}"
#define AROUND "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"[C]\",\"type_id\":0}},{\"Sequence\":" \
               "{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"[S]\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"[C]\":{\"id\":\"[C]\"," \
               "\"ids\":[1],\"tokens\":[\"[C]\"]},\"[S]\":{\"id\":\"[S]\",\"ids\":[2],\"tokens\":[\"[S]\"]}}},"
#define SPECIAL(id, text) "{\"id\":" id ",\"content\":\"" text "\",\"special\":true}"
#define WORDPIECE(lower, accents)                                                                                       \
    "{\"added_tokens\":[" SPECIAL("0", "[U]") "," SPECIAL("1", "[C]") "," SPECIAL("2", "[S]") "],\"normalizer\":{\"type\":\"BertNormalizer\"," \
    "\"clean_text\":true,\"handle_chinese_chars\":true,\"strip_accents\":" accents ",\"lowercase\":" lower "},\"pre_tokenizer\":{\"type\":" \
    "\"BertPreTokenizer\"}," AROUND "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[U]\",\"continuing_subword_prefix\":\"##\"," \
    "\"max_input_chars_per_word\":100,\"vocab\":{\"[U]\":0,\"[C]\":1,\"[S]\":2,\"a\":3,\"##b\":4,\"ab\":5,\"##ba\":6,\"##\":7,\"A\":8,\"##\u00e9\":9,\"##e\":10}}}"

static void wordpiece(void **state)
{
    (void)state;
    static const char *const texts[] = {"ab a abba", "aab zz A", "Ab\u00e9", "a, \u4e2d a", "", NULL};
    static const char *const json[] = {WORDPIECE("true", "null"), WORDPIECE("false", "null"), WORDPIECE("true", "false")};
    for (size_t i = 0; i < sizeof json / sizeof *json; i++) {
        sw_gguf *g = exported(BERT, json[i], "{\"cls_token\":\"[C]\",\"sep_token\":\"[S]\",\"unk_token\":\"[U]\"}");
        if (!g)
            fail_msg("%s", sw_error());
        string_is(g, "general.architecture", "bert");
        string_is(g, "tokenizer.ggml.model", "bert");
        list_is(g, "tokenizer.ggml.tokens", "[U],[C],[S],\u2581a,b,\u2581ab,ba,\u2581##,\u2581A,\u00e9,e,[PAD11],");
        list_is(g, "tokenizer.ggml.token_type", "3,3,3,1,1,1,1,1,1,1,1,5,");
        number_is(g, "tokenizer.ggml.cls_token_id", 1);
        number_is(g, "tokenizer.ggml.bos_token_id", 1);
        number_is(g, "tokenizer.ggml.seperator_token_id", 2); /* as readers spell it */
        number_is(g, "tokenizer.ggml.unknown_token_id", 0);
        number_is(g, "tokenizer.ggml.token_type_count", 2);
        number_is(g, "bert.pooling_type", 1);
        same_ids(g, texts);
        sw_gguf_close(g);
    }
    refused(BERT, "{\"normalizer\":{\"type\":\"Lowercase\"},\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "not BERT's");
}

static void unigram(void **state)
{
    (void)state;
    static const char *const texts[] = {"ab a", "  abc   b ", "zz", "\u2581a b", "", NULL};
#define UNIGRAM(normal, vocab)                                                                                          \
    "{\"added_tokens\":[" SPECIAL("1", "[C]") "," SPECIAL("2", "[S]") "],\"normalizer\":" normal ",\"pre_tokenizer\":{\"type\":\"Sequence\"," \
    "\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},{\"type\":\"Metaspace\",\"replacement\":\"\u2581\",\"prepend_scheme\":\"always\"," \
    "\"split\":true}]}," AROUND "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":" vocab "}}"
#define PIECES "[[\"[U]\",0],[\"[C]\",0],[\"[S]\",0],[\"\u2581\",-3],[\"a\",-2],[\"b\",-2.5],[\"\u2581a\",-2.25],[\"ab\",-3.5],[\"c\",-4]]"
    sw_gguf *g = exported(BERT, UNIGRAM("null", PIECES), "{\"bos_token\":\"[C]\",\"eos_token\":\"[S]\"}");
    if (!g)
        fail_msg("%s", sw_error());
    string_is(g, "tokenizer.ggml.model", "t5");
    list_is(g, "tokenizer.ggml.tokens", "[U],[C],[S],\u2581,a,b,\u2581a,ab,c,[PAD9],[PAD10],[PAD11],");
    list_is(g, "tokenizer.ggml.token_type", "2,3,3,1,1,1,1,1,1,5,5,5,");
    list_is(g, "tokenizer.ggml.scores", "0,0,0,-3,-2,-2.5,-2.25,-3.5,-4,0,0,0,");
    number_is(g, "tokenizer.ggml.unknown_token_id", 0);
    bool yes;
    assert_int_equal(sw_gguf_bool(g, "tokenizer.ggml.remove_extra_whitespaces", false, &yes), 0);
    assert_true(yes);
    assert_int_equal(sw_gguf_bool(g, "tokenizer.ggml.add_eos_token", false, &yes), 0);
    assert_true(yes);
    same_ids(g, texts);
    sw_gguf_close(g);
    refused(BERT, UNIGRAM("{\"type\":\"NFKC\"}", PIECES), "NFKC has no place");
    refused(BERT, UNIGRAM("null", "[[\"a\"]]"), "item 0 is no pair");
    refused(BERT, UNIGRAM("null", "{}"), "an array is needed");
    refused(BERT, UNIGRAM("{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"*\"}", PIECES), "base64");
}

/* tokenizer.json of a vocabulary whose words are cut as this name says. */
static cJSON *cut_as(const char *name)
{
    sw_gguf_writer *w = sw_gguf_writer_new();
    sw_span tokens[] = {{"a", 1}, {"b", 1}, {"ab", 2}}, merge = {"a b", 3};
    int32_t types[] = {1, 1, 1};
    sw_gguf_put_str(w, "tokenizer.ggml.model", "gpt2", 4);
    sw_gguf_put_str(w, "tokenizer.ggml.pre", name, strlen(name));
    sw_gguf_put_strs(w, "tokenizer.ggml.tokens", 3, tokens);
    sw_gguf_put_array(w, "tokenizer.ggml.token_type", SW_GGUF_I32, 3, types);
    sw_gguf_put_strs(w, "tokenizer.ggml.merges", 1, &merge);
    assert_int_equal(sw_gguf_writer_open(w, in("t.gguf")), 0);
    assert_int_equal(sw_gguf_writer_commit(w), 0);
    sw_gguf *g = sw_gguf_open(in("t.gguf"));
    sw_tokenizer *t = g ? sw_tokenizer_from_gguf(g) : NULL;
    sw_buf json = {0}, config = {0};
    if (!t || sw_tokenizer_to_json(t, &json, &config))
        fail_msg("%s: %s", name, sw_error());
    cJSON *o = sw_json_parse(json.at, json.n);
    sw_buf_free(&json);
    sw_buf_free(&config);
    sw_tokenizer_free(t);
    sw_gguf_close(g);
    return o;
}

static bool name_of(const cJSON *o, char out[SW_GGUF_PRE_NAME])
{
    const cJSON *normal = sw_json_get(sw_json_get(o, "normalizer"), "type");
    return sw_gguf_pre_name(sw_json_get(o, "pre_tokenizer"), cJSON_IsString(normal) && !strcmp(normal->valuestring, "NFC"),
                            cJSON_IsTrue(sw_json_get(sw_json_get(o, "model"), "ignore_merges")), out);
}

/* Whatever cuts words gets a name by which they are cut the same. */
static void splitters(void **state)
{
    (void)state;
    static const char *const names[] = {"default", "falcon", "gpt-2", "mpt", "starcoder", "smollm", "llama-bpe", "dbrx", "glm4", "qwen2", "stablelm2",
                                        "qwen35", "deepseek-llm", "deepseek-coder", "deepseek-v3", "tekken", "gpt-4o", "kimi-k2", "bloom", "viking",
                                        "superbpe", "bailingmoe", "seed-coder", "exaone-moe", "chameleon", "jais-2"};
    static const char *const kept[] = {"gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "deepseek-v3", "gpt-4o"};
    char name[SW_GGUF_PRE_NAME];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cJSON *o = cut_as(names[i]);
        if (!name_of(o, name))
            fail_msg("%s has lost its name", names[i]);
        for (size_t k = 0; k < sizeof kept / sizeof *kept; k++)
            if (!strcmp(kept[k], names[i]))
                assert_string_equal(name, names[i]);
        cJSON *p = cut_as(name);
        if (!cJSON_Compare(sw_json_get(o, "pre_tokenizer"), sw_json_get(p, "pre_tokenizer"), true))
            fail_msg("%s is called %s, which cuts otherwise", names[i], name);
        cJSON_Delete(o);
        cJSON_Delete(p);
    }
    static const char deepseek[] = /* with characters where the table has escapes, as its tokenizer.json is published */
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{N}{1,3}\"},\"behavior\":\"Isolated\","
        "\"invert\":false},{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+\"},\"behavior\":"
        "\"Isolated\",\"invert\":false},{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[!\\\"#$%&'()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+|"
        "[^\\r\\n\\\\p{L}\\\\p{P}\\\\p{S}]?[\\\\p{L}\\\\p{M}]+| ?[\\\\p{P}\\\\p{S}]+[\\r\\n]*|\\\\s*[\\r\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
        "\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}]}";
    cJSON *spelt = sw_json_parse(deepseek, strlen(deepseek));
    assert_non_null(spelt);
    assert_true(sw_gguf_pre_name(spelt, false, false, name));
    assert_string_equal(name, "deepseek-v3");
    cJSON_Delete(spelt);
    cJSON *other = sw_json_parse("{\"type\":\"Whitespace\"}", 21);
    assert_false(sw_gguf_pre_name(other, false, false, name));
    cJSON_Delete(other);
}

static void what_has_no_words(void **state)
{
    (void)state;
    refused(LLAMA ",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2}}", BYTE_LEVEL, "length of the text");
    refused(LLAMA "}", "{\"model\":{\"type\":\"WordLevel\"}}", "BPE, Unigram and WordPiece only");
    refused(LLAMA "}", "{\"model\":{\"type\":\"BPE\"},\"pre_tokenizer\":{\"type\":\"Whitespace\"}}", "pre_tokenizer");
    const char *bytes = "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"vocab\":";
    const char *rest[][2] = {{"[]}}", "model.vocab"}, {"{\"a\":12},\"merges\":[]}}", "'a'"}, {"{\"a\":-1},\"merges\":[]}}", "'a'"},
                             {"{\"a\":0.5},\"merges\":[]}}", "'a'"}, {"{\"a\":0},\"merges\":[\"a\"]}}", "item 0"},
                             {"{\"a\":0},\"merges\":[[\"a\"]]}}", "item 0"}, {"{\"a\":0},\"merges\":{}}}", "model.merges"}};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) {
        char text[512];
        snprintf(text, sizeof text, "{%s%s", bytes, rest[i][0]);
        refused(LLAMA "}", text, rest[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(divisors), cmocka_unit_test(byte_level),
                                       cmocka_unit_test(sentencepiece), cmocka_unit_test(wordpiece), cmocka_unit_test(unigram),
                                       cmocka_unit_test(splitters), cmocka_unit_test(what_has_no_words)};
    return cmocka_run_group_tests(tests, sw_folder_make, sw_folder_remove);
}
