/* Any bytes as a file of torch.save: what is accepted can be read to its last byte. */
#include "store/torch_file.h"

#include <stdlib.h>
#include <string.h>

static volatile uint8_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1); /* aligned and exactly as long */
    memcpy(copy, data, n);
    sw_torch *t = sw_torch_from_bytes(copy, n, "fuzz");
    for (size_t i = 0; t && i < sw_torch_count(t) && i < 1000; i++) {
        const sw_entry *e = sw_torch_at(t, i);
        const uint8_t *p = e->t.data;
        for (size_t k = 0; k < sw_tensor_bytes(&e->t); k++)
            sink ^= p[k];
        if (sw_torch_find(t, e->name) != e ||
            (sw_tensor_bytes(&e->t) && (uintptr_t)p % (size_t)sw_dtypes[e->t.dtype].bytes))
            abort();
    }
    sw_torch_close(t);
    free(copy);
    return 0;
}
