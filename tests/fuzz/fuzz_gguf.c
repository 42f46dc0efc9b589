/* Any bytes as a GGUF file: what is accepted can be read to its last byte, and decoded. */
#include "store/gguf.h"
#include "store/made.h"
#include "store/quant.h"

#include <stdlib.h>
#include <string.h>

static volatile uint8_t sink;

static void read_value(const sw_gguf *g, const sw_gguf_value *v)
{
    sw_gguf_iter it = sw_gguf_items(v);
    sw_span s;
    double f;
    int64_t i;
    bool b;
    uint64_t count = 0;
    for (; sw_gguf_next_str(&it, &s); count++)
        for (size_t k = 0; k < s.n; k++)
            sink ^= (uint8_t)s.at[k];
    for (; sw_gguf_next_f64(&it, &f); count++)
        sink ^= f > 0;
    if (v->type == SW_GGUF_ARRAY && count != v->count)
        abort();
    s = sw_gguf_str(g, v->key);
    for (size_t k = 0; k < s.n; k++)
        sink ^= (uint8_t)s.at[k];
    if (sw_gguf_find(g, v->key) != v)
        abort();
    sink ^= sw_gguf_i64(g, v->key, 0, 100, 0, &i) + sw_gguf_f64(g, v->key, 0, &f) + sw_gguf_bool(g, v->key, false, &b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, data, n);
    sw_gguf *g = sw_gguf_from_bytes(copy, n, "fuzz");
    for (size_t i = 0; g && i < sw_gguf_value_count(g); i++)
        read_value(g, sw_gguf_value_at(g, i));
    for (size_t i = 0; g && i < sw_gguf_tensor_count(g); i++) {
        const sw_entry *e = sw_gguf_tensor_at(g, i);
        const uint8_t *p = e->t.data;
        uint16_t made[1024];
        if (e->made) {
            if (sw_entry_width(e) <= 1024 && sw_entry_row_count(e) > 0 && sw_entry_rows(e, sw_entry_row_count(e) - 1, 1, made))
                abort();
            continue;
        }
        for (size_t k = 0; k < sw_tensor_bytes(&e->t); k++)
            sink ^= p[k];
        float row[1024];
        int64_t values = sw_numel(&e->t);
        if (values <= 1024 && sw_dequantise(row, p, e->t.dtype, values))
            abort();
        if (sw_gguf_tensor(g, e->name) != e)
            abort();
    }
    sw_gguf_close(g);
    free(copy);
    return 0;
}
