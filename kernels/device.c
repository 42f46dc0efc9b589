#include "kernels/device_cuda.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const char *const sw_kernel_names[SW_KERNEL_COUNT] = {
#define K(name, args) #name,
#include "kernels/kernels.def"
#undef K
};

/* Large tensors sit on huge pages where the system gives them: activations are swept once a kernel, and page walks
 * would show. */
static void *host_alloc(sw_device *d, size_t n)
{
    (void)d;
    size_t align = n >= (size_t)4 << 20 ? (size_t)2 << 20 : 64;
    void *p = NULL;
    if (posix_memalign(&p, align, n ? n : 1))
        return sw_fail_null("out of memory: %zu bytes for a tensor", n);
    if (align > 64)
        madvise(p, n, MADV_HUGEPAGE);
    return p;
}

static void host_free(sw_device *d, void *p)
{
    (void)d;
    free(p);
}

/* Small pages: parts are given back one by one, and a huge page would keep its neighbours. */
static void *host_reserve(sw_device *d, size_t n)
{
    (void)d;
    void *p = mmap(NULL, n ? n : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return sw_fail_null("out of memory: %zu bytes of addresses for a tensor", n);
    madvise(p, n, MADV_NOHUGEPAGE);
    return p;
}

static void host_release(sw_device *d, void *p, size_t n)
{
    (void)d;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)p, end = begin + n;
    uintptr_t first = (begin + page - 1) & ~(page - 1), last = end & ~(page - 1);
    if (first >= last || madvise((void *)first, last - first, MADV_DONTNEED)) {
        memset(p, 0, n);
        return;
    }
    memset(p, 0, first - begin);
    memset((void *)last, 0, end - last);
}

static void host_unreserve(sw_device *d, void *p, size_t n)
{
    (void)d;
    munmap(p, n ? n : 1);
}

static int host_copy(sw_device *d, void *to, const void *from, size_t n)
{
    (void)d;
    memcpy(to, from, n);
    return 0;
}

static int host_sync(sw_device *d)
{
    (void)d;
    return 0;
}

static void host_close(sw_device *d) { free(d); }

static _Thread_local struct {
    void *at;
    size_t n;
} scratch;

void *sw_stream_scratch(sw_stream *s, size_t n)
{
    (void)s;
    if (n > scratch.n) {
        free(scratch.at);
        scratch.n = 0;
        scratch.at = NULL;
        if (posix_memalign(&scratch.at, 64, n))
            return sw_fail_null("out of memory: %zu bytes of temporary space", n);
        scratch.n = n;
    }
    return scratch.at;
}

static void cpu_name(char *out, size_t n, const char *level)
{
    char line[256], model[80] = "cpu";
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "model name : %79[^\n]", model) == 1)
            break;
    if (f)
        fclose(f);
    snprintf(out, n, "%s, %s", model, level);
}

static sw_device *open_host(bool reference)
{
    sw_device *d = SW_NEW(sw_device);
    *d = (sw_device){.name = reference ? "reference" : "cpu", .host = true, .alloc = host_alloc, .free = host_free,
                     .reserve = host_reserve, .release = host_release, .unreserve = host_unreserve,
                     .put = host_copy, .get = host_copy, .sync = host_sync, .close = host_close};
    const char *level = "plain loops";
    d->k = reference ? &sw_kernels_reference : sw_kernels_cpu(&level, &d->rounding);
    d->low_precision = !reference && !strcmp(level, "avx512");
    cpu_name(d->description, sizeof d->description, level);
    return d;
}

sw_device *sw_device_open(const char *name)
{
    if (!name) {
        sw_device *d = sw_cuda_likely() ? sw_cuda_device("cuda") : NULL;
        if (!d)
            sw_error_clear();
        return d ? d : open_host(false);
    }
    bool reference = !strcmp(name, "reference");
    if (reference || !strcmp(name, "cpu"))
        return open_host(reference);
    if (sw_is_cuda_name(name))
        return sw_cuda_device(name);
    return sw_fail_null("there is no device '%s'; there are cpu, reference and cuda[:N]", name);
}
