#include "kernels/device_cuda.h"

#include "base/memory.h"
#include "kernels/cuda/cuda_api.h"

#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIBRARY "libswift-cuda.so"

/* Linked into tests only. */
extern sw_device *sw_emulator_open(const sw_cuda_host *host, const char *prefix, int index) __attribute__((weak));

/* One thread copied weights from a mapped file at 4 GB/s, to an H100 that takes 21 from pinned memory. */
static void copy(void *to, const void *from, size_t n)
{
    enum { PIECE = 256 << 10 };
    int64_t pieces = (int64_t)(n / PIECE);
#pragma omp parallel for schedule(static) if (pieces > 1)
    for (int64_t i = 0; i <= pieces; i++) {
        size_t at = (size_t)i * PIECE;
        memcpy((char *)to + at, (const char *)from + at, SW_MIN((size_t)PIECE, n - at));
    }
}

static const sw_cuda_host host = {sw_cuda_interface, SW_CUDA_SIZES, sw_fail, copy};

/* The length of the name before ":N" when it is one of ours, else 0. */
static size_t prefix_of(const char *name)
{
    size_t n = strcspn(name, ":");
    if (n == 4 && !strncmp(name, "cuda", n))
        return n;
    return sw_emulator_open && n == 8 && !strncmp(name, "emulator", n) ? n : 0;
}

bool sw_is_cuda_name(const char *name) { return prefix_of(name) > 0; }

bool sw_cuda_likely(void) { return !access("/dev/nvidiactl", F_OK) || !access("/dev/dxg", F_OK); }

static bool is_file(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

/* Where SWIFT_CUDA_LIB says (the file, or the folder that holds it); else beside the program, or in the lib/swift beside
 * the program's folder; else wherever the system looks. */
static void *open_library(const char *name)
{
    char exe[PATH_MAX] = "", path[PATH_MAX + 64] = "", tried[2 * PATH_MAX + 160] = "";
    const char *said = getenv("SWIFT_CUDA_LIB");
    if (said && *said) {
        snprintf(path, sizeof path, "%s", said);
        if (!is_file(path))
            snprintf(path, sizeof path, "%s/" LIBRARY, said);
        if (!is_file(path))
            return sw_fail_null("device '%s': SWIFT_CUDA_LIB is '%s', and there is no " LIBRARY, name, said);
    } else {
        ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
        exe[n > 0 ? n : 0] = 0;
        const char *dir = dirname(exe);
        static const char *const places[] = {"", "/../lib/swift"};
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            snprintf(path, sizeof path, "%s%s/" LIBRARY, dir, places[i]);
            if (is_file(path))
                break;
            snprintf(tried, sizeof tried, "%s and %s/../lib/swift", dir, dir);
            snprintf(path, sizeof path, LIBRARY);
        }
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library)
        return library;
    const char *why = dlerror();
    if (!strcmp(path, LIBRARY))
        return sw_fail_null("device '%s': there is no " LIBRARY " in %s, nor where the system looks for libraries. It is built where "
                            "nvcc is found (the CUDA toolkit, then make); SWIFT_CUDA_LIB can say where it lies. Or use --device cpu",
                            name, tried);
    return sw_fail_null("device '%s': %s cannot be opened: %s", name, path, why ? why : "no reason given");
}

sw_device *sw_cuda_device(const char *name)
{
    size_t n = prefix_of(name);
    long index = 0;
    if (name[n] == ':') {
        char *end;
        index = name[n + 1] >= '0' && name[n + 1] <= '9' ? strtol(name + n + 1, &end, 10) : -1;
        if (index < 0 || *end || index > 1023)
            return sw_fail_null("device '%s': behind the ':' stands the number of a GPU, from 0", name);
    }
    if (name[0] == 'e')
        return sw_emulator_open(&host, "emulator", (int)index);
    void *library = open_library(name);
    if (!library)
        return NULL;
    sw_cuda_open_fn open = NULL;
    void *found = dlsym(library, "sw_cuda_open");
    memcpy(&open, &found, sizeof open);
    sw_device *d = open ? open(&host, "cuda", (int)index) : sw_fail_null("device '%s': " LIBRARY " is not one of this program's", name);
    if (!d) /* with a device it stays: the CUDA runtime does not like to be unloaded */
        dlclose(library);
    return d;
}
