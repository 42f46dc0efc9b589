#include "emulator_memory.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
static std::map<void *, size_t> sizes;
static size_t total;
static std::mutex lock;
void *sw_emu_alloc(size_t n)
{
    std::lock_guard<std::mutex> hold(lock);
    void *p = nullptr;
    if (posix_memalign(&p, 64, n ? n : 1))
        return nullptr;
    total += sizes[p] = n;
    memset(p, 0xff, n);
    return p;
}
void sw_emu_release(void *p)
{
    std::lock_guard<std::mutex> hold(lock);
    auto found = sizes.find(p);
    if (found == sizes.end())
        return;
    total -= found->second;
    sizes.erase(found);
    free(p);
}
size_t sw_emu_used(void)
{
    std::lock_guard<std::mutex> hold(lock);
    return total;
}
void sw_emu_count_used(size_t n, bool more)
{
    std::lock_guard<std::mutex> hold(lock);
    total = more ? total + n : total - n;
}
void sw_emu_show(void *p, size_t n, bool there)
{
    if (mprotect(p, n, there ? PROT_READ | PROT_WRITE : PROT_NONE))
        abort();
    if (there)
        memset(p, 0xff, n);
}
void sw_emu_open_memory(void) {}
void sw_emu_close_memory(void) {}
#else

/* Blocks are whole pages of one range, kept by size when they come back; NaN is around what was asked for. Closing moves the
 * range's memory elsewhere, by tables of pages that each map a whole segment, which takes microseconds however much there is
 * (protecting takes as long as there are pages). The range lies low, where the kernel puts nothing that does not ask for it, so
 * that the hole stays one. */
static const size_t page = 4096, margin = 1024, segment = (size_t)1 << 30, reserve = 64 * segment, away = 2 * reserve;
static char *const base = (char *)reserve;
static char *top = base, *mapped = base; /* of what blocks have had; of what there is memory for */
static std::multimap<size_t, char *> idle;
struct block {
    size_t bytes, first, asked;
};
static std::map<char *, block> used;
static std::mutex lock;
static int open_count;
static bool is_open;
static size_t total;

static std::map<char *, size_t> shown; /* elsewhere: pages that are protected when the rest moves */

static void broken(void)
{
    perror("emulator: device memory");
    abort();
}

/* Where a block's memory lies now. */
static char *place(char *p) { return is_open ? p : p + away; }

static void move(bool open)
{
    for (char *p = base; p < mapped; p += segment)
        if (mremap(place(p), segment, segment, MREMAP_MAYMOVE | MREMAP_FIXED, open ? p : p + away) == MAP_FAILED)
            broken();
    for (auto s = shown.begin(); s != shown.end();) {
        char *first = s->first, *end = first;
        for (; s != shown.end() && s->first == end; s++)
            end += s->second;
        if (mprotect(first, (size_t)(end - first), open ? PROT_READ | PROT_WRITE : PROT_NONE))
            broken();
    }
    is_open = open;
}

void sw_emu_show(void *p, size_t n, bool there)
{
    std::lock_guard<std::mutex> hold(lock);
    if (mprotect(p, n, PROT_READ | PROT_WRITE))
        broken();
    if (there) {
        shown[(char *)p] = n;
        memset(p, 0xff, n);
    } else {
        shown.erase((char *)p);
    }
    if ((!there || !is_open) && mprotect(p, n, PROT_NONE))
        broken();
}

void sw_emu_count_used(size_t n, bool more)
{
    std::lock_guard<std::mutex> hold(lock);
    total = more ? total + n : total - n;
}

void *sw_emu_alloc(size_t n)
{
    std::lock_guard<std::mutex> hold(lock);
    if (n > reserve)
        return nullptr;
    size_t bytes = (n + 2 * margin + page - 1) / page * page, first = (bytes - n - margin) / 64 * 64;
    char *p = nullptr;
    auto found = idle.find(bytes);
    if (found != idle.end()) {
        p = found->second;
        idle.erase(found);
    } else if (bytes <= (size_t)(base + reserve - top)) {
        p = top;
        const int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
        for (; mapped < p + bytes; mapped += segment)
            if (mmap(place(mapped), segment, PROT_READ | PROT_WRITE, how, -1, 0) != place(mapped))
                broken();
        top += bytes;
    } else {
        return nullptr;
    }
    used[p] = {bytes, first, n};
    total += bytes;
    memset(place(p), 0xff, bytes);
    return p + first;
}

static bool untouched(const char *p, size_t n) { return *p == -1 && !memcmp(p, p + 1, n - 1); }

void sw_emu_release(void *at)
{
    std::lock_guard<std::mutex> hold(lock);
    auto found = used.upper_bound((char *)at);
    if (!at || found == used.begin())
        return;
    const block b = (--found)->second;
    char *p = place(found->first);
    if (!untouched(p, b.first) || !untouched(p + b.first + b.asked, b.bytes - b.first - b.asked)) {
        fprintf(stderr, "emulator: something wrote outside of %zu bytes of device memory\n", b.asked);
        abort();
    }
    madvise(p, b.bytes, MADV_DONTNEED);
    total -= b.bytes;
    idle.insert({b.bytes, found->first});
    used.erase(found);
}

size_t sw_emu_used(void)
{
    std::lock_guard<std::mutex> hold(lock);
    return total;
}

void sw_emu_open_memory(void)
{
    std::lock_guard<std::mutex> hold(lock);
    if (open_count++ == 0)
        move(true);
}

void sw_emu_close_memory(void)
{
    std::lock_guard<std::mutex> hold(lock);
    if (--open_count == 0)
        move(false);
}
#endif
