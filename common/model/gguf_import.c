/* A GGUF file shown as what it would be on the hub: config.json, and tensors under the hub's names and in its layout. */
#include "model/gguf_import.h"

#include "model/gguf_map.h"

#include "base/map.h"

#include <stdlib.h>
#include <string.h>

/* Divisors of rotary frequencies are part of the configuration; layers that guess further tokens are left out. */
static bool is_read_elsewhere(const sw_spec *s, const char *name)
{
    const char *dot = strchr(name, '.');
    return sw_starts_with(name, "rope_f") || (sw_starts_with(name, "blk.") && strtoll(dot + 1, NULL, 10) >= s->layers);
}

static int collect(sw_checkpoint *c, const sw_spec *s, const sw_gguf_kind *kind, sw_entries *out, sw_arena *arena)
{
    sw_gguf_links links = {0};
    sw_map used = {0};
    int rc = sw_gguf_weave(s, kind, c, false, &links, arena);
    for (size_t i = 0; i < links.n; i++)
        sw_map_puts(&used, links.at[i].gguf, 1);
    rc = rc ? rc : sw_gguf_tensors(&links, c, false, out, arena);
    for (size_t i = 0; !rc && i < sw_gguf_tensor_count(c->gguf); i++) { /* what nobody knows shows itself, and is reported */
        const sw_entry *e = sw_gguf_tensor_at(c->gguf, i);
        if (!sw_map_gets(&used, e->name, 0) && !is_read_elsewhere(s, e->name))
            SW_PUSH(*out, *e);
    }
    if (!rc && kind->tensors)
        rc = kind->tensors(c->gguf, s, out, arena);
    sw_map_free(&used);
    free(links.at);
    return rc;
}

int sw_gguf_adopt(sw_checkpoint *c, sw_spec *s)
{
    sw_entries entries = {0};
    sw_arena arena = {0};
    const sw_gguf_kind *kind = sw_gguf_kind_of(c->gguf);
    *s = (sw_spec){0};
    if (!kind)
        return -1;
    cJSON_Delete(c->config);
    c->config = sw_gguf_config(c->gguf, kind);
    int rc = c->config ? sw_spec_from_config(s, c->config, c->path) : -1;
    if (!rc && collect(c, s, kind, &entries, &arena)) {
        sw_spec_free(s);
        rc = sw_fail_in("%s", c->path);
    }
    if (!rc && sw_gguf_read_pooling(c->gguf, s)) {
        sw_spec_free(s);
        rc = -1;
    }
    if (!rc) {
        sw_entry *kept = sw_arena_alloc(&arena, (entries.n + 1) * sizeof *kept);
        if (entries.n)
            memcpy(kept, entries.at, entries.n * sizeof *kept);
        sw_checkpoint_show(c, kept, entries.n, &arena);
    }
    sw_arena_free(&arena);
    free(entries.at);
    return rc;
}
