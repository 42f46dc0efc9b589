/* What a checkpoint says about answers, in generation_config.json. */
#include "infer.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* Settings that options are for: the file's are not taken by themselves, so that answers are greedy unless somebody asks for
 * others. `drawn`: matters where tokens are drawn. */
static const struct {
    const char *key, *option;
    double neutral;
    bool drawn;
} offered[] = {{"temperature", "temperature", 0, true}, {"top_k", "top-k", 0, true}, {"top_p", "top-p", 1, true}, {"min_p", "min-p", 0, true},
               {"repetition_penalty", "repetition-penalty", 1, false}};

/* Settings that change answers and are not known here, and the values that change nothing. */
static const struct {
    const char *key;
    double neutral;
} unknown[] = {{"bad_words_ids", 0}, {"begin_suppress_tokens", 0}, {"diversity_penalty", 0}, {"encoder_no_repeat_ngram_size", 0},
               {"encoder_repetition_penalty", 1}, {"epsilon_cutoff", 0}, {"eta_cutoff", 0}, {"exponential_decay_length_penalty", 0},
               {"guidance_scale", 1}, {"min_length", 0}, {"min_new_tokens", 0}, {"no_repeat_ngram_size", 0}, {"num_beams", 1},
               {"penalty_alpha", 0}, {"sequence_bias", 0}, {"suppress_tokens", 0}, {"typical_p", 1}};

static bool is_set(const cJSON *v, double neutral)
{
    return v && !cJSON_IsFalse(v) && !(cJSON_IsNumber(v) && v->valuedouble == neutral) && !((cJSON_IsArray(v) || cJSON_IsObject(v)) && !v->child);
}

/* The options that would do what the file asks for, and what none does. */
static void tell(const cJSON *o, const char *path)
{
    sw_buf options = {0}, rest = {0};
    bool drawn = cJSON_IsTrue(sw_json_get(o, "do_sample"));
    for (size_t i = 0; i < SW_COUNT(offered); i++) {
        const cJSON *v = sw_json_get(o, offered[i].key);
        if (drawn && !v && !strcmp(offered[i].key, "temperature") && !sw_option_given("temperature"))
            sw_buf_puts(&options, " --temperature 1");
        if (is_set(v, offered[i].neutral) && cJSON_IsNumber(v) && (drawn || !offered[i].drawn) && !sw_option_given(offered[i].option)) {
            sw_buf_printf(&options, " --%s ", offered[i].option);
            sw_json_number(&options, v->valuedouble);
        }
    }
    for (size_t i = 0; i < SW_COUNT(unknown); i++)
        if (is_set(sw_json_get(o, unknown[i].key), unknown[i].neutral))
            sw_buf_printf(&rest, "%s%s", rest.n ? ", " : "", unknown[i].key);
    if (options.n)
        sw_info("%s asks for%s; answers are made without unless these options are given", path, options.at);
    if (rest.n)
        sw_warn("%s asks for %s, which is not done here", path, rest.at);
    sw_buf_free(&options);
    sw_buf_free(&rest);
}

static int read_ends(infer_session *s)
{
    const cJSON *eos = sw_json_get(s->generation, "eos_token_id"), *texts = sw_json_get(s->generation, "stop_strings");
    for (const cJSON *v = cJSON_IsArray(eos) ? eos->child : eos; v; v = cJSON_IsArray(eos) ? v->next : NULL) {
        if (!cJSON_IsNumber(v) || v->valuedouble != (double)(int64_t)v->valuedouble)
            return sw_fail("\"eos_token_id\": an id or a list of ids is needed, not %s", sw_json_kind(v));
        if (v->valuedouble >= 0 && v->valuedouble < (double)s->model->spec.vocab)
            infer_add_stop(s, (int32_t)v->valuedouble);
    }
    for (const cJSON *v = cJSON_IsArray(texts) ? texts->child : texts; v; v = cJSON_IsArray(texts) ? v->next : NULL)
        if (!cJSON_IsString(v))
            return sw_fail("\"stop_strings\": a text or a list of texts is needed, not %s", sw_json_kind(v));
    return 0;
}

int infer_read_generation(infer_session *s)
{
    const char *folder = s->model->checkpoint->path;
    char *path = sw_path_join(folder, "generation_config.json");
    bool there = sw_is_dir(folder) && sw_is_file(path);
    s->generation = there ? sw_json_load(path) : NULL;
    int rc = there && !s->generation ? -1 : 0;
    if (!rc && there && !cJSON_IsObject(s->generation))
        rc = sw_fail("%s: an object is needed, not %s", path, sw_json_kind(s->generation));
    else if (!rc && (sw_generator_configure(&s->generator, s->model->checkpoint->config, s->generation) || read_ends(s)))
        rc = sw_fail_in("%s/%s", folder, there ? "generation_config.json" : "config.json");
    if (!rc && there && !s->settings->score)
        tell(s->generation, path);
    free(path);
    return rc;
}

void infer_job_stops(infer_job *j, const infer_session *s, bool conversation)
{
    const cJSON *texts = sw_json_get(s->generation, "stop_strings");
    for (size_t i = 0; i < s->settings->stop.n; i++)
        SW_PUSH(j->stop, sw_strdup(s->settings->stop.at[i]));
    for (const cJSON *v = cJSON_IsArray(texts) ? texts->child : texts; v; v = cJSON_IsArray(texts) ? v->next : NULL)
        SW_PUSH(j->stop, sw_strdup(v->valuestring));
    for (size_t i = 0; conversation && i < s->stop_texts.n; i++)
        SW_PUSH(j->stop, sw_strdup(s->stop_texts.at[i]));
}
