#include "quant_gguf.h"

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/gguf_export.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Buffers that old checkpoints carry along, computed anew by every reader. */
static bool is_buffer(const char *name)
{
    return sw_ends_with(name, "rotary_emb.inv_freq") || sw_ends_with(name, ".masked_bias") || sw_ends_with(name, ".attn.bias");
}

static int add_tensors(quant_job *j, const sw_checkpoint *c, const sw_spec *s)
{
    for (size_t i = 0; i < sw_checkpoint_count(c); i++) {
        const sw_entry *e = sw_checkpoint_at(c, i);
        quant_tensor t = {.from = e->t};
        char name[SW_NAME_MAX];
        if (is_buffer(e->name))
            continue;
        if (!sw_gguf_tensor_name(s, e->name, name, &t.heads))
            return sw_fail("%s: the tensor %s has no name in GGUF", c->path, e->name);
        if (s->tied && !strcmp(name, "output.weight"))
            continue;
        if (t.heads && (!t.from.ndim || t.from.shape[0] % (2 * t.heads)))
            return sw_fail("%s: the tensor %s has %" PRId64 " rows, no pairs in %" PRId64 " heads", c->path, e->name,
                           t.from.ndim ? t.from.shape[0] : 1, t.heads);
        t.name = sw_strdup(name);
        SW_PUSH(j->tensors, t);
    }
    int64_t pairs = sw_rope_pairs(&s->rope[0]);
    j->made = SW_NEW_ARRAY(float, (size_t)pairs);
    if (sw_gguf_rope_divisors(s, j->made)) {
        quant_tensor t = {.name = sw_strdup("rope_freqs.weight"), .from = sw_tensor_of(j->made, SW_F32, 1, &pairs)};
        SW_PUSH(j->tensors, t);
    }
    return 0;
}

/* Every weight of every layer must be there: what is missing would only show when the file is used. */
static int check_complete(const sw_checkpoint *c, const sw_spec *s)
{
    static const char *const needed[] = {"attn_norm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                         "mlp_norm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};
    char path[SW_NAME_MAX], name[SW_NAME_MAX + 8];
    for (int64_t layer = 0; layer < s->layers; layer++)
        for (size_t k = 0; k < SW_COUNT(needed); k++) {
            snprintf(name, sizeof name, "%s.weight", sw_file_name(s, layer, needed[k], path));
            if (!sw_checkpoint_find(c, name))
                return sw_fail("%s: the tensor %s is missing", c->path, name);
        }
    return 0;
}

int quant_from_folder(quant_job *j, const sw_checkpoint *c, sw_gguf_writer *w)
{
    sw_spec s = {0};
    if (!c->config)
        return sw_fail("%s: config.json is missing: a folder with the whole model is needed", c->path);
    const cJSON *done = sw_json_get(c->config, "quantization_config");
    if (done) {
        const cJSON *method = sw_json_get(done, "quant_method");
        return sw_fail("%s: is quantised already (%s); give the model it was made from", c->path,
                       cJSON_IsString(method) ? method->valuestring : "quantization_config in config.json");
    }
    if (sw_spec_from_config(&s, c->config, c->path))
        return -1;
    if (s.window && s.window < s.max_position)
        sw_warn("%s: programs that run GGUF files attend to the whole text: beyond the sliding window of %" PRId64
                " tokens the answers will differ", c->path, s.window);
    const char *slash = strrchr(c->path, '/'), *name = slash && slash[1] ? slash + 1 : c->path;
    j->model.layers = s.layers;
    int rc = sw_gguf_put_spec(w, &s);
    if (!rc) {
        sw_gguf_put_str(w, "general.name", name, strlen(name));
        rc = add_tensors(j, c, &s) || check_complete(c, &s) ? -1 : 0;
    }
    const sw_entry *embedding = NULL;
    char path[SW_NAME_MAX], full[SW_NAME_MAX + 8];
    snprintf(full, sizeof full, "%s.weight", sw_file_name(&s, -1, "model.embed_tokens", path));
    if (!rc && (!(embedding = sw_checkpoint_find(c, full)) || embedding->t.ndim != 2))
        rc = sw_fail("%s: the tensor %s is missing or no matrix", c->path, full);
    if (!rc)
        rc = sw_gguf_put_tokenizer(w, c->path, &s, embedding->t.shape[0]);
    sw_spec_free(&s);
    return rc;
}
