/* Masked language modelling (Devlin et al. 2018, arXiv 1810.04805, 3.1): of the words of a text a share is chosen; of those
 * 80 % are hidden behind the mask token, 10 % become any other and 10 % stay, and the model says what they were. Drawn anew
 * for every update, by the place of the record in it and not by who runs it. */
#include "train.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/memory.h"
#include "store/checkpoint.h"

#include <stdlib.h>
#include <string.h>

/* The text of tokenizer_config.json's mask_token, or NULL. Points into config. */
static const char *named(const cJSON *config)
{
    const cJSON *mask = sw_json_get(config, "mask_token");
    mask = cJSON_IsObject(mask) ? sw_json_get(mask, "content") : mask;
    return cJSON_IsString(mask) ? mask->valuestring : NULL;
}

int train_find_mask(train_run *r)
{
    static const char *const usual[] = {"[MASK]", "<mask>"};
    if (!r->objective->masks)
        return 0;
    if (!r->tokenizer)
        return sw_fail("%s: has no tokenizer, whose mask token a masked language model learns from", r->o->model);
    char *path = sw_path_join(r->model->checkpoint->path, "tokenizer_config.json");
    cJSON *config = sw_is_file(path) ? sw_json_load(path) : NULL;
    const char *text = named(config);
    r->mask_token = text ? sw_token_id(r->tokenizer, text, strlen(text)) : -1;
    for (size_t i = 0; !text && r->mask_token < 0 && i < SW_COUNT(usual); i++)
        r->mask_token = sw_token_id(r->tokenizer, usual[i], strlen(usual[i]));
    free(path);
    cJSON_Delete(config);
    return r->mask_token >= 0 ? 0 : sw_fail("%s: its tokenizer has no mask token; tokenizer_config.json names it (mask_token)", r->o->model);
}

/* A sample with room for targets. */
static train_sample *with_targets(train_sample *s)
{
    size_t ids = (size_t)s->n * sizeof *s->ids, segments = (size_t)s->n_segments * sizeof *s->segments;
    train_sample *t = sw_malloc(sizeof *t + 3 * ids + segments);
    *t = (train_sample){.n = s->n, .n_segments = s->n_segments, .ids = (int32_t *)(t + 1)};
    t->targets = t->ids + s->n;
    t->weights = (float *)(t->targets + s->n);
    t->segments = (uint32_t *)(t->weights + s->n);
    memcpy(t->ids, s->ids, ids);
    memcpy(t->weights, s->weights, ids);
    memcpy(t->segments, s->segments, segments);
    free(s);
    return t;
}

void train_mask(const train_run *r, train_step_data *d, uint32_t step, int64_t first, const char *site)
{
    int64_t words = r->tokenizer ? SW_MIN(sw_tokenizer_size(r->tokenizer), r->model->spec.vocab) : 0; /* element 4 i + 1 of them uses words 8 i + 2 and 3 */
    for (size_t k = 0; r->objective->masks && k < d->n; k++) {
        train_sample *s = d->at[k] = with_targets(d->at[k]);
        sw_rng rng = {(uint64_t)sw_common_opts.seed + 0x9E3779B97F4A7C15u * (uint64_t)(first + (int64_t)k), step, sw_rng_site(site)};
        for (int64_t i = 0; i < s->n; i++) {
            s->targets[i] = -1;
            if (sw_token_is_special(r->tokenizer, s->ids[i]) || sw_rng_uniform(&rng, 8 * (uint64_t)i) >= (float)r->o->mask_share)
                continue;
            float what = sw_rng_uniform(&rng, 8 * (uint64_t)i + 1);
            s->targets[i] = s->ids[i];
            if (what < 0.8f)
                s->ids[i] = r->mask_token;
            else if (what < 0.9f)
                s->ids[i] = (int32_t)sw_rng_below(&rng, 4 * (uint64_t)i + 1, (uint64_t)words);
        }
    }
}
