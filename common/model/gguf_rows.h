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

/* Whether the file has a tensor whose name ends so, or what has that name in the layer. */
static inline bool has(const sw_gguf *g, const char *end)
{
    for (size_t i = 0; i < sw_gguf_tensor_count(g); i++)
        if (sw_ends_with(sw_gguf_tensor_at(g, i)->name, end))
            return true;
    return false;
}
static inline const sw_entry *in_layer(const sw_gguf *g, int64_t layer, const char *name)
{
    char full[96];
    snprintf(full, sizeof full, "blk.%lld.%s", (long long)layer, name);
    return sw_gguf_tensor(g, full);
}
static inline bool has_in_layer(const sw_gguf *g, int64_t layer, const char *name) { return in_layer(g, layer, name) != NULL; }

/* A whole number of the file; 0 where there is none, or one beyond any size. */
static inline int64_t size_of(const sw_gguf *g, const char *arch, const char *name)
{
    char key[SW_GGUF_KEY_MAX];
    int64_t n;
    return sw_gguf_i64(g, sw_gguf_full(arch, name, key), 0, 1 << 30, 0, &n) ? 0 : n;
}

static inline void put_number(sw_gguf_writer *w, const char *arch, const char *name, int64_t v)
{
    char key[SW_GGUF_KEY_MAX];
    sw_gguf_put_u32(w, sw_gguf_full(arch, name, key), (uint32_t)v);
}
/* A list with an item a layer, of numbers or of 0 and 1. */
static inline void put_list(sw_gguf_writer *w, const char *arch, const char *name, const int32_t *list, int64_t n)
{
    char key[SW_GGUF_KEY_MAX];
    sw_gguf_put_array(w, sw_gguf_full(arch, name, key), SW_GGUF_I32, (uint64_t)n, list);
}
static inline void put_flags(sw_gguf_writer *w, const char *arch, const char *name, const uint8_t *list, int64_t n)
{
    char key[SW_GGUF_KEY_MAX];
    sw_gguf_put_array(w, sw_gguf_full(arch, name, key), SW_GGUF_BOOL, (uint64_t)n, list);
}

/* Layers that guess further tokens are counted there, and left out here. */
static inline int leave_out_further(const sw_gguf *g, const char *arch, cJSON *config)
{
    int64_t further = size_of(g, arch, "nextn_predict_layers"), n = sw_gguf_whole(config, "num_hidden_layers");
    if (further && further >= n)
        return sw_fail("%s.nextn_predict_layers: %lld of %lld layers", arch, (long long)further, (long long)n);
    set_number(config, "num_hidden_layers", (double)(n - further));
    return 0;
}

/* Names of what layers are, by whether they have this tensor; at most 4096. */
static inline void set_layers(const sw_gguf *g, cJSON *config, const char *field, const char *tensor, const char *with, const char *without)
{
    int64_t n = SW_MIN(sw_gguf_whole(config, "num_hidden_layers"), 4096);
    cJSON *list = cJSON_CreateArray();
    for (int64_t i = 0; i < n; i++)
        cJSON_AddItemToArray(list, cJSON_CreateString(has_in_layer(g, i, tensor) ? with : without));
    sw_gguf_set(config, field, list);
}

#endif
