#include "store/weights_file.h"

#include "base/memory.h"
#include "store/torch_file.h"

#include <stdlib.h>

struct sw_weights_file { /* one of the two */
    sw_safetensors *st;
    sw_torch *torch;
};

bool sw_is_torch_name(const char *name) { return sw_ends_with(name, ".bin") || sw_ends_with(name, ".pt") || sw_ends_with(name, ".pth"); }

sw_weights_file *sw_weights_open(const char *path)
{
    sw_weights_file w = {0};
    if (sw_is_torch_name(path))
        w.torch = sw_torch_open(path);
    else
        w.st = sw_st_open(path);
    if (!w.torch && !w.st)
        return NULL;
    sw_weights_file *own = SW_NEW(sw_weights_file);
    *own = w;
    return own;
}

void sw_weights_close(sw_weights_file *w)
{
    if (!w)
        return;
    sw_st_close(w->st);
    sw_torch_close(w->torch);
    free(w);
}

size_t sw_weights_count(const sw_weights_file *w) { return w->st ? sw_st_count(w->st) : sw_torch_count(w->torch); }
const sw_entry *sw_weights_at(const sw_weights_file *w, size_t i) { return w->st ? sw_st_at(w->st, i) : sw_torch_at(w->torch, i); }
const sw_entry *sw_weights_find(const sw_weights_file *w, const char *name)
{
    return w->st ? sw_st_find(w->st, name) : sw_torch_find(w->torch, name);
}
