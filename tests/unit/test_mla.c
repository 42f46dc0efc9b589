/* Latent attention: what decoding computes in the space of the latents is what expanding them gives, with an adapter on
 * the expanding matrix too, and where an indexer chooses what is seen. */
#include "base/json.h"
#include "base/memory.h"
#include "model/cache.h"
#include "model/model.h"
#include "tests/unit/adapters.h"
#include "tests/unit/logits.h"

#include <stdlib.h>
#include <string.h>

enum { TOKENS = 23 };

/* The logits of a text, all at once, without a cache. */
static float *at_once(sw_model *m, const int32_t *ids)
{
    sw_ctx c = {0};
    float *y = SW_NEW_ARRAY(float, (size_t)(TOKENS * m->spec.vocab));
    ok(sw_ctx_init(&c, m->device, SW_F32));
    logits_of(&c, m, &(sw_batch){.n = TOKENS, .n_seqs = 1, .ids = ids, .lengths = &(int64_t){TOKENS}}, y);
    sw_ctx_free(&c);
    return y;
}

/* With a cache: `first` tokens, then one after the other, in the second of two slots. The first slot has another text, of
 * which `beside` tokens come along now and then. */
static float *in_steps(sw_model *m, const int32_t *ids, int64_t first, int64_t beside)
{
    sw_ctx c = {0};
    sw_cache cache;
    int64_t v = m->spec.vocab;
    float *y = SW_NEW_ARRAY(float, (size_t)((TOKENS + 7) * v)), *all = SW_NEW_ARRAY(float, (size_t)(3 * v));
    ok(sw_ctx_init(&c, m->device, SW_F32) || sw_cache_init(&cache, &c, m, 2));
    logits_of(&c, m, &(sw_batch){.n = 7, .n_seqs = 1, .ids = ids + 3, .lengths = &(int64_t){7}, .cache = &cache, .slots = &(int64_t){0}}, y);
    logits_of(&c, m, &(sw_batch){.n = first, .n_seqs = 1, .ids = ids, .lengths = &first, .cache = &cache, .slots = &(int64_t){1}}, y);
    for (int64_t i = first; i < TOKENS; i++) {
        int32_t next[3] = {ids[TOKENS - 1 - i], ids[i], ids[i]};
        int64_t with = i % 2 * beside;
        logits_of(&c, m, &(sw_batch){.n = 1 + with, .n_seqs = 1 + (with > 0), .ids = next + 2 - with, .cache = &cache,
                               .lengths = with ? (int64_t[]){with, 1} : (int64_t[]){1}, .slots = with ? (int64_t[]){0, 1} : (int64_t[]){1}}, all);
        memcpy(y + i * v, all + with * v, (size_t)v * sizeof *y);
    }
    sw_cache_free(&cache, m);
    sw_ctx_free(&c);
    free(all);
    return y;
}

static sw_model *opened(const char *folder, sw_device *d)
{
    sw_model *m = d ? sw_model_load(folder, d, &(sw_load_options){.dtype = SW_F32}) : NULL;
    if (!m)
        fail_msg("%s", sw_error());
    return m;
}

/* An adapter on kv_b_proj that does something. */
static sw_tuned *hang_on(sw_model *m, sw_modules *modules)
{
    static const char text[] = "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":9,\"target_modules\":[\"kv_b_proj\"]}";
    cJSON *config = sw_json_parse(text, strlen(text));
    *modules = sw_model_modules(m);
    sw_tuned *t = sw_tuner_attach(modules, config, 1);
    if (!t)
        fail_msg("%s", sw_error());
    for (size_t i = 0; i < t->params.n; i++) {
        sw_tensor *w = &t->params.at[i]->v.t;
        assert_int_equal(w->dtype, SW_F32);
        for (int64_t k = 0; k < sw_numel(w); k++)
            ((float *)w->data)[k] = 0.3f * sinf((float)(k * 7 + (int64_t)i));
    }
    cJSON_Delete(config);
    return t;
}

static void hang_louder_on(const sw_modules *modules)
{
    for (size_t i = 0; i < modules->n; i++)
        if (strstr(modules->at[i].path, "kv_b_proj"))
            sw_linear_attach(modules->at[i].linear, new_louder(false));
}

static void forms_agree(const char *folder, bool chooses)
{
    sw_device *d = sw_device_open("cpu");
    sw_model *m = opened(folder, d);
    sw_modules modules;
    sw_tuned *t = NULL;
    int32_t ids[TOKENS];
    int64_t n = TOKENS * m->spec.vocab;
    float *before = NULL;
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (int32_t)((i * 37 + 11) % m->spec.vocab);
    for (int adapters = 0; adapters < 3; adapters++) {
        if (adapters == 1)
            t = hang_on(m, &modules);
        if (adapters == 2)
            hang_louder_on(&modules);
        float *whole = chooses ? in_steps(m, ids, 4, 2) : at_once(m, ids); /* which of equal scores win depends on how many there are */
        if (adapters)
            assert_true(apart(before, whole, n) > 1e-3);
        for (int64_t first = chooses ? 4 : 1; first < (chooses ? 5 : TOKENS); first += 9) {
            float *steps = in_steps(m, ids, first, 1);
            double far = apart(whole, steps, n);
            if (!(far < 2e-5))
                fail_msg("%s, adapters: %d, %d tokens first: decoding differs by %g", folder, adapters, (int)first, far);
            free(steps);
        }
        free(before);
        before = whole;
    }
    free(before);
    free(modules.at);
    sw_tuned_free(t);
    sw_model_free(m);
    d->close(d);
}

static void latent(void **state)
{
    (void)state;
    forms_agree("tests/golden/llm/deepseek_v2", false);
    forms_agree("tests/golden/llm/minicpm3", false);
}

/* Rows of one token read what was chosen alone; beside a longer one they read all and leave out the rest. */
static void latent_chosen(void **state)
{
    (void)state;
    forms_agree("tests/golden/llm/glm_moe_dsa", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(latent), cmocka_unit_test(latent_chosen)};
    return cmocka_run_group_tests_name("mla", tests, NULL, NULL);
}
