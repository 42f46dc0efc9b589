#include "model/gguf_export.h"

#include "base/fileio.h"
#include "base/log.h"
#include "base/map.h"
#include "base/memory.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

static bool has_any(const char *name, const char *const *parts)
{
    for (; parts && *parts; parts++)
        if (strstr(name, *parts))
            return true;
    return false;
}

/* Every tensor of the folder must be in the file, or be one that no model reads. */
static int check_used(const sw_checkpoint *c, const sw_gguf_links *links, const sw_spec *s, const char *const *values)
{
    sw_map used = {0};
    int rc = 0;
    for (size_t i = 0; i < links->n; i++)
        sw_map_puts(&used, links->at[i].file, 1);
    for (const char *const *n = s->family->same_embedding; n && *n; n++)
        sw_map_puts(&used, *n, 1);
    for (size_t i = 0; i < sw_checkpoint_count(c) && !rc; i++) {
        const char *name = sw_checkpoint_at(c, i)->name;
        if (!sw_map_gets(&used, name, 0) && !sw_model_ignores(s, name) && !has_any(name, values))
            rc = sw_fail("the tensor %s has no name in GGUF", name);
    }
    sw_map_free(&used);
    return rc;
}

/* The file as it will be, without its weights: what its reader makes of it must be what was meant. */
static int check_read(const sw_gguf_writer *w, const sw_spec *s, const sw_entries *tensors, const char *path)
{
    sw_gguf *g = sw_gguf_preview(w);
    const sw_gguf_kind *kind = g ? sw_gguf_kind_of(g) : NULL;
    for (size_t i = 0; g && i < tensors->n; i++) { /* what readers make a rule of */
        const sw_entry *e = &tensors->at[i], *t = sw_gguf_tensor(g, e->name);
        if (sw_starts_with(e->name, "rope_f"))
            memcpy(t->t.data, e->t.data, sw_tensor_bytes(&t->t));
    }
    cJSON *config = kind ? sw_gguf_config(g, kind) : NULL;
    sw_spec read = {0};
    int rc = config ? sw_spec_from_config(&read, config, path) : -1;
    rc = rc ? rc : sw_gguf_read_pooling(g, &read);
    if (!rc)
        rc = sw_gguf_same(kind, s, &read);
    sw_spec_free(&read);
    cJSON_Delete(config);
    sw_gguf_close(g);
    return rc;
}

static bool beside(const char *folder, const char *name)
{
    char *path = sw_path_join(folder, name);
    bool there = sw_is_file(path);
    free(path);
    return there;
}

/* Heads that files have a place for. */
static int check_task(const sw_gguf_kind *kind, const sw_spec *s)
{
    if (s->task == SW_TASK_LM || ((kind->flags & SW_GGUF_ENCODER) && (s->task == SW_TASK_EMBED || s->task == SW_TASK_CLASSIFY)))
        return 0;
    if (kind->flags & SW_GGUF_ENCODER)
        return sw_fail("GGUF's %s has no place for the head of %s; what makes embeddings (\"architectures\": a ...Model) is written", kind->arch,
                       sw_task_name(s->task));
    return sw_fail("GGUF's %s has no place for a classification head", kind->arch);
}

/* Of the model as its folder makes it: whose head is the embedding by their values, and who pools as a file beside them says. */
int sw_gguf_export(sw_gguf_writer *w, const sw_checkpoint *c, const sw_spec *given, sw_entries *out, sw_arena *arena)
{
    const sw_gguf_kind *kind = sw_gguf_kind_for(given, c->config);
    sw_gguf_links links = {0};
    sw_spec own_spec = *given;
    const sw_spec *s = &own_spec;
    if (!kind || check_task(kind, s) || sw_model_modules_around(c->path, &own_spec))
        return -1;
    sw_model_choose_names(c, &own_spec);
    own_spec.tied = sw_model_ties(c, s);
    if (s->window && s->window < s->max_position && !(kind->flags & SW_GGUF_WINDOWS))
        sw_warn("%s: programs that run GGUF files attend to the whole text: beyond the sliding window of %lld tokens the answers will differ",
                c->path, (long long)s->window);
    if (s->encoder_layers && s->logit_scale > 0)
        sw_warn("%s: programs that run GGUF files do not scale what its head reads: their logits are %.4g times these", c->path, 1 / s->logit_scale);
    const sw_spec *own = &s->family->spec;
    if (!(kind->flags & SW_GGUF_BIASES) && ((s->o_bias && !own->o_bias) || (s->mlp_bias && !own->mlp_bias)))
        return sw_fail("GGUF's %s has no place for these biases", kind->arch);
    int rc = sw_model_check(c, s);
    rc = rc ? rc : sw_gguf_put_config(w, kind, s, c);
    if (!rc && s->task == SW_TASK_LM && c->path && beside(c->path, SW_POOLING_FILE)) /* a decoder that makes embeddings */
        sw_gguf_put_pooling(w, kind->arch, s);
    rc = rc ? rc : sw_gguf_weave(s, kind, c, true, &links, arena);
    rc = rc ? rc : check_used(c, &links, s, kind->values);
    rc = rc ? rc : sw_gguf_tensors(&links, c, true, out, arena);
    free(links.at);
    if (rc)
        return rc;
    sw_gguf_add_divisors(out, arena, s);
    sw_gguf_writer *draft = sw_gguf_writer_new(); /* types are still open there */
    rc = sw_gguf_put_config(draft, kind, s, c);
    for (size_t i = 0; i < out->n && !rc; i++)
        sw_gguf_declare(draft, out->at[i].name, SW_F32, out->at[i].t.ndim, out->at[i].t.shape);
    rc = rc ? rc : check_read(draft, s, out, c->path);
    sw_gguf_writer_abort(draft);
    return rc;
}
