#include "model/gguf_export.h"

#include "base/log.h"
#include "base/map.h"
#include "base/memory.h"
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool sw_gguf_rope_divisors(const sw_spec *s, float *divisors)
{
    if (s->rope[0].kind != SW_ROPE_LLAMA3)
        return false;
    int64_t pairs = sw_rope_pairs(&s->rope[0]);
    double scale;
    sw_rope_frequencies(&s->rope[0], s->max_position, divisors, &scale);
    for (int64_t i = 0; i < pairs; i++)
        divisors[i] = (float)(pow(s->rope[0].theta, -(double)i / (double)pairs) / divisors[i]);
    return true;
}

static void add_numbers(sw_entries *out, sw_arena *arena, const char *name, const float *values, int64_t n)
{
    SW_PUSH(*out, ((sw_entry){.name = sw_arena_strndup(arena, name, strlen(name)),
                              .t = sw_tensor_of((void *)(uintptr_t)values, SW_F32, 1, &n)}));
}

/* Scalings of the rotation that GGUF keeps as tensors. */
static void add_divisors(sw_entries *out, sw_arena *arena, const sw_spec *s)
{
    const sw_rope_spec *r = &s->rope[0];
    int64_t n = sw_rope_pairs(r);
    if (s->positions != SW_POSITIONS_ROPE || n < 1)
        return;
    float *d = sw_arena_zalloc(arena, (size_t)n * 2 * sizeof *d);
    if (sw_gguf_rope_divisors(s, d))
        add_numbers(out, arena, "rope_freqs.weight", d, n);
    if (r->kind == SW_ROPE_PROPORTIONAL) { /* what does not turn has an endless period */
        int64_t turned = (int64_t)(r->partial * (double)r->dim) / 2;
        for (int64_t i = 0; i < n; i++)
            d[i] = i < turned ? 1 : 1e30f;
        add_numbers(out, arena, "rope_freqs.weight", d, n);
    }
    if (r->kind != SW_ROPE_LONGROPE)
        return;
    for (int64_t i = 0; i < n; i++) {
        d[i] = (float)r->short_factor[i];
        d[n + i] = (float)r->long_factor[i];
    }
    add_numbers(out, arena, "rope_factors_short.weight", d, n);
    add_numbers(out, arena, "rope_factors_long.weight", d + n, n);
}

/* Every tensor of the folder must be in the file, or be one that no model reads. */
static int check_used(const sw_checkpoint *c, const sw_gguf_links *links, const sw_spec *s, const char *values)
{
    sw_map used = {0};
    int rc = 0;
    for (size_t i = 0; i < links->n; i++)
        sw_map_puts(&used, links->at[i].file, 1);
    for (const char *const *n = s->family->same_embedding; n && *n; n++)
        sw_map_puts(&used, *n, 1);
    for (size_t i = 0; i < sw_checkpoint_count(c) && !rc; i++) {
        const char *name = sw_checkpoint_at(c, i)->name;
        if (!sw_map_gets(&used, name, 0) && !sw_model_ignores(s, name) && !(values && strstr(name, values)))
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
    rc = rc ? rc : sw_gguf_weave(s, kind, c, true, &links, arena);
    rc = rc ? rc : check_used(c, &links, s, kind->values);
    rc = rc ? rc : sw_gguf_tensors(&links, c, true, out, arena);
    free(links.at);
    if (rc)
        return rc;
    add_divisors(out, arena, s);
    sw_gguf_writer *draft = sw_gguf_writer_new(); /* types are still open there */
    rc = sw_gguf_put_config(draft, kind, s, c);
    for (size_t i = 0; i < out->n && !rc; i++)
        sw_gguf_declare(draft, out->at[i].name, SW_F32, out->at[i].t.ndim, out->at[i].t.shape);
    rc = rc ? rc : check_read(draft, s, out, c->path);
    sw_gguf_writer_abort(draft);
    return rc;
}
