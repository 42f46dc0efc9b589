/* What the files of descriptions (gguf_kinds*.c) write their rows with, and read a GGUF file by where no key says a thing. For
 * those files only. */
#ifndef SW_MODEL_GGUF_ROWS_H
#define SW_MODEL_GGUF_ROWS_H

#include "model/gguf_map.h"

#include "base/json.h"
#include "base/strbuf.h"

#include <stdio.h>

#define KEYS(...) (const sw_gguf_key[]){__VA_ARGS__, {0}}
#define ROWS(...) (const sw_gguf_row[]){__VA_ARGS__, {0}}
#define WORDS(...) (const char *const[]){__VA_ARGS__, NULL, NULL}
#define FIELD(gguf_, config_, kind_, missing_) {gguf_, config_, kind_, NULL, missing_, true}
#define FRACTION(gguf_, config_, missing_) FIELD(gguf_, config_, SW_GGUF_FRACTION, missing_)
#define COUNT(gguf_, config_, get_) {.gguf = gguf_, .config = config_, .get = get_}
#define SPEC(gguf_, config_, get_) {.gguf = gguf_, .config = config_, .kind = SW_GGUF_FRACTION, .get = get_}
#define YES(gguf_, config_, get_) {.gguf = gguf_, .config = config_, .kind = SW_GGUF_YES_NO, .get = get_}
/* A function for a key's `get`. */
#define GET(name, value)                                                                                               \
    static double name(const sw_spec *s) { return (value); }

static inline void set_number(cJSON *config, const char *name, double v) { sw_gguf_set(config, name, cJSON_CreateNumber(v)); }
static inline void set_text(cJSON *config, const char *name, const char *v) { sw_gguf_set(config, name, cJSON_CreateString(v)); }
static inline void set_bool(cJSON *config, const char *name, bool v) { sw_gguf_set(config, name, cJSON_CreateBool(v)); }
/* Unless it is there. */
static inline void set_missing(cJSON *config, const char *name, cJSON *v)
{
    if (sw_json_get(config, name))
        cJSON_Delete(v);
    else
        sw_gguf_set(config, name, v);
}

/* Whether the file has a tensor whose name ends so, or one of that name in the layer. */
static inline bool has(const sw_gguf *g, const char *end)
{
    for (size_t i = 0; i < sw_gguf_tensor_count(g); i++)
        if (sw_ends_with(sw_gguf_tensor_at(g, i)->name, end))
            return true;
    return false;
}
static inline bool has_in_layer(const sw_gguf *g, int64_t layer, const char *name)
{
    char full[96];
    snprintf(full, sizeof full, "blk.%lld.%s", (long long)layer, name);
    return sw_gguf_tensor(g, full) != NULL;
}

#endif
