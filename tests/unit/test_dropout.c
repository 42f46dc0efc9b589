/* Dropout of the models themselves: in training only, where their configurations ask for it. That the places are those of
 * transformers was seen by dropping everything there, in both. */
#include "base/json.h"
#include "model/model.h"
#include "store/checkpoint.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static sw_device *device;
static sw_ctx ctx;
static const int32_t ids[] = {1, 5, 3, 9, 7, 4, 6, 8, 11}, written[] = {2, 9, 8, 7};

/* What the head says, in an array; *n values. */
static float *answer(sw_model *m, bool training, uint64_t seed, int64_t *n)
{
    int64_t length = SW_COUNT(ids), decoder = SW_COUNT(written);
    sw_batch b = {.n = length, .n_seqs = 1, .ids = ids, .lengths = &length};
    if (m->spec.encoder_layers)
        b = (sw_batch){.n = decoder, .n_seqs = 1, .ids = written, .lengths = &decoder, .source_ids = ids, .source_lengths = &length};
    sw_head head = sw_model_head(m);
    ctx.training = training;
    ctx.rng = (sw_rng){seed, 1, 0};
    sw_var *h = sw_model_forward(&ctx, m, &b, false);
    if (h && m->spec.task == SW_TASK_CLASSIFY)
        h = sw_model_pool(&ctx, m, &b, h);
    sw_var *y = !h ? NULL : m->spec.task == SW_TASK_CLASSIFY ? sw_model_score(&ctx, m, h) : sw_logits(&ctx, h, &head);
    if (!y)
        fail_msg("%s", sw_error());
    float *out = sw_malloc(sw_tensor_bytes(&y->t));
    assert_int_equal(sw_to_host(&ctx, y, out), 0);
    *n = sw_numel(&y->t);
    sw_ctx_reset(&ctx);
    return out;
}

static bool same(sw_model *m, const float *want, bool training, uint64_t seed)
{
    int64_t n;
    float *got = answer(m, training, seed, &n);
    bool equal = !memcmp(got, want, (size_t)n * sizeof *got);
    free(got);
    return equal;
}

static sw_model *load(const char *name)
{
    char *path = sw_strfmt("tests/golden/llm/%s", name);
    sw_model *m = sw_model_load(path, device, &(sw_load_options){.dtype = SW_F32});
    if (!m)
        fail_msg("%s", sw_error());
    free(path);
    return m;
}

static void every_place_drops_in_training_alone(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        unsigned places;
    } cases[] = {{"gpt2", 1u << SW_DROP_EMBEDDING | 1u << SW_DROP_MIXER | 1u << SW_DROP_FFN},
                 {"roberta_cls", 1u << SW_DROP_EMBEDDING | 1u << SW_DROP_MIXER | 1u << SW_DROP_FFN | 1u << SW_DROP_POOLED | 1u << SW_DROP_HEAD},
                 {"bert_tokens", 1u << SW_DROP_EMBEDDING | 1u << SW_DROP_MIXER | 1u << SW_DROP_FFN | 1u << SW_DROP_HEAD},
                 {"modernbert_cls", 1u << SW_DROP_EMBEDDING | 1u << SW_DROP_MIXER | 1u << SW_DROP_INNER | 1u << SW_DROP_HEAD},
                 {"mt5", 1u << SW_DROP_EMBEDDING | 1u << SW_DROP_MIXER | 1u << SW_DROP_FFN | 1u << SW_DROP_INNER | 1u << SW_DROP_FINAL},
                 {"bart", 1u << SW_DROP_EMBEDDING | 1u << SW_DROP_MIXER | 1u << SW_DROP_FFN | 1u << SW_DROP_INNER},
                 {"llama", 0}};
    for (size_t i = 0; i < SW_COUNT(cases); i++) {
        sw_model *m = load(cases[i].model);
        int64_t n;
        float *want = answer(m, false, 1, &n);
        assert_int_equal(m->spec.drops, cases[i].places);
        assert_true(same(m, want, true, 1)); /* these configurations say 0 */
        for (int k = 0; k < SW_DROPS; k++) {
            if (!(cases[i].places & 1u << k))
                continue;
            m->spec.dropout[k] = 0.5;
            float *dropped = answer(m, true, 1, &n);
            assert_true(same(m, want, false, 1));
            assert_false(same(m, want, true, 1));
            assert_true(same(m, dropped, true, 1));
            assert_false(same(m, dropped, true, 2));
            m->spec.dropout[k] = 0;
            free(dropped);
        }
        assert_int_equal(sw_spec_set_dropout(&m->spec, 0.25), cases[i].places != 0);
        for (int k = 0; k < SW_DROPS; k++)
            assert_true(m->spec.dropout[k] == (cases[i].places & 1u << k ? 0.25 : 0));
        free(want);
        sw_model_free(m);
    }
}

/* Before a Linear nothing but the noise is added: over many draws the mean is what is said without. */
static void the_mean_stays(void **state)
{
    (void)state;
    enum { DRAWS = 2000 };
    sw_model *m = load("bert_tokens");
    int64_t n;
    float *want = answer(m, false, 1, &n);
    double *sum = SW_NEW_ARRAY(double, (size_t)n), *squares = SW_NEW_ARRAY(double, (size_t)n);
    m->spec.dropout[SW_DROP_HEAD] = 0.3;
    for (uint64_t d = 0; d < DRAWS; d++) {
        float *got = answer(m, true, d, &n);
        for (int64_t i = 0; i < n; i++) {
            sum[i] += got[i];
            squares[i] += (double)got[i] * got[i];
        }
        free(got);
    }
    for (int64_t i = 0; i < n; i++) {
        double mean = sum[i] / DRAWS, spread = sqrt((squares[i] / DRAWS - mean * mean) / DRAWS);
        assert_true(spread > 1e-4);
        assert_true(fabs(mean - want[i]) < 5 * spread);
    }
    free(sum);
    free(squares);
    free(want);
    sw_model_free(m);
}

/* Whole layers: all or none of an update's records go past one, about as often as the configuration says. */
static void layers_are_gone_past(void **state)
{
    (void)state;
    enum { DRAWS = 400 };
    sw_model *m = load("opt_350m");
    int64_t n, layers = m->spec.layers;
    float *whole = answer(m, false, 1, &n);
    m->spec.layers = 0;
    float *none = answer(m, false, 1, &n);
    m->spec.layers = layers;
    m->spec.layer_drop = 0.3;
    assert_true(same(m, whole, false, 1));
    double as_whole = 0, as_none = 0, share = pow(0.7, (double)layers), other = pow(0.3, (double)layers);
    for (uint64_t d = 0; d < DRAWS; d++) {
        as_whole += same(m, whole, true, d);
        as_none += same(m, none, true, d);
    }
    assert_true(fabs(as_whole - share * DRAWS) < 5 * sqrt(share * (1 - share) * DRAWS));
    assert_true(fabs(as_none - other * DRAWS) < 5 * sqrt(other * (1 - other) * DRAWS));
    assert_false(sw_spec_set_dropout(&m->spec, 0) && m->spec.layer_drop > 0); /* --dropout 0 drops no layers */
    assert_true(same(m, whole, true, 1));
    free(whole);
    free(none);
    sw_model_free(m);
    m = load("bart");
    whole = answer(m, false, 1, &n);
    m->spec.encoder_layer_drop = 1 - 1e-9;
    float *decoder = answer(m, true, 1, &n);
    m->spec.encoder_layer_drop = 0;
    m->spec.layer_drop = 1 - 1e-9;
    assert_false(same(m, whole, true, 1));
    assert_false(same(m, decoder, true, 1));
    m->spec.encoder_layers = m->spec.layers; /* as if all were the encoder's: none is gone past */
    assert_false(sw_drops_layer(&(sw_ctx){.training = true}, &m->spec, 0, 1));
    free(whole);
    free(decoder);
    sw_model_free(m);
    cJSON *config = sw_json_load("tests/golden/llm/opt_350m/config.json");
    cJSON_DeleteItemFromObjectCaseSensitive(config, "layerdrop");
    cJSON_AddNumberToObject(config, "layerdrop", 1);
    sw_spec s;
    assert_int_not_equal(sw_spec_from_config(&s, config, "config.json"), 0);
    assert_non_null(strstr(sw_error(), "\"layerdrop\": 1 is not in [0, 1)"));
    cJSON_SetNumberValue(cJSON_GetObjectItem(config, "layerdrop"), 0.1);
    assert_int_equal(sw_spec_from_config(&s, config, "config.json"), 0);
    sw_buf unused = {0};
    sw_spec_unused_dropout(&s, config, &unused);
    assert_true(s.layer_drop == 0.1 && (!unused.n || !strstr(unused.at, "layerdrop")));
    sw_buf_free(&unused);
    sw_spec_free(&s);
    cJSON_Delete(config);
}

static void configurations_are_read_and_checked(void **state)
{
    (void)state;
    static const struct {
        const char *field, *value, *wrong, *unused;
        sw_drop_place place;
        double p;
    } cases[] = {{"resid_pdrop", "0.25", NULL, "", SW_DROP_MIXER, 0.25},     {"resid_pdrop", "1", "\"resid_pdrop\": 1 is not in [0, 1)", NULL, 0, 0},
                 {"embd_pdrop", "-0.1", "\"embd_pdrop\": -0.1 is not in", NULL, 0, 0}, {"embd_pdrop", "\"x\"", "\"embd_pdrop\"", NULL, 0, 0},
                 {"attn_pdrop", "0.1", NULL, "attn_pdrop 0.1", SW_DROP_MIXER, 0}, {"layerdrop", "0.2", NULL, "layerdrop 0.2", SW_DROP_MIXER, 0},
                 {"summary_first_dropout", "0.2", NULL, "", SW_DROP_MIXER, 0}};
    for (size_t i = 0; i < SW_COUNT(cases); i++) {
        cJSON *config = sw_json_load("tests/golden/llm/gpt2/config.json");
        assert_non_null(config);
        cJSON_DeleteItemFromObjectCaseSensitive(config, cases[i].field);
        cJSON_AddItemToObject(config, cases[i].field, sw_json_parse(cases[i].value, strlen(cases[i].value)));
        sw_spec s;
        int rc = sw_spec_from_config(&s, config, "config.json");
        if (cases[i].wrong) {
            assert_int_not_equal(rc, 0);
            assert_non_null(strstr(sw_error(), cases[i].wrong));
        } else {
            sw_buf unused = {0};
            assert_int_equal(rc, 0);
            assert_true(s.dropout[cases[i].place] == cases[i].p);
            sw_spec_unused_dropout(&s, config, &unused);
            assert_string_equal(unused.n ? unused.at : "", cases[i].unused);
            sw_buf_free(&unused);
            sw_spec_free(&s);
        }
        cJSON_Delete(config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_place_drops_in_training_alone), cmocka_unit_test(the_mean_stays),
                                       cmocka_unit_test(layers_are_gone_past),
                                       cmocka_unit_test(configurations_are_read_and_checked)};
    device = sw_device_open("cpu");
    if (!device || sw_ctx_init(&ctx, device, SW_F32))
        return 1;
    int rc = cmocka_run_group_tests_name("dropout", tests, NULL, NULL);
    sw_ctx_free(&ctx);
    device->close(device);
    return rc;
}
