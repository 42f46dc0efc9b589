/* Folders to GGUF and back, over the checkpoints under tests/golden/llm and over configurations of every family that GGUF knows
 * (tests/unit/gguf), with weights made up: the same configuration and the same tensors again. Others are refused, and say why. */
#include "model/gguf_export.h"
#include "model/gguf_import.h"

#include "base/json.h"
#include "model/head.h"
#include "model/model.h"
#include "store/made.h"
#include "tests/unit/folder.h"
#include "tests/unit/logits.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *rows_of(const sw_entry *e)
{
    void *out = sw_malloc(sw_tensor_bytes(&e->t) + 1);
    if (sw_entry_rows(e, 0, sw_entry_row_count(e), out))
        fail_msg("%s: %s", e->name, sw_error());
    return out;
}

/* The folder as a GGUF file of its own types at `path`; -1 with the reason. */
static int write_file(const sw_checkpoint *c, const sw_spec *s, const char *path)
{
    sw_gguf_writer *w = sw_gguf_writer_new();
    sw_entries tensors = {0};
    sw_arena arena = {0};
    int rc = sw_gguf_export(w, c, s, &tensors, &arena);
    for (size_t i = 0; i < tensors.n && !rc; i++)
        sw_gguf_declare(w, tensors.at[i].name, tensors.at[i].t.dtype, tensors.at[i].t.ndim, tensors.at[i].t.shape);
    rc = rc ? rc : sw_gguf_writer_open(w, path);
    for (size_t i = 0; i < tensors.n && !rc; i++) {
        void *bytes = rows_of(&tensors.at[i]);
        rc = sw_gguf_write(w, bytes, sw_tensor_bytes(&tensors.at[i].t));
        free(bytes);
    }
    if (rc)
        sw_gguf_writer_abort(w);
    else
        rc = sw_gguf_writer_commit(w);
    free(tensors.at);
    sw_arena_free(&arena);
    return rc;
}

/* Values that went through a sum or an exponential come back as near as single precision can say. */
static void same_values(const sw_entry *a, const sw_entry *b, const char *what)
{
    if (a->t.ndim != b->t.ndim || memcmp(a->t.shape, b->t.shape, (size_t)a->t.ndim * sizeof *a->t.shape))
        fail_msg("%s: %s has another shape", what, a->name);
    void *x = rows_of(a), *y = rows_of(b);
    bool exact = !strstr(a->name, "norm") && !strstr(a->name, "A_log") && !sw_is_integer(a->t.dtype); /* 64 bits become 32 */
    assert_int_equal(sw_is_integer(a->t.dtype), sw_is_integer(b->t.dtype));
    if (exact && (a->t.dtype != b->t.dtype || memcmp(x, y, sw_tensor_bytes(&a->t))))
        fail_msg("%s: %s has other bytes", what, a->name);
    for (int64_t i = 0; i < sw_numel(&a->t); i++) {
        double v = sw_scalar_get(x, a->t.dtype, i), u = sw_scalar_get(y, b->t.dtype, i);
        if (!(fabs(v - u) <= 1.5e-7 * fmax(1, fabs(v))))
            fail_msg("%s: %s: value %lld is %g, was %g", what, a->name, (long long)i, u, v);
    }
    free(x);
    free(y);
}

/* A head that is taken with rows or columns of length one lies in the file so: in the same directions. */
static void same_directions(const sw_entry *a, const sw_entry *b, bool columns, const char *what)
{
    int64_t rows = a->t.shape[0], width = a->t.shape[1], n = columns ? width : rows, each = columns ? rows : width;
    float *x = rows_of(a), *y = rows_of(b);
    assert_int_equal(b->t.dtype, SW_F32);
    for (int64_t i = 0; i < n; i++) {
        double own = 0, length = 0, both = 0;
        for (int64_t k = 0; k < each; k++) {
            int64_t at = columns ? k * width + i : i * width + k;
            own += (double)x[at] * x[at];
            length += (double)y[at] * y[at];
            both += (double)x[at] * y[at];
        }
        if (fabs(length - 1) > 1e-5 || fabs(both - sqrt(own)) > 1e-5 * sqrt(own))
            fail_msg("%s: %s: %s %lld has the length %g", what, a->name, columns ? "column" : "row", (long long)i, sqrt(length));
    }
    free(x);
    free(y);
}

/* What the model reads of the folder and what it reads of the file, in the same order under the names of each. Rows that no
 * position reads do not come back. */
static void same_tensors(const sw_checkpoint *c, const sw_spec *s, const sw_checkpoint *g, const sw_spec *t, const char *folder)
{
    char head[SW_NAME_MAX];
    bool unit = s->head_product;
    sw_file_name(s, -1, "lm_head.weight", head);
    sw_entries a = {0}, b = {0};
    sw_arena arena = {0};
    char places[SW_NAME_MAX];
    sw_file_name(s, -1, "model.embed_positions.weight", places);
    assert_int_equal(sw_model_tensors(s, &a, &arena), 0);
    assert_int_equal(sw_model_tensors(t, &b, &arena), 0);
    if (a.n != b.n)
        fail_msg("%s: has %zu tensors, was %zu", folder, b.n, a.n);
    for (size_t i = 0; i < a.n; i++) {
        const sw_entry *e = sw_file_find(c, a.at[i].name), *f = sw_file_find(g, b.at[i].name);
        if (!e)
            continue; /* it is there under another name: compared below where both have that, which the model's check found */
        if (!f)
            fail_msg("%s: %s is not there", folder, a.at[i].name);
        if (unit && !strcmp(a.at[i].name, head)) {
            same_directions(e, f, s->head_product == sw_head_unit_columns, folder);
            continue;
        }
        if (strcmp(a.at[i].name, places) || !s->position_offset) {
            same_values(e, f, folder);
            continue;
        }
        size_t row = (size_t)e->t.shape[1] * sizeof(float);
        void *x = rows_of(e), *y = rows_of(f);
        assert_int_equal(f->t.shape[0], e->t.shape[0] - s->position_offset);
        assert_memory_equal((char *)x + (size_t)s->position_offset * row, y, (size_t)f->t.shape[0] * row);
        free(x);
        free(y);
    }
    for (size_t i = 0; i < sw_checkpoint_count(c); i++) {
        const sw_entry *e = sw_checkpoint_at(c, i), *f = sw_checkpoint_find(g, e->name);
        if (f && strcmp(e->name, places) && !(unit && !strcmp(e->name, head)))
            same_values(e, f, folder);
    }
    free(a.at);
    free(b.at);
    sw_arena_free(&arena);
}

/* 1: came back the same; 0: refused, with the reason in sw_error. */
static int round_trip(const char *folder)
{
    sw_checkpoint *c = sw_checkpoint_open(folder);
    assert_non_null(c);
    sw_spec s, t;
    if (sw_spec_from_config(&s, c->config, folder))
        fail_msg("%s", sw_error());
    sw_model_choose_names(c, &s);
    char *path = in("m.gguf");
    if (write_file(c, &s, path)) {
        sw_spec_free(&s);
        sw_checkpoint_close(c);
        return 0;
    }
    sw_checkpoint *g = sw_checkpoint_open(path);
    if (!g || sw_gguf_adopt(g, &t))
        fail_msg("%s: %s", folder, sw_error());
    s.tied = sw_model_ties(c, &s);
    t.tied = sw_model_ties(g, &t);
    const sw_gguf_kind *kind = sw_gguf_kind_of(g->gguf);
    if (sw_gguf_same(kind, &s, &t) || sw_gguf_same(kind, &t, &s) || sw_model_check(g, &t))
        fail_msg("%s: %s", folder, sw_error());
    const cJSON *factor = sw_json_get(c->config, "key_multiplier");
    bool folded = (kind->flags & SW_GGUF_FOLDED) && factor && factor->valuedouble != 1; /* the weights have taken it in */
    if (!folded)
        same_tensors(c, &s, g, &t, folder);
    sw_spec_free(&s);
    sw_spec_free(&t);
    sw_checkpoint_close(g);
    sw_checkpoint_close(c);
    return 1;
}

static const char golden[] = "tests/golden/llm";

static void every_family(void **state)
{
    (void)state;
    DIR *d = opendir(golden);
    assert_non_null(d);
    int same = 0, refused = 0;
    for (struct dirent *e; (e = readdir(d));) {
        char folder[512];
        snprintf(folder, sizeof folder, "%s/%s/config.json", golden, e->d_name);
        if (!sw_is_file(folder))
            continue;
        *strrchr(folder, '/') = 0;
        if (round_trip(folder))
            same++;
        else if (strstr(sw_error(), "has no place for") || strstr(sw_error(), "are not written as GGUF") || strstr(sw_error(), "has no name in GGUF"))
            refused++;
        else
            fail_msg("%s: %s", folder, sw_error());
    }
    closedir(d);
    printf("%d folders came back the same, %d were refused\n", same, refused);
    assert_true(same >= 22); /* of those that are here: none becomes one that is refused unnoticed */
    assert_true(refused > 0);
}

/* A folder with this configuration and values that differ everywhere; -1 where the configuration is not known here. */
static int make_folder(const char *folder, const cJSON *config, const char *name)
{
    sw_spec s;
    if (sw_spec_from_config(&s, config, name))
        return -1;
    sw_entries list = {0};
    sw_arena arena = {0};
    char path[512];
    assert_int_equal(sw_model_tensors(&s, &list, &arena), 0);
    uint32_t state = 1;
    for (size_t i = 0; i < list.n; i++) {
        sw_tensor *t = &list.at[i].t;
        if (sw_is_integer(t->dtype)) { /* tables by token, as the hub has them: different experts, below any count */
            int64_t width = t->shape[1], *ids = t->data = sw_arena_alloc(&arena, (size_t)sw_numel(t) * sizeof *ids);
            t->dtype = SW_I64;
            for (int64_t k = 0; k < sw_numel(t); k++)
                ids[k] = (k + k / width) % width;
            continue;
        }
        float *v = t->data = sw_arena_alloc(&arena, sw_tensor_bytes(t) + 4);
        for (int64_t k = 0; k < sw_numel(t); k++) {
            state = state * 1664525 + 1013904223;
            v[k] = (float)(state >> 8) * 0x1p-24f - 0.5f;
        }
    }
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    if (sw_st_save(path, list.at, list.n, NULL))
        fail_msg("%s: %s", name, sw_error());
    sw_buf text = {0};
    sw_json_print(&text, config);
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(sw_write_file(path, text.at, text.n), 0);
    sw_buf_free(&text);
    free(list.at);
    sw_arena_free(&arena);
    sw_spec_free(&s);
    return 0;
}

/* The file is byte for byte what it was (tests/unit/gguf/digests.txt: a name and a digest a line): a change is noticed. */
static void check_digest(const sw_buf *known, const char *name)
{
    sw_digest d;
    char line[128];
    assert_int_equal(sw_digest_file(in("m.gguf"), &d), 0);
    snprintf(line, sizeof line, "\n%s %s\n", name, d.hex);
    if (!strstr(known->at, line))
        fail_msg("the file of %s has changed; where that is right, digests.txt has the line '%s %s'", name, name, d.hex);
}

static void every_kind(void **state)
{
    (void)state;
    sw_buf text = {0}, digests = {0};
    sw_buf_putc(&digests, '\n');
    assert_int_equal(sw_read_file("tests/unit/gguf/digests.txt", &digests), 0);
    sw_buf_putc(&digests, 0);
    bool seen[256] = {0};
    int same = 0;
    assert_int_equal(sw_read_file("tests/unit/gguf/configs.jsonl", &text), 0);
    assert_int_equal(sw_mkdirs(in("made")), 0);
    char folder[300];
    snprintf(folder, sizeof folder, "%s", in("made"));
    for (char *line = text.at, *end; line < text.at + text.n; line = end + 1) {
        end = memchr(line, '\n', text.n - (size_t)(line - text.at));
        assert_non_null(end);
        cJSON *o = sw_json_parse(line, (size_t)(end - line));
        assert_non_null(o);
        const char *name = sw_json_get(o, "name")->valuestring;
        const cJSON *config = sw_json_get(o, "config");
        if (!make_folder(folder, config, name)) {
            if (round_trip(folder)) {
                sw_spec s;
                const sw_gguf_kind *k;
                check_digest(&digests, name);
                assert_int_equal(sw_spec_from_config(&s, config, name), 0);
                const sw_gguf_kind *mine = sw_gguf_kind_for(&s, config);
                for (size_t i = 0; (k = sw_gguf_kind_at(i)); i++)
                    seen[i] |= k == mine;
                sw_spec_free(&s);
                same++;
            } else if (!strstr(sw_error(), "has no place for") && !strstr(sw_error(), "are not written as GGUF") && !strstr(sw_error(), "has no name in GGUF")) {
                fail_msg("%s: %s", name, sw_error());
            }
        }
        cJSON_Delete(o);
    }
    sw_buf_free(&text);
    sw_buf_free(&digests);
    print_message("%d configurations came back the same\n", same);
    const sw_gguf_kind *k;
    for (size_t i = 0; (k = sw_gguf_kind_at(i)); i++)
        if (!seen[i])
            fail_msg("no configuration of %s (%s) has come back the same", k->arch, k->family);
}

/* A copy of a case with another word in its configuration. */
static const char *changed(const char *name, const char *from, const char *to)
{
    char source[512];
    snprintf(source, sizeof source, "%s/%s", golden, name);
    sw_buf text = {0}, out = {0};
    char *config = sw_path_join(source, "config.json"), *weights = sw_path_join(source, "model.safetensors");
    assert_int_equal(sw_read_file(config, &text), 0);
    sw_buf_putc(&text, 0);
    char *at = strstr(text.at, from);
    assert_non_null(at);
    sw_buf_printf(&out, "%.*s%s%s", (int)(at - text.at), text.at, to, at + strlen(from));
    assert_int_equal(sw_mkdirs(in("changed")), 0);
    assert_int_equal(sw_write_file(in("changed/config.json"), out.at, out.n), 0);
    sw_buf_clear(&text);
    assert_int_equal(sw_read_file(weights, &text), 0);
    assert_int_equal(sw_write_file(in("changed/model.safetensors"), text.at, text.n), 0);
    sw_buf_free(&text);
    sw_buf_free(&out);
    free(config);
    free(weights);
    static char path[300];
    snprintf(path, sizeof path, "%s", in("changed"));
    return path;
}

static void refuses(const char *folder, const char *why)
{
    if (round_trip(folder) || !strstr(sw_error(), why))
        fail_msg("'%s' does not say '%s'", sw_error(), why);
}

static void what_has_no_words(void **state)
{
    (void)state;
    refuses(changed("llama", "\"silu\"", "\"gelu\""), "GGUF's llama has no place for another activation than silu");
    refuses("tests/golden/llm/llama_dynamic", "depends on the length of the text");
    refuses("tests/golden/llm/llama_reward", "classification");
    refuses(changed("llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"), "model.layers.2.self_attn.q_proj.weight");
    refuses(changed("llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"), "model.layers.1.self_attn.q_proj.weight is unexpected");
    assert_true(round_trip(changed("llama", "\"silu\"", "\"swish\"")));
}

/* What JSON says as metadata; null leaves it out. Numbers with a point are fractions. */
static void put_json(sw_gguf_writer *w, const char *key, const char *text)
{
    cJSON *v = sw_json_parse(text, strlen(text));
    int32_t whole[16];
    float fractions[16];
    int n = 0;
    assert_non_null(v);
    if (cJSON_IsArray(v))
        for (const cJSON *item = v->child; item; item = item->next, n++) {
            whole[n] = (int32_t)item->valuedouble;
            fractions[n] = (float)item->valuedouble;
        }
    if (cJSON_IsArray(v))
        sw_gguf_put_array(w, key, strchr(text, '.') ? SW_GGUF_F32 : SW_GGUF_I32, (uint64_t)n, strchr(text, '.') ? (void *)fractions : whole);
    else if (cJSON_IsBool(v))
        sw_gguf_put_bool(w, key, cJSON_IsTrue(v));
    else if (cJSON_IsNumber(v) && strchr(text, '.'))
        sw_gguf_put_f32(w, key, (float)v->valuedouble);
    else if (cJSON_IsNumber(v))
        sw_gguf_put_u32(w, key, (uint32_t)v->valuedouble);
    cJSON_Delete(v);
}

/* The file with another value under a key, as bad.gguf, and with one more tensor of a number, unless NULL. */
static void write_lie(const sw_gguf *good, const char *key, const char *value, const char *more)
{
    const float zero = 0;
    sw_gguf_writer *w = sw_gguf_writer_new();
    for (size_t k = 0; k < sw_gguf_value_count(good); k++)
        if (strcmp(sw_gguf_value_at(good, k)->key, key))
            sw_gguf_put_copy(w, sw_gguf_value_at(good, k));
    put_json(w, key, value);
    for (size_t k = 0; k < sw_gguf_tensor_count(good); k++) {
        const sw_entry *e = sw_gguf_tensor_at(good, k);
        sw_gguf_declare(w, e->name, e->t.dtype, e->t.ndim, e->t.shape);
    }
    if (more)
        sw_gguf_declare(w, more, SW_F32, 1, (int64_t[]){1});
    assert_int_equal(sw_gguf_writer_open(w, in("bad.gguf")), 0);
    for (size_t k = 0; k < sw_gguf_tensor_count(good); k++)
        assert_int_equal(sw_gguf_write(w, sw_gguf_tensor_at(good, k)->t.data, sw_tensor_bytes(&sw_gguf_tensor_at(good, k)->t)), 0);
    assert_int_equal(more ? sw_gguf_write(w, &zero, sizeof zero) : 0, 0);
    assert_int_equal(sw_gguf_writer_commit(w), 0);
}

/* What is said of bad.gguf, "" where it is nothing; how many layers it has. */
static const char *said(int64_t *layers)
{
    sw_spec t;
    sw_checkpoint *b = sw_checkpoint_open(in("bad.gguf"));
    assert_non_null(b);
    int rc = sw_gguf_adopt(b, &t);
    if (!rc) {
        rc = sw_model_check(b, &t);
        *layers = t.layers;
        sw_spec_free(&t);
    }
    sw_checkpoint_close(b);
    return rc ? sw_error() : "";
}

/* A value, and what is said of it; NULL: nothing. */
typedef struct lie {
    const char *key, *value, *why;
} lie;

static void check_lies(const char *folder, const lie *bad, size_t n)
{
    sw_checkpoint *c = sw_checkpoint_open(folder);
    sw_spec s;
    int64_t layers;
    assert_non_null(c);
    assert_int_equal(sw_spec_from_config(&s, c->config, folder), 0);
    assert_int_equal(write_file(c, &s, in("good.gguf")), 0);
    sw_gguf *good = sw_gguf_open(in("good.gguf"));
    assert_non_null(good);
    for (size_t i = 0; i < n; i++) {
        write_lie(good, bad[i].key, bad[i].value, NULL);
        const char *what = said(&layers);
        if (bad[i].why ? !*what || !strstr(what, bad[i].why) : *what)
            fail_msg("%s %s: '%s' does not say '%s'", bad[i].key, bad[i].value, what, bad[i].why ? bad[i].why : "nothing");
    }
    sw_gguf_close(good);
    sw_spec_free(&s);
    sw_checkpoint_close(c);
}

/* Files whose metadata lies: an error, never a crash or another model. */
static void bad_files(void **state)
{
    (void)state;
    static const lie bad[] = {
        {"llama.attention.head_count", "3", "num_attention_heads"}, {"llama.attention.head_count", "8", "self_attn.q_proj"},
        {"llama.attention.head_count", "0", "num_attention_heads"}, {"llama.attention.head_count_kv", "1000", "num_attention_heads"},
        {"llama.attention.key_length", "7", "partial_rotary_factor"}, {"llama.attention.key_length", "1073741824", ""},
        {"llama.embedding_length", "524288", "embed_tokens"}, {"llama.block_count", "0", "num_hidden_layers"},
        {"llama.block_count", "3", "model.layers.2"}, {"llama.block_count", "100000", "num_hidden_layers"},
        {"llama.feed_forward_length", "8", "mlp.gate_proj"}, {"llama.rope.dimension_count", "1048576", "partial"}};
    check_lies("tests/golden/llm/llama", bad, SW_COUNT(bad));
}

static void unknown_architecture(void **state)
{
    (void)state;
    sw_gguf_writer *w = sw_gguf_writer_new();
    sw_gguf_put_str(w, "general.architecture", "gema2", 5);
    assert_int_equal(sw_gguf_writer_open(w, in("unknown.gguf")), 0);
    assert_int_equal(sw_gguf_writer_commit(w), 0);
    sw_checkpoint *c = sw_checkpoint_open(in("unknown.gguf"));
    sw_spec s;
    assert_non_null(c);
    assert_int_equal(sw_gguf_adopt(c, &s), -1);
    assert_non_null(strstr(sw_error(), "unknown.gguf"));
    assert_non_null(strstr(sw_error(), "'gema2' is not known here; the nearest that is is gemma2"));
    sw_checkpoint_close(c);
}

/* ---- DeepSeek 4: what its files say in ways of their own, and what llama.cpp runs of it */

static const char deepseek4[] =
    "{\"architectures\":[\"DeepseekV4ForCausalLM\"],\"vocab_size\":40,\"hidden_size\":16,\"num_hidden_layers\":4,\"num_attention_heads\":2,"
    "\"head_dim\":8,\"partial_rotary_factor\":0.5,\"q_lora_rank\":6,\"o_groups\":2,\"o_lora_rank\":5,\"index_n_heads\":2,"
    "\"index_head_dim\":64,\"index_topk\":3,\"sliding_window\":5,\"hc_mult\":4,\"hc_sinkhorn_iters\":3,\"hc_eps\":0.001,"
    "\"moe_intermediate_size\":6,\"n_routed_experts\":4,\"num_experts_per_tok\":2,\"swiglu_limit\":0.5,\"max_position_embeddings\":256,"
    "\"rope_theta\":1000,\"compress_rope_theta\":3000,\"compress_ratios\":[0,4,128,4,0],\"num_hash_layers\":2,"
    "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":64}}";

/* A folder of it, where a field may have another value. */
static const char *deepseek4_folder(const char *field, const char *value)
{
    static char folder[300];
    cJSON *config = sw_json_parse(deepseek4, strlen(deepseek4));
    assert_non_null(config);
    snprintf(folder, sizeof folder, "%s", in("deepseek4"));
    assert_int_equal(sw_mkdirs(folder), 0);
    if (field) {
        cJSON_DeleteItemFromObject(config, field);
        cJSON_AddItemToObject(config, field, sw_json_parse(value, strlen(value)));
    }
    if (make_folder(folder, config, "deepseek4"))
        fail_msg("%s", sw_error());
    cJSON_Delete(config);
    return folder;
}

static void deepseek4_sizes(void **state)
{
    (void)state;
    static const lie lies[] = {
        {"hc_mult", "2", "no place for 2 streams: its readers have 4"},
        {"compress_rate_csa", "2", "no place for rows of 2 tokens in layer 1"},
        {"compress_rate_hca", "64", "no place for rows of 64 tokens in layer 2"},
        {"index_head_dim", "32", "an indexer's heads of 32 values: its readers run multiples of 64"},
        {"scoring_func", "\"sigmoid\"", "no place for scores of experts but sqrtsoftplus"},
        {"mlp_layer_types", "[\"moe\",\"hash_moe\",\"moe\",\"moe\"]", "no place for experts by token in layer 1: such layers are the first"},
        {"tie_word_embeddings", "true", "no place for a head that is the embedding"},
        {"mlp_bias", "true", "no place for biases of an expert for every token"},
        {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4,\"attention_factor\":1.5}", "no place for this second rotation"},
        {"rope_scaling", "{\"main\":{\"rope_type\":\"yarn\",\"factor\":4,\"partial_rotary_factor\":0.5},\"compress\":{\"partial_rotary_factor\":0.5}}",
         "no place for this rotary scaling"},
        {"rope_scaling", "null", NULL}, {"num_hash_layers", "0", NULL}, {"compress_ratios", "[0,0,0,0]", NULL}, {"head_dim", "12", NULL},
        {"partial_rotary_factor", "1", NULL}, {"swiglu_limit", "7", NULL}, {"routed_scaling_factor", "1", NULL}};
    for (size_t i = 0; i < SW_COUNT(lies); i++) {
        const char *folder = deepseek4_folder(lies[i].key, lies[i].value);
        if (lies[i].why)
            refuses(folder, lies[i].why);
        else if (!round_trip(folder))
            fail_msg("%s %s: %s", lies[i].key, lies[i].value, sw_error());
    }
}

static void deepseek4_files(void **state)
{
    (void)state;
    static const lie lies[] = {
        {"deepseek4.expert_gating_func", "2", "deepseek4.expert_gating_func: 2: 4 (sqrtsoftplus) is needed"},
        {"deepseek4.expert_weights_norm", "false", "weights that do not sum to one"},
        {"deepseek4.hyper_connection.count", "null", "deepseek4.hyper_connection.count is missing"},
        {"deepseek4.hyper_connection.count", "3", "hc_head_fn is [4, 64], the configuration asks for [3, 48]"}, {"deepseek4.hyper_connection.count", "100000", "hc_mult"},
        {"deepseek4.attention.compress_ratios", "[0,4]", "a list of 4 numbers is needed, one a layer"},
        {"deepseek4.attention.compress_ratios", "[0,4,128,5]", "layer 3 of 4 is none of 0, 4 and 128"},
        {"deepseek4.attention.compress_ratios", "[0,128,128,4]", "compressor"},
        {"deepseek4.attention.compress_ratios", "4", "a list of 4 numbers is needed"},
        {"deepseek4.swiglu_clamp_exp", "[0.5,0.5,0.25,0.5]", "0.25 beside 0.5: limits that differ"},
        {"deepseek4.swiglu_clamp_shexp", "[0.5,0.5,0.5,0.75]", "deepseek4.swiglu_clamp_shexp: 0.75 beside 0.5"},
        {"deepseek4.swiglu_clamp_exp", "[0.0,0.0,0.0,0.0]", "swiglu_limit"}, {"deepseek4.hash_layer_count", "1", "ffn.gate.bias"},
        {"deepseek4.hash_layer_count", "3", "tid2eid"}, {"deepseek4.expert_count", "1", "num_experts"},
        {"deepseek4.expert_shared_count", "2", NULL}, /* it says what the tensors do not */
        {"deepseek4.swiglu_clamp_exp", "0.5", NULL}, {"deepseek4.swiglu_clamp_shexp", "0.5", NULL},
        {"deepseek4.attention.compress_ratios", "[0,4,128,4,0]", NULL}, {"deepseek4.rope.dimension_count", "5", "no even number"}};
    check_lies(deepseek4_folder(NULL, NULL), lies, SW_COUNT(lies));
    int64_t layers;
    sw_gguf *good = sw_gguf_open(in("good.gguf"));
    assert_non_null(good);
    static const char guesses[] = "deepseek4.nextn_predict_layers"; /* layers that guess further tokens, which files may count and have not */
    write_lie(good, guesses, "1", NULL);
    assert_string_equal(said(&layers), "");
    assert_int_equal(layers, 4);
    write_lie(good, guesses, "1", "blk.3.nextn.eh_proj.weight");
    assert_string_equal(said(&layers), "");
    assert_int_equal(layers, 3);
    sw_gguf_close(good);
}

static void logits_from(const char *path, float *to, int64_t n)
{
    sw_device *d = sw_device_open("cpu");
    sw_model *m = sw_model_load(path, d, &(sw_load_options){.dtype = SW_F32});
    sw_ctx c = {0};
    int32_t ids[256];
    if (!m)
        fail_msg("%s", sw_error());
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * i * 5 + i * 7 + 11) % m->spec.vocab);
    ok(sw_ctx_init(&c, d, SW_F32));
    logits_of(&c, m, &(sw_batch){.n = n, .n_seqs = 1, .ids = ids, .lengths = &n}, to);
    sw_ctx_free(&c);
    sw_model_free(m);
    d->close(d);
}

/* Long enough for a row of 128 tokens, and for more rows of 4 than the indexer keeps. */
static void deepseek4_logits(void **state)
{
    (void)state;
    enum { TOKENS = 140, VOCAB = 40 };
    static float want[TOKENS * VOCAB], got[TOKENS * VOCAB];
    const char *folder = deepseek4_folder(NULL, NULL);
    assert_int_equal(round_trip(folder), 1);
    logits_from(folder, want, TOKENS);
    logits_from(in("m.gguf"), got, TOKENS);
    if (!(apart(want, got, TOKENS * VOCAB) < 1e-5))
        fail_msg("logits of the file are %g apart", apart(want, got, TOKENS * VOCAB));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_family), cmocka_unit_test(every_kind), cmocka_unit_test(what_has_no_words), cmocka_unit_test(bad_files),
                                       cmocka_unit_test(unknown_architecture), cmocka_unit_test(deepseek4_sizes), cmocka_unit_test(deepseek4_files),
                                       cmocka_unit_test(deepseek4_logits)};
    return cmocka_run_group_tests(tests, sw_folder_make, sw_folder_remove);
}
