/* Any bytes as a safetensors file: what is accepted can be read to its last byte. */
#include "store/safetensors.h"

#include <stdlib.h>
#include <string.h>

static volatile uint8_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1); /* aligned and exactly as long */
    memcpy(copy, data, n);
    sw_safetensors *s = sw_st_from_bytes(copy, n, "fuzz");
    size_t total = 0;
    for (size_t i = 0; s && i < sw_st_count(s); i++) {
        const sw_entry *e = sw_st_at(s, i);
        const uint8_t *p = e->t.data;
        for (size_t k = 0; k < sw_tensor_bytes(&e->t); k++)
            sink ^= p[k];
        total += sw_tensor_bytes(&e->t);
        if (sw_st_find(s, e->name) != e || (uintptr_t)p % (size_t)sw_dtypes[e->t.dtype].bytes)
            abort();
    }
    if (total > n)
        abort();
    sw_st_close(s);
    free(copy);
    return 0;
}
