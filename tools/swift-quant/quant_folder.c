#include "quant_gguf.h"

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/gguf_export.h"
#include "model/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int quant_from_folder(quant_job *j, sw_checkpoint *c, sw_gguf_writer *w)
{
    sw_spec s = {0};
    if (!c->config)
        return sw_fail("%s: config.json is missing: a folder with the whole model is needed", c->path);
    if (sw_model_read_config(c, &s, c->path))
        return -1;
    const char *slash = strrchr(c->path, '/'), *name = slash && slash[1] ? slash + 1 : c->path;
    sw_entries tensors = {0};
    int rc = sw_gguf_export(w, c, &s, &tensors, &j->arena) ? sw_fail_in("%s", c->path) : 0;
    for (size_t i = 0; i < tensors.n && !rc; i++) {
        quant_tensor t = {.name = sw_strdup(tensors.at[i].name), .from = tensors.at[i]};
        SW_PUSH(j->tensors, t);
    }
    free(tensors.at);
    if (!rc) {
        sw_gguf_put_str(w, "general.name", name, strlen(name));
        rc = sw_gguf_put_tokenizer(w, c->path, &s, s.vocab);
    }
    sw_spec_free(&s);
    return rc;
}
