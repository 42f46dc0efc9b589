#include "infer.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/new_head.h"
#include "store/gguf.h"

#include <stdlib.h>
#include <string.h>

void infer_add_stop(infer_session *s, int32_t id)
{
    for (size_t i = 0; i < s->stop.n; i++)
        if (s->stop.at[i] == id)
            return;
    if (id >= 0)
        SW_PUSH(s->stop, id);
}

/* The template that an adapter was trained with is saved beside it and wins over the checkpoint's. */
static char *adapter_template(const infer_settings *o)
{
    for (size_t i = o->adapters.n; i-- > 0;) {
        char *path = sw_path_join(o->adapters.at[i], "chat_template.jinja");
        if (sw_is_file(path))
            return path;
        free(path);
    }
    return NULL;
}

static char *model_family(const infer_session *s)
{
    if (!s->model->checkpoint->gguf)
        return sw_template_family_of(s->model->checkpoint->path);
    sw_span name = sw_gguf_str(s->model->checkpoint->gguf, "general.architecture");
    return name.n ? sw_strndup(name.at, name.n) : NULL;
}

/* What the template says ends an answer: tokens, or else texts. */
static void add_template_stops(infer_session *s)
{
    const sw_agent *agent = sw_template_agent(s->tmpl);
    infer_add_stop(s, sw_template_end_token(s->tmpl));
    for (const char *const *t = sw_template_stops(s->tmpl); *t; t++) {
        int32_t id = sw_token_id(s->tokenizer, *t, strlen(*t));
        if (id >= 0)
            infer_add_stop(s, id);
        else
            SW_PUSH(s->stop_texts, *t);
    }
    if (agent && agent->stop)
        infer_add_stop(s, sw_token_id(s->tokenizer, agent->stop, strlen(agent->stop)));
}

static int load_text(infer_session *s)
{
    const infer_settings *o = s->settings;
    s->tokenizer = s->model->checkpoint->gguf ? sw_tokenizer_from_gguf(s->model->checkpoint->gguf) : sw_tokenizer_load(s->model->checkpoint->path);
    if (!s->tokenizer)
        return -1;
    if (sw_tokenizer_check_fit(s->tokenizer, s->model->spec.vocab))
        return sw_fail_in("%s", o->model);
    s->encoder = sw_encoder_new(s->tokenizer);
    char *saved = o->template_source ? NULL : adapter_template(o), *family = model_family(s);
    s->tmpl = sw_template_choose(s->tokenizer, &(sw_template_choice){o->template_source ? o->template_source : saved, o->agent, family});
    free(saved);
    free(family);
    if (!s->tmpl) {
        if (o->template_source || o->agent)
            return -1;
        s->template_error = sw_strdup(sw_error()); /* matters only when messages are to be rendered */
    }
    for (size_t i = 0; i < SW_COUNT(s->model->spec.eos) && s->model->spec.eos[i] >= 0; i++)
        infer_add_stop(s, s->model->spec.eos[i]);
    infer_add_stop(s, sw_tokenizer_eos(s->tokenizer));
    if (s->tmpl)
        add_template_stops(s);
    s->takes = sw_template_used(s->tmpl);
    return 0;
}

int infer_open(infer_session *s, const infer_settings *o)
{
    *s = (infer_session){.settings = o};
    s->device = sw_device_open(sw_common_opts.device);
    sw_dtype type = o->compute == SW_F32 ? SW_F32 : SW_DTYPE_COUNT;
    s->model = s->device ? sw_model_load_under(o->model, s->device, type, o->adapters.at, o->adapters.n) : NULL;
    if (!s->model)
        return -1;
    const sw_spec *spec = &s->model->spec;
    s->context = o->context;
    if (spec->positions == SW_POSITIONS_LEARNED && !spec->encoder_layers) /* an encoder and a decoder have a table each */
        s->context = SW_MIN(o->context, s->model->positions.out - spec->position_offset);
    sw_task task = spec->task;
    s->embeds = task == SW_TASK_EMBED || o->embed;
    if (o->embed && (task != SW_TASK_EMBED && task != SW_TASK_LM))
        return sw_fail("%s: is %s, it makes no embeddings (--embed)", o->model, sw_task_name(task));
    if (s->embeds && s->model->spec.encoder_layers)
        return sw_fail("%s: has an encoder and a decoder; embeddings are made by one of either", o->model);
    if (o->embed && sw_model_check_modules(s->model->checkpoint->path, &s->model->spec))
        return -1;
    bool classifier = task == SW_TASK_CLASSIFY || task == SW_TASK_TOKENS || s->embeds;
    if (task != SW_TASK_LM && !(classifier && !o->score && !o->chat))
        return sw_fail("%s: is %s, it cannot generate text", o->model, sw_task_name(task));
    static const char *const of_answers[] = {"max-tokens", "temperature", "top-k", "top-p", "min-p", "repetition-penalty", "presence-penalty",
                                             "frequency-penalty", "stop", "samples", "logprobs", "timing", "skip-special"};
    for (size_t i = 0; classifier && i < SW_COUNT(of_answers); i++)
        if (sw_option_given(of_answers[i]))
            return sw_fail("%s: is read for %s; --%s is for answers", o->model, s->embeds ? "embeddings" : "classes", of_answers[i]);
    s->modules = sw_model_modules(s->model);
    for (size_t i = 0; i < o->adapters.n; i++) {
        sw_tuned *t = sw_tuner_attach_folder(&s->modules, o->adapters.at[i]);
        if (!t)
            return -1;
        SW_PUSH(s->tuned, t);
    }
    if (sw_model_check_new(s->model))
        return -1;
    sw_dtype compute = o->compute != SW_DTYPE_COUNT ? o->compute : s->device->low_precision ? SW_BF16 : SW_F32;
    if (load_text(s) ||
        (classifier ? sw_ctx_init(&s->generator.ctx, s->device, compute) : sw_generator_init(&s->generator, s->model, compute, o->batch)))
        return -1;
    s->generator.rounding = o->compute == SW_DTYPE_COUNT;
    s->ready = true;
    if (task == SW_TASK_TOKENS && sw_tags_read(&s->tags, s->model->checkpoint->config, s->model->spec.labels))
        return sw_fail_in("%s/config.json", s->model->checkpoint->path);
    return classifier ? 0 : infer_read_generation(s);
}

void infer_close(infer_session *s)
{
    if (s->ready)
        sw_generator_free(&s->generator);
    if (s->tmpl)
        sw_template_free(s->tmpl);
    if (s->encoder)
        sw_encoder_free(s->encoder);
    if (s->tokenizer)
        sw_tokenizer_free(s->tokenizer);
    free(s->template_error);
    sw_tags_free(&s->tags);
    free(s->modules.at);
    sw_model_free(s->model);
    for (size_t i = 0; i < s->tuned.n; i++)
        sw_tuned_free(s->tuned.at[i]);
    free(s->tuned.at);
    free(s->stop.at);
    free(s->stop_texts.at);
    cJSON_Delete(s->generation);
    if (s->device)
        s->device->close(s->device);
}

int infer_check_ids(const infer_session *s, const char *what, const sw_ids *ids, int64_t most)
{
    if ((int64_t)ids->n > most)
        return sw_fail("%s %zu tokens, %s %lld", what, ids->n,
                       s->context < s->settings->context ? "the places that the model has learned allow" : "--context allows", (long long)most);
    return sw_tokenizer_check_ids(s->tokenizer, s->model->spec.vocab, ids->at, ids->n);
}

/* ---- jobs */

/* Bytes at the end of text that may be the beginning of a stop string, and so are not shown yet. */
static size_t held_back(const infer_job *j)
{
    size_t most = 0;
    for (size_t i = 0; i < j->stop.n; i++) {
        size_t n = strlen(j->stop.at[i]);
        for (size_t k = SW_MIN(n ? n - 1 : 0, j->text.n); k > most; k--)
            if (!memcmp(j->text.at + j->text.n - k, j->stop.at[i], k))
                most = k;
    }
    return most;
}

static void show(infer_job *j, size_t upto)
{
    if (j->on_text && upto > j->shown)
        j->on_text(j->text.at + j->shown, upto - j->shown);
    j->shown = SW_MAX(j->shown, upto);
}

/* Cuts the text before the first stop string that begins at or after `from`. */
static bool cut(infer_job *j, size_t from)
{
    const char *first = NULL;
    for (size_t i = 0; i < j->stop.n; i++) {
        size_t n = strlen(j->stop.at[i]), start = from > n ? from - n : 0;
        const char *hit = n && j->text.n ? memmem(j->text.at + start, j->text.n - start, j->stop.at[i], n) : NULL;
        if (hit && (!first || hit < first))
            first = hit;
    }
    if (!first)
        return false;
    j->text.n = (size_t)(first - j->text.at);
    j->text.at[j->text.n] = 0;
    return true;
}

static int on_token(sw_sequence *q, int32_t id)
{
    infer_job *j = (infer_job *)q;
    size_t before = j->text.n;
    if (sw_stream_decode(&j->decoder, j->session->tokenizer, id, j->session->settings->skip_special, &j->text))
        return 1;
    if (cut(j, before)) {
        show(j, j->text.n);
        return 1;
    }
    show(j, j->text.n - held_back(j));
    return 0;
}

void infer_job_begin(infer_job *j, const infer_session *s)
{
    j->session = s;
    j->sequence.prompt = j->prompt.at;
    j->sequence.n_prompt = j->prompt.n;
    j->sequence.stop = s->stop.at;
    j->sequence.n_stop = s->stop.n;
    j->sequence.on_token = on_token;
    j->sequence.want_logprobs = s->settings->logprobs;
}

int infer_job_finish(infer_job *j)
{
    int rc = 0;
    size_t before = j->text.n;
    if (j->sequence.finish != SW_FINISH_CALLER) {
        rc = sw_stream_finish(&j->decoder, j->session->tokenizer, j->session->settings->skip_special, &j->text);
        cut(j, before);
    }
    show(j, j->text.n);
    return rc;
}

void infer_job_free(infer_job *j)
{
    sw_sequence_free(&j->sequence);
    for (size_t i = 0; i < j->stop.n; i++)
        free(j->stop.at[i]);
    free(j->stop.at);
    free(j->prompt.at);
    sw_stream_free(&j->decoder);
    sw_buf_free(&j->text);
}

const char *infer_finish_name(const sw_sequence *q)
{
    switch (q->finish) {
    case SW_FINISH_LENGTH: return "length";
    case SW_FINISH_NONE: return "interrupted";
    default: return "stop";
    }
}
