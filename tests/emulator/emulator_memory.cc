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

/* One reserved range; blocks are whole pages, kept by size when they come back. */
static const size_t page = 4096, reserve = (size_t)64 << 30;
static char *base, *top;
static std::multimap<size_t, char *> idle;
static std::map<char *, size_t> used;
static std::mutex lock;
static int open_count;
static bool is_open; /* the protection */
static size_t total;

static std::map<char *, size_t> shown;

static void protect(int how)
{
    is_open = how != PROT_NONE;
    bool failed = top > base && mprotect(base, (size_t)(top - base), how);
    for (auto &s : shown)
        failed |= mprotect(s.first, s.second, how);
    if (failed) {
        perror("emulator: device memory");
        abort();
    }
}

void sw_emu_show(void *p, size_t n, bool there)
{
    std::lock_guard<std::mutex> hold(lock);
    bool failed = mprotect(p, n, PROT_READ | PROT_WRITE);
    if (there)
        shown[(char *)p] = n;
    else
        shown.erase((char *)p);
    if (there && !failed)
        memset(p, 0xff, n);
    if (failed || ((!there || !is_open) && mprotect(p, n, PROT_NONE))) {
        perror("emulator: device memory");
        abort();
    }
}

void sw_emu_count_used(size_t n, bool more)
{
    std::lock_guard<std::mutex> hold(lock);
    total = more ? total + n : total - n;
}

void *sw_emu_alloc(size_t n)
{
    std::lock_guard<std::mutex> hold(lock);
    size_t bytes = (n + page - 1) / page * page + (n ? 0 : page);
    if (!base) {
        void *at = mmap(nullptr, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED)
            return nullptr;
        base = top = (char *)at;
    }
    char *p = nullptr;
    auto found = idle.find(bytes);
    if (found != idle.end()) {
        p = found->second;
        idle.erase(found);
    } else if (bytes <= (size_t)(base + reserve - top)) {
        p = top;
        top += bytes;
        if (is_open)
            protect(PROT_READ | PROT_WRITE);
    } else {
        return nullptr;
    }
    used[p] = bytes;
    total += bytes;
    return p + (bytes - n) / 64 * 64; /* the end lies at the page's, so that running over it is seen */
}

void sw_emu_release(void *at)
{
    std::lock_guard<std::mutex> hold(lock);
    auto found = used.upper_bound((char *)at);
    if (!at || found == used.begin())
        return;
    --found;
    madvise(found->first, found->second, MADV_DONTNEED);
    total -= found->second;
    idle.insert({found->second, found->first});
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
    if (open_count++ == 0 && !is_open)
        protect(PROT_READ | PROT_WRITE);
}

void sw_emu_close_memory(void)
{
    std::lock_guard<std::mutex> hold(lock);
    enum { ALWAYS = 500, ONE_OF = 16 };
    static uint32_t closings;
    static const bool always = getenv("SWIFT_EMULATOR_CLOSES") != nullptr; /* make check-emulator */
    bool close = always || closings++ < ALWAYS || (closings * 2654435761u >> 16) % ONE_OF == 0; /* in no step with what a program repeats */
    if (--open_count == 0 && close)
        protect(PROT_NONE);
}
#endif
