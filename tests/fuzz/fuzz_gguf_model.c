/* Any GGUF file as a model: what its metadata says becomes a configuration or an error, and tensors that are shown can be read. */
#include "model/gguf_import.h"
#include "model/model.h"
#include "store/made.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char path[64];
    int fd = memfd_create("gguf", 0);
    if (fd < 0 || n > 1 << 20)
        return 0;
    if (write(fd, data, n) != (ssize_t)n) {
        close(fd);
        return 0;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    sw_checkpoint *c = sw_checkpoint_open(path);
    sw_spec s;
    if (c && c->gguf && !sw_gguf_adopt(c, &s)) {
        (void)!sw_model_check(c, &s);
        for (size_t i = 0; i < sw_checkpoint_count(c); i++) {
            const sw_entry *e = sw_checkpoint_at(c, i);
            int64_t rows = sw_entry_row_count(e);
            if (rows < 1 || sw_tensor_bytes(&e->t) > 1 << 20 || (e->t.ndim < 2 && sw_is_quantised(e->t.dtype)))
                continue;
            void *out = malloc(sw_tensor_bytes(&e->t) + 1);
            (void)!sw_entry_rows(e, 0, rows, out);
            (void)!sw_entry_rows(e, rows - 1, 1, out);
            free(out);
        }
        sw_spec_free(&s);
    }
    sw_checkpoint_close(c);
    close(fd);
    return 0;
}
