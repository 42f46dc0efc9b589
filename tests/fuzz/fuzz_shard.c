/* Any bytes as a shard, from a file in any order and from a pipe. Checksums are not looked at in this build. */
#include "data/shard_format.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PIPE_BYTES = 1 << 20 };

static void read_all(sw_shard *s)
{
    sw_shard_record r;
    volatile double sum = 0; /* every byte that a record shows is there */
    while (s && sw_shard_next(s, &r) > 0) {
        for (size_t i = 0; i < r.n; i++)
            sum = sum + r.ids[i] + (double)r.weights[i];
        if (!r.n || r.segments[r.n_segments - 1] != r.n)
            abort();
    }
    for (int64_t i = s ? sw_shard_count(s) - 1 : -1; i >= 0 && sw_shard_seekable(s) && i > sw_shard_count(s) - 20; i--)
        if (sw_shard_read(s, i, &r) == 0 && r.number != i)
            abort();
    sw_shard_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    int fd = memfd_create("shard", MFD_CLOEXEC), ends[2];
    if (n > PIPE_BYTES || fd < 0 || write(fd, data, n) != (ssize_t)n)
        abort();
    read_all(shard_open_fd(fd, "file", true));
    if (pipe2(ends, O_CLOEXEC) || fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES) < 0 || write(ends[1], data, n) != (ssize_t)n)
        abort();
    close(ends[1]);
    read_all(shard_open_fd(ends[0], "pipe", false));
    return 0;
}
