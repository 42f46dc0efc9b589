/* Any bytes as a file that may be packed: unpacked in pieces, twice, it gives the same. */
#include "data/source.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char path[32];
    int fd = memfd_create("data", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    sw_source *s = sw_source_open(path);
    sw_buf first = {0}, second = {0};
    int a = 1, b = 1;
    while (s && first.n < 4 << 20 && (a = sw_source_read(s, &first)) > 0)
        ;
    if (s && !a && sw_source_bytes(s) != (int64_t)n)
        abort();
    if (s && !sw_source_rewind(s)) {
        while (second.n < 4 << 20 && (b = sw_source_read(s, &second)) > 0)
            ;
        if (a != b || first.n != second.n || (first.n && memcmp(first.at, second.at, first.n)))
            abort();
    }
    sw_source_close(s);
    sw_buf_free(&first);
    sw_buf_free(&second);
    close(fd);
    return 0;
}
