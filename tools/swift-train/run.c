#include "train.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/new_head.h"
#include "store/checkpoint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const problems[] = {NULL, "single_label_classification", "multi_label_classification", "regression"}; /* of --problem */

/* ---- the model and what trains */

/* The last parts of the paths of all Linears, as PEFT saves all-linear. */
static void add_all_linear(cJSON *list, const sw_modules *modules)
{
    for (size_t i = 0; i < modules->n; i++) {
        if (modules->at[i].kind != SW_MODULE_LINEAR)
            continue;
        const char *dot = strrchr(modules->at[i].path, '.'), *name = dot ? dot + 1 : modules->at[i].path;
        bool known = false;
        for (const cJSON *have = list->child; have; have = have->next)
            known |= !strcmp(have->valuestring, name);
        if (!known)
            cJSON_AddItemToArray(list, cJSON_CreateString(name));
    }
}

/* A name that means nothing is a slip, even where others mean something. */
static int check_name(const train_run *r, const char *name)
{
    bool yes = false;
    cJSON *config = cJSON_CreateObject();
    cJSON_AddItemToArray(cJSON_AddArrayToObject(config, "target_modules"), cJSON_CreateString(name));
    int rc = 0;
    for (size_t i = 0; i < r->modules.n && !yes && !rc; i++)
        rc = sw_target_matches(config, &r->modules.at[i], &yes);
    cJSON_Delete(config);
    if (rc || yes)
        return rc;
    sw_buf known = {0};
    cJSON *list = cJSON_CreateArray();
    add_all_linear(list, &r->modules);
    for (const cJSON *have = list->child; have; have = have->next)
        sw_buf_printf(&known, "%s%s", known.n ? ", " : "", have->valuestring);
    sw_fail("--target-modules %s: no module of this model is meant; its names end in %s (give the option once for each)", name, known.at);
    cJSON_Delete(list);
    sw_buf_free(&known);
    return -1;
}

static int target_modules(const train_run *r, cJSON *config)
{
    const sw_strings *names = &r->o->target_modules;
    if (names->n == 1 && sw_starts_with(names->at[0], "re:")) {
        cJSON_AddStringToObject(config, "target_modules", names->at[0] + 3);
        return 0;
    }
    cJSON *list = cJSON_AddArrayToObject(config, "target_modules");
    if (!names->n)
        add_all_linear(list, &r->modules);
    for (size_t i = 0; i < names->n; i++) {
        if (sw_starts_with(names->at[i], "re:"))
            return sw_fail("--target-modules: an expression (re:) stands alone; put the alternatives into it");
        if (!strcmp(names->at[i], "all-linear"))
            add_all_linear(list, &r->modules);
        else if (check_name(r, names->at[i]))
            return -1;
        else
            cJSON_AddItemToArray(list, cJSON_CreateString(names->at[i]));
    }
    return 0;
}

/* PEFT trains the head of a classifier whole beside an adapter: the outermost module that it lies in. */
static void save_head(cJSON *list, const char *path, size_t n)
{
    char *name = sw_strndup(path, n);
    bool there = false;
    for (const cJSON *have = list->child; have; have = have->next)
        there |= !strcmp(have->valuestring, name);
    if (!there)
        cJSON_AddItemToArray(list, cJSON_CreateString(name));
    free(name);
}

/* The module that a new layer before the head lies in: "pooler" of bert.pooler.dense. */
static void save_parent(cJSON *list, const char *path)
{
    const char *end = strrchr(path, '.'), *from = end ? end : path;
    while (from > path && from[-1] != '.')
        from--;
    save_head(list, from, (size_t)((end ? end : path + strlen(path)) - from));
}

static sw_tuned *attach_lora(train_run *r)
{
    const train_options *o = r->o;
    cJSON *c = cJSON_CreateObject();
    cJSON_AddStringToObject(c, "peft_type", "LORA");
    const sw_spec *s = &r->model->spec;
    bool classifier = s->task == SW_TASK_CLASSIFY || s->task == SW_TASK_TOKENS;
    if (s->task == SW_TASK_MASKED_LM) /* PEFT has no name for it */
        cJSON_AddNullToObject(c, "task_type");
    else
        cJSON_AddStringToObject(c, "task_type", s->task == SW_TASK_TOKENS ? "TOKEN_CLS" : classifier ? "SEQ_CLS" : s->encoder_layers ? "SEQ_2_SEQ_LM" : "CAUSAL_LM");
    cJSON_AddStringToObject(c, "base_model_name_or_path", o->model);
    cJSON_AddNumberToObject(c, "r", (double)o->lora_r);
    cJSON_AddNumberToObject(c, "lora_alpha", o->lora_alpha);
    cJSON_AddNumberToObject(c, "lora_dropout", o->lora_dropout);
    cJSON_AddBoolToObject(c, "use_rslora", o->rslora);
    cJSON_AddStringToObject(c, "bias", "none");
    cJSON_AddBoolToObject(c, "fan_in_fan_out", false);
    cJSON_AddBoolToObject(c, "inference_mode", true);
    int rc = target_modules(r, c);
    const sw_linear *before = &r->model->head_hidden;
    if (o->modules_to_save.n || classifier) {
        cJSON *list = cJSON_AddArrayToObject(c, "modules_to_save");
        for (size_t i = 0; i < o->modules_to_save.n; i++)
            cJSON_AddItemToArray(list, cJSON_CreateString(o->modules_to_save.at[i]));
        if (classifier)
            save_head(list, r->model->head.name, strcspn(r->model->head.name, "."));
        if (classifier && before->w && before->w->drawn)
            save_parent(list, before->name);
    } else {
        cJSON_AddNullToObject(c, "modules_to_save");
    }
    sw_tuned *t = rc ? NULL : sw_tuner_attach(&r->modules, c, (uint64_t)sw_common_opts.seed);
    cJSON_Delete(c);
    return t;
}

/* Names, types, shapes and a sample of the values: a page of every 64th part. */
static sw_digest model_digest(const train_run *r)
{
    sw_buf b = {0};
    const sw_params lists[] = {r->model->params, r->tuned ? sw_tuned_trainable(r->tuned) : (sw_params){0}};
    char page[4096];
    for (size_t k = 0; k < SW_COUNT(lists); k++)
        for (size_t i = 0; i < lists[k].n; i++) {
            const sw_tensor *t = &lists[k].at[i]->v.t;
            size_t n = sw_tensor_bytes(t), step = SW_MAX(n / 64, sizeof page);
            sw_buf_printf(&b, "%s %s %lld %lld\n", lists[k].at[i]->name, sw_dtypes[t->dtype].name, (long long)t->shape[0], (long long)sw_numel(t));
            for (size_t at = 0; at < n; at += step) {
                size_t some = SW_MIN(sizeof page, n - at);
                if (!r->device->get(r->device, page, (const char *)t->data + at, some))
                    sw_buf_add(&b, page, some);
            }
        }
    free(lists[1].at);
    sw_digest d = sw_digest_bytes(b.at, b.n);
    sw_buf_free(&b);
    return d;
}

/* By what the model's head says. */
static int choose_objective(train_run *r)
{
    const sw_spec *s = &r->model->spec;
    const char *name = problems[r->o->problem];
    r->objective_options = (sw_objective_options){.label_smoothing = r->o->label_smoothing};
    if (r->o->problem && s->task != SW_TASK_CLASSIFY)
        return sw_fail("is %s; --problem is for classifiers of whole texts", sw_task_name(s->task));
    if (r->o->mask_share != TRAIN_MASK_SHARE && s->task != SW_TASK_MASKED_LM)
        return sw_fail("is %s; --mask-share is for masked language models", sw_task_name(s->task));
    if (s->task == SW_TASK_LM) {
        r->objective = &sw_objective_sft;
        return 0;
    }
    if (s->task == SW_TASK_MASKED_LM) {
        r->objective = &sw_objective_mlm;
        return 0;
    }
    if (s->task == SW_TASK_TOKENS) {
        r->objective = &sw_objective_tag;
        r->objective_options.tags = &r->tags;
        return sw_tags_read(&r->tags, r->model->checkpoint->config, s->labels) ? sw_fail_in("config.json") : 0;
    }
    r->objective = &sw_objective_classify;
    if (s->task != SW_TASK_CLASSIFY)
        return sw_fail("is %s; language models, masked ones and classifiers are trained", sw_task_name(s->task));
    if (r->o->label_smoothing > 0)
        return sw_fail("is %s; --label-smoothing is for language models", sw_task_name(s->task));
    if (!name && sw_json_str(r->model->checkpoint->config, "problem_type", NULL, &name))
        return -1;
    if (sw_tags_read(&r->tags, r->model->checkpoint->config, s->labels)) /* its names are wrong: shards' cannot be compared */
        sw_error_clear();
    return sw_problem_of(name, s->labels, &r->objective_options.problem);
}

/* What the configuration asks for, or --dropout. What of it is not done is told. */
static int choose_dropout(train_run *r)
{
    sw_spec *s = &r->model->spec;
    sw_buf unused = {0};
    if (r->o->dropout >= 0)
        return sw_spec_set_dropout(s, r->o->dropout) || !r->o->dropout ? 0 : sw_fail("the models of its family (%s) drop nothing; leave --dropout out", s->family->name);
    sw_spec_unused_dropout(s, r->model->checkpoint->config, &unused);
    if (unused.n)
        sw_warn("%s: its config.json asks for %s, which is not applied here (--dropout 0 drops nothing)", r->o->model, unused.at);
    sw_buf_free(&unused);
    return 0;
}

/* The head that --labels asks for, or that the adapter's base needs: 1, 0 none, -1. */
static int wanted_head(const train_run *r, sw_new_head *h)
{
    const train_options *o = r->o;
    sw_tags tags;
    *h = (sw_new_head){0};
    if (o->adapter)
        return sw_new_head_of_adapter(o->adapter, h);
    if (!o->labels)
        return 0;
    if (sw_tags_parse(&tags, o->labels))
        return sw_fail_in("--labels");
    *h = (sw_new_head){.words = o->task == 1, .names = sw_tags_names(&tags), .problem = problems[o->problem], .seed = (uint64_t)sw_common_opts.seed};
    sw_tags_free(&tags);
    return 1;
}

/* Values that train keep the file's precision in their f32 masters. */
static sw_model *load_model(const train_run *r, bool full)
{
    sw_new_head head;
    int wanted = wanted_head(r, &head);
    sw_model *m = wanted < 0 ? NULL : sw_model_load(r->o->model, r->device, &(sw_load_options){.dtype = full ? SW_DTYPE_COUNT : r->compute,
                                                    .dequantise = r->o->dequantise, .head = wanted ? &head : NULL});
    sw_new_head_free(&head);
    return m;
}

static int open_model(train_run *r)
{
    const train_options *o = r->o;
    /* Ranks of one machine take a GPU each. */
    char *gpu = sw_strfmt("cuda:%d", r->comm->local_rank);
    const char *device = sw_common_opts.device;
    r->device = sw_device_open(r->comm->ranks > 1 && device && !strcmp(device, "cuda") ? gpu : device);
    if (r->device && !r->device->host && !device && r->comm->local_rank) {
        r->device->close(r->device);
        r->device = sw_device_open(gpu);
    }
    free(gpu);
    if (!r->device)
        return -1;
    r->compute = o->dtype == 1 ? SW_F32 : o->dtype == 2 ? SW_BF16 : r->device->low_precision ? SW_BF16 : SW_F32;
    bool full = !strcmp(o->tuner, "full") && !o->adapter;
    r->model = load_model(r, full);
    if (!r->model)
        return -1;
    if (choose_objective(r) || choose_dropout(r))
        return sw_fail_in("%s", o->model);
    r->modules = sw_model_modules(r->model);
    sw_params list = r->model->params;
    if (!full) {
        r->tuned = o->adapter ? sw_tuner_attach_folder(&r->modules, o->adapter) : attach_lora(r);
        if (!r->tuned || sw_model_check_new(r->model))
            return -1;
        list = sw_tuned_trainable(r->tuned);
    }
    if (r->comm->ranks > 1)
        r->values = model_digest(r);
    for (size_t i = 0; i < list.n; i++) {
        list.at[i]->trainable = true;
        list.at[i]->decay = o->decay_all || list.at[i]->v.t.ndim >= 2;
    }
    sw_flat_plan plan = {(sw_share_stage)o->share, r->comm->rank, r->comm->ranks, o->bucket / (int64_t)sizeof(float)};
    int rc = sw_flat_build_shared(&r->flat, &list, r->device, r->compute, &plan);
    if (!full)
        free(list.at);
    return rc;
}

static int open_optimizer(train_run *r)
{
    const train_options *o = r->o;
    sw_optimizer_options options = {o->weight_decay, o->beta1, o->beta2, o->eps};
    if (sw_optimizer_init(&r->optimizer, sw_optimizer_find(o->optimizer), &options, &r->flat) ||
        sw_ctx_init(&r->ctx, r->device, r->compute))
        return -1;
    r->ctx_ready = true;
    size_t states = 0;
    while (states < SW_OPTIMIZER_STATES && r->optimizer.state[states].data)
        states++;
    r->fixed_bytes = sw_flat_bytes(&r->flat, states);
    for (size_t i = 0; i < r->model->params.n; i++)
        if (!r->model->params.at[i]->trainable)
            r->fixed_bytes += sw_tensor_bytes(&r->model->params.at[i]->v.t);
    if (o->max_memory) {
        char have[32], limit[32];
        if (r->fixed_bytes >= (size_t)o->max_memory)
            return sw_fail("--max-memory %s: weights, gradients and optimiser states alone take %s", sw_human_bytes((double)o->max_memory, limit),
                           sw_human_bytes((double)r->fixed_bytes, have));
        sw_ctx_limit(&r->ctx, (size_t)o->max_memory - r->fixed_bytes);
    }
    r->schedule = sw_schedule_find(o->schedule);
    r->lr = o->lr;
    return 0;
}

/* ---- the data */

/* transformers finds the end of a text by the padding behind it: a decoder with a new head needs a token for that, which ends no
 * text itself. */
static void choose_padding(train_run *r)
{
    const sw_spec *s = &r->model->spec;
    int32_t pad = r->tokenizer ? sw_tokenizer_pad(r->tokenizer) : -1;
    if (!sw_model_has_new_head(r->model) || s->task != SW_TASK_CLASSIFY || s->pooling != SW_POOL_LAST || s->pad >= 0)
        return;
    if (pad >= 0 && pad != sw_tokenizer_eos(r->tokenizer)) {
        cJSON_DeleteItemFromObjectCaseSensitive(r->model->checkpoint->config, "pad_token_id");
        cJSON_AddNumberToObject(r->model->checkpoint->config, "pad_token_id", pad);
    } else {
        sw_warn("%s: its tokenizer has no padding token other than the end of a text, so config.json gets no pad_token_id; transformers then "
                "takes one text at a time", r->o->model);
    }
}

static int open_tokenizer(train_run *r)
{
    const sw_checkpoint *ck = r->model->checkpoint;
    if (!ck->gguf && !sw_tokenizer_is_in(ck->path)) {
        sw_warn("%s: has no tokenizer, so it cannot be checked that the data was made with its tokenizer", ck->path);
        return 0;
    }
    r->tokenizer = ck->gguf ? sw_tokenizer_from_gguf(ck->gguf) : sw_tokenizer_load(ck->path);
    if (!r->tokenizer)
        return -1;
    if (sw_tokenizer_check_fit(r->tokenizer, r->model->spec.vocab))
        return sw_fail_in("%s", ck->path);
    choose_padding(r);
    return 0;
}

static int open_feeds(train_run *r, feed_options *f, int n, char **shards)
{
    const train_options *o = r->o;
    r->feed = feed_open(shards, n, f);
    if (!r->feed)
        return -1;
    for (size_t i = 0; i < o->val.n; i++)
        if (!strcmp(o->val.at[i], "-"))
            return sw_fail("--val -: a validation shard is read again and again, so it must be a file");
    f->shuffle = false;
    f->again = true;
    if (o->val.n && !(r->val = feed_open((char **)o->val.at, (int)o->val.n, f)))
        return sw_fail_in("--val");
    return 0;
}

static int open_data(train_run *r, int n, char **shards)
{
    const train_options *o = r->o;
    sw_digest vocab = {""};
    if (r->tokenizer)
        vocab = sw_tokenizer_vocab_digest(r->tokenizer);
    bool counted = (!o->max_steps || isfinite(o->epochs)) && (strcmp(r->schedule->name, "constant") || (o->warmup > 0 && o->warmup < 1));
    feed_options f = {.comm = r->comm, .shuffle = o->shuffle, .seed = (uint64_t)sw_common_opts.seed, .buffer = o->shuffle_buffer, .vocab = r->model->spec.vocab,
                      .again = counted || o->estimate || (isfinite(o->epochs) && o->epochs != 1), .spool = o->estimate ? "/tmp" : o->out,
                      .vocab_digest = r->tokenizer ? vocab.hex : NULL, .objective = r->objective->name, .columns = r->objective->columns, .n_classes = r->model->spec.labels};
    cJSON *classes = sw_tags_names(&r->tags);
    f.classes = classes;
    int rc = open_feeds(r, &f, n, shards);
    cJSON_Delete(classes);
    sw_shard_totals totals;
    if (!rc && r->objective == &sw_objective_sft && feed_totals(r->feed, &totals) && !totals.labelled)
        return sw_fail("%s: the records hold no labelled tokens: there is nothing to learn (see --train-on of swift-tokenize)",
                       n ? shards[0] : "standard input");
    return rc;
}

/* Conversations that never end in training never end in use: the end token must be among the labels. Looks at the first
 * records of files. */
static int check_end_token(train_run *r)
{
    const sw_shard_info *info = feed_info(r->feed);
    r->end_token = -1;
    if (r->objective != &sw_objective_sft || r->comm->rank || !info->template_text || !r->tokenizer)
        return 0;
    sw_template *t = sw_template_from_text(r->tokenizer, info->template_name, info->template_text, strlen(info->template_text));
    if (!t)
        return -1;
    r->end_token = sw_template_end_token(t);
    sw_template_free(t);
    sw_shard_totals totals;
    if (r->end_token < 0 || !feed_totals(r->feed, &totals))
        return 0;
    bool seen = false;
    int64_t looked = 0;
    for (train_sample *s; !seen && looked < SW_MIN(totals.records, 1000); looked++) {
        int rc = feed_next(r->feed, &s);
        if (rc < 1)
            return rc;
        for (int64_t i = 1; i < s->n && !seen; i++)
            seen = s->ids[i] == r->end_token && s->weights[i] != 0;
        free(s);
    }
    if (!seen) {
        sw_span piece = sw_token_piece(r->tokenizer, r->end_token);
        sw_warn("none of the first %lld records trains the template's end token %.*s: the tuned model may never stop (see --train-on of "
                "swift-tokenize)", (long long)looked, (int)piece.n, piece.at);
    }
    return feed_seek(r->feed, (feed_place){0, 0});
}

static void plan_steps(train_run *r)
{
    const train_options *o = r->o;
    int64_t per_step = o->batch * o->accumulate;
    sw_shard_totals t;
    if (feed_totals(r->feed, &t)) {
        r->epoch_steps = (t.records + per_step - 1) / per_step;
        double all = ceil(o->epochs * (double)r->epoch_steps - 1e-9);
        r->steps = o->max_steps && (double)o->max_steps < all ? o->max_steps : (int64_t)all;
    } else {
        r->steps = o->max_steps;
    }
    r->warmup = (int64_t)(o->warmup < 1 ? ceil(o->warmup * (double)r->steps - 1e-9) : o->warmup);
}

/* Each rank takes the same number of an update's records. */
static int share_records(train_run *r)
{
    const train_options *o = r->o;
    int64_t all = o->batch * o->accumulate;
    if (all % r->comm->ranks)
        return sw_fail("--batch %lld times --accumulate %lld are %lld records an update, which %d ranks cannot share evenly; make them a multiple "
                       "of %d", (long long)o->batch, (long long)o->accumulate, (long long)all, r->comm->ranks, r->comm->ranks);
    r->each = all / r->comm->ranks;
    r->batch = SW_MIN(o->batch, r->each);
    return 0;
}

/* What ranks must have in common. */
static int check_alike(train_run *r)
{
    static const char *const own[] = {"threads", "device", "quiet", "config", "metrics", "plot"};
    if (r->comm->ranks == 1)
        return 0;
    cJSON *mine = snapshot_settings(r), *options = sw_options_json(r->o->program), *first = NULL;
    for (size_t i = 0; i < SW_COUNT(own); i++)
        cJSON_DeleteItemFromObjectCaseSensitive(options, own[i]);
    cJSON_AddStringToObject(mine, "version", SW_VERSION);
    cJSON_AddStringToObject(mine, "values of the model", r->values.hex);
    while (options->child) {
        cJSON *o = cJSON_DetachItemViaPointer(options, options->child);
        char *name = sw_strfmt("--%s", o->string);
        cJSON_AddItemToObject(mine, name, o);
        free(name);
    }
    cJSON_Delete(options);
    sw_buf text = {0};
    sw_json_print(&text, mine);
    int64_t n = (int64_t)text.n;
    int rc = sw_comm_broadcast(r->comm, &n, sizeof n, 0);
    char *theirs = sw_malloc((size_t)n + 1);
    if (!rc && !r->comm->rank)
        memcpy(theirs, text.at, (size_t)n);
    rc = rc ? rc : sw_comm_broadcast(r->comm, theirs, (size_t)n, 0);
    if (!rc) {
        first = sw_json_parse(theirs, (size_t)n);
        cJSON_Delete(mine);
        mine = sw_json_parse(text.at, text.n); /* as it reads: infinity has become null */
        rc = sw_comm_agree(r->comm, !first || !mine ? -1 : snapshot_compare(first, mine, "%s is %.200s on rank 0 and %.200s here; all ranks need the same"));
    }
    free(theirs);
    sw_buf_free(&text);
    cJSON_Delete(first);
    cJSON_Delete(mine);
    return rc;
}

static int check_lengths(const train_run *r)
{
    sw_shard_totals t;
    int64_t most = r->model->spec.max_position;
    if (feed_totals(r->feed, &t) && t.segments == t.records && most > 0 && t.longest > most)
        sw_warn("the longest record has %lld tokens, the model was made for %lld (see --max-length of swift-tokenize)", (long long)t.longest,
                (long long)most);
    return 0;
}

int train_open(train_run *r, const train_options *o, sw_comm *comm, int n, char **shards)
{
    *r = (train_run){.o = o, .comm = comm, .end_token = -1};
    r->state.best_step = r->state.last_eval = -1;
    r->state.best_loss = INFINITY;
    if (sw_comm_agree(comm, share_records(r) || open_model(r) || open_optimizer(r) || open_tokenizer(r) || train_find_mask(r) ? -1 : 0) ||
        parallel_open(&r->parallel, comm, &r->flat, &r->ctx))
        return -1;
    sw_ctx_init_twin(&r->twin, &r->ctx);
    if (sw_comm_agree(comm, open_data(r, n, shards)) ||
        sw_comm_agree(comm, check_end_token(r) || check_lengths(r) ? -1 : 0) || check_alike(r))
        return -1;
    plan_steps(r);
    if (o->out) {
        r->metrics_path = sw_path_join(o->out, "metrics.jsonl");
        if (!o->plot || strcmp(o->plot, "none"))
            r->plot_path = o->plot ? sw_strdup(o->plot) : sw_path_join(o->out, "plot.svg");
    }
    return 0;
}

void train_close(train_run *r)
{
    int rc = r->poll.asked ? sw_comm_wait(r->comm, r->poll.ticket) : 0; /* it writes to r */
    (void)rc;
    feed_close(r->feed);
    feed_close(r->val);
    sw_tags_free(&r->tags);
    sw_tokenizer_free(r->tokenizer);
    parallel_close(&r->parallel);
    if (r->ctx_ready) {
        sw_ctx_free(&r->twin);
        sw_ctx_free(&r->ctx);
    }
    sw_optimizer_free(&r->optimizer);
    if (r->flat.device)
        sw_flat_free(&r->flat);
    free(r->modules.at);
    sw_model_free(r->model);
    sw_tuned_free(r->tuned);
    if (r->device)
        r->device->close(r->device);
    free(r->metrics_path);
    free(r->plot_path);
}
