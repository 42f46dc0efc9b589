/* Any bytes as a Parquet file: each row is JSON, but for bytes that are no UTF-8. */
#include "data/parquet.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char path[32];
    int fd = memfd_create("data", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    sw_parquet *p = sw_parquet_open(path, 100000);
    sw_buf row = {0};
    for (int i = 0; p && i < 300 && sw_parquet_next(p, &row) > 0; i++) {
        cJSON *v = sw_json_parse(row.at, row.n);
        if (!v && sw_utf8_valid_prefix(row.at, row.n) == row.n)
            abort();
        cJSON_Delete(v);
        sw_buf_clear(&row);
    }
    sw_buf_free(&row);
    sw_parquet_close(p);
    close(fd);
    return 0;
}
