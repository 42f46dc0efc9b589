/* The threads of a block as fibers: see cuda_runtime.h. */
#include "cuda_runtime.h"

#include "emulator_control.h"
#include "emulator_fiber.h"
#include "emulator_memory.h"
#include "emulator_streams.h"

#include <atomic>
#include <cstdio>
#include <map>
#include <mutex>
#include <numeric>
#include <omp.h>
#include <vector>

enum { MAX_THREADS = 1024, MAX_WARPS = 32, SHARED = 48 << 10, SHARED_OPTIN = 227 << 10 };
enum { VOTE = -2 }; /* in place of a lane to take from */

struct copy {
    void *to;
    const void *from;
    int bytes;
    unsigned group;
};

struct lane {
    sw_emu_thread info;
    sw_fiber *fiber;
    /* what it waits for */
    unsigned mask;
    int from, line;
    const char *file;
    sw_emu_meeting meeting;
    uint64_t value, result;
    std::vector<copy> copies; /* under way */
    unsigned group;           /* that its next copy is of */
    bool unfenced;            /* copies have come since it has fenced them */
};

struct group_vote { /* of a warpgroup's threads */
    int waiting, line;
    const char *file;
    bool yes, result;
};

struct worker {
    lane lanes[MAX_THREADS];
    unsigned runnable[MAX_WARPS], exchanging[MAX_WARPS], at_barrier[MAX_WARPS], at_vote[MAX_WARPS], done[MAX_WARPS];
    group_vote votes[MAX_WARPS / 4];
    int threads, warps, warp, now, pending, waiting, ended;
    bool backwards;
    const char *barrier_file;
    int barrier_line;
    uint64_t random;
    std::vector<sw_fiber *> idle;
    std::vector<unsigned char> dynamic_memory;
    unsigned char *dynamic;
    const char *name;
    sw_emu_body body;
    const void *args;
    ~worker()
    {
        for (sw_fiber *f : idle)
            sw_fiber_free(f);
    }
};

thread_local const sw_emu_thread *sw_emu_now;
static thread_local worker *self;

static uint64_t next_random(uint64_t *state) /* splitmix64 (Steele, Lea, Flood 2014) */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void misuse(const char *what, int thread, int other, const char *file, int line)
{
    const uint3 b = self->lanes[0].info.block;
    fprintf(stderr, "emulator: %s, block (%u, %u, %u), thread %d: %s (thread %d) at %s:%d\n", self->name, b.x, b.y, b.z,
            thread, what, other, file ? file : "its end", line);
    abort();
}

void sw_emu_check_waited(void)
{
    if (!sw_emu_now->waited)
        misuse("began early and waited for nothing", self->now, -1, nullptr, 0);
}

/* The next thread to run: of the same warp while one of it can, else of the warps after it. -1: none. */
static int pick(worker *w)
{
    for (int i = 0; i < w->warps; i++) {
        unsigned can = w->runnable[w->warp];
        if (can)
            return w->warp * 32 + (w->backwards ? 31 - __builtin_clz(can) : __builtin_ctz(can));
        w->warp = w->warp + 1 == w->warps ? 0 : w->warp + 1;
    }
    return -1;
}

static bool same(const char *file, const char *other) { return file == other || !strcmp(file, other); }

static void begin(worker *w, int t)
{
    w->now = t;
    w->runnable[t / 32] &= ~(1u << t % 32);
    sw_emu_now = &w->lanes[t].info;
}

static void ended(worker *w, int t)
{
    unsigned bit = 1u << t % 32;
    w->done[t / 32] |= bit;
    w->ended++;
    if (!w->lanes[t].copies.empty())
        misuse("ended while copies of its own are under way", t, -1, nullptr, 0);
    if (w->done[t / 32] == 0xffffffffu && !sw_emu_wgmma_ends(t / 32))
        misuse("ended while products of its own are under way", t, -1, nullptr, 0);
    if (w->waiting)
        misuse("ended while others wait at a barrier", t, -1, w->barrier_file, w->barrier_line);
    if (w->votes[t / 128].waiting)
        misuse("ended while others of its warpgroup vote", t, -1, w->votes[t / 128].file, w->votes[t / 128].line);
    for (unsigned m = w->exchanging[t / 32]; m; m &= m - 1) {
        const lane *l = &w->lanes[t / 32 * 32 + __builtin_ctz(m)];
        if (l->mask & bit)
            misuse("ended while another lane waits for it", t, t / 32 * 32 + __builtin_ctz(m), l->file, l->line);
    }
}

static void stuck(worker *w)
{
    for (int t = 0; t < w->threads; t++)
        if (w->exchanging[t / 32] >> t % 32 & 1)
            misuse("waits for lanes that never come", t, -1, w->lanes[t].file, w->lanes[t].line);
    for (int t = 0; t < w->threads; t++)
        if (w->at_vote[t / 32] >> t % 32 & 1)
            misuse("votes without others of its warpgroup", t, -1, w->votes[t / 128].file, w->votes[t / 128].line);
    misuse("waits at a barrier that others never reach", -1, -1, w->barrier_file, w->barrier_line);
}

static void fiber_main(void);
static sw_fiber *fiber_of(worker *w, int t)
{
    lane *l = &w->lanes[t];
    if (!l->fiber) {
        if (w->idle.empty())
            w->idle.push_back(sw_fiber_new(fiber_main));
        l->fiber = w->idle.back();
        w->idle.pop_back();
    }
    return l->fiber;
}

/* The thread that runs next begins; there is one, or something is wrong. */
static int begin_next(worker *w)
{
    int next = pick(w);
    if (next < 0)
        stuck(w);
    begin(w, next);
    return next;
}

/* Others run until thread t can go on. */
static void wait(worker *w, int t)
{
    int next = begin_next(w);
    if (next != t)
        sw_fiber_pass(fiber_of(w, next));
}

static void fiber_main(void)
{
    for (;;) {
        worker *w = self;
        int t = w->now;
        sw_fiber *mine = w->lanes[t].fiber;
        w->body(w->args);
        ended(w, t);
        w->lanes[t].fiber = nullptr;
        if (w->ended == w->threads) {
            w->idle.push_back(mine);
            sw_fiber_leave();
            continue;
        }
        int next = begin_next(w);
        if (!w->lanes[next].fiber) { /* a fresh thread takes over this stack */
            w->lanes[next].fiber = mine;
            continue;
        }
        w->idle.push_back(mine);
        sw_fiber_pass(w->lanes[next].fiber);
    }
}

static void run_block(worker *w, uint3 block)
{
    for (int i = 0; i < w->warps; i++) {
        int n = w->threads - i * 32;
        w->runnable[i] = n >= 32 ? 0xffffffffu : (1u << n) - 1;
        w->exchanging[i] = w->at_barrier[i] = w->at_vote[i] = 0;
        w->done[i] = ~w->runnable[i];
    }
    for (int t = 0; t < w->threads; t++) {
        w->lanes[t].info.block = block;
        w->lanes[t].group = 0;
        w->lanes[t].unfenced = false;
    }
    for (size_t i = 0; i + 4 <= w->dynamic_memory.size(); i += 4)
        memset(w->dynamic + i, 0xff, 4);
    w->ended = w->waiting = 0;
    w->warp = (int)(next_random(&w->random) % (uint64_t)w->warps);
    w->backwards = next_random(&w->random) & 1;
    sw_fiber_enter(fiber_of(w, begin_next(w)));
}

void sw_emu_block_sync(const char *file, int line)
{
    worker *w = self;
    int t = w->now;
    if (w->ended)
        misuse("is at a barrier which a thread that has ended will not reach", t, -1, file, line);
    if (!w->waiting) {
        w->barrier_file = file;
        w->barrier_line = line;
    } else if (w->barrier_line != line || !same(w->barrier_file, file)) {
        misuse("is at another barrier than others, who wait", t, -1, w->barrier_file, w->barrier_line);
    }
    w->at_barrier[t / 32] |= 1u << t % 32;
    if (++w->waiting == w->threads) {
        w->waiting = 0;
        for (int i = 0; i < w->warps; i++) {
            w->runnable[i] |= w->at_barrier[i];
            w->at_barrier[i] = 0;
        }
        w->warp = (int)(next_random(&w->random) % (uint64_t)w->warps);
        w->backwards = next_random(&w->random) & 1;
    }
    wait(w, t);
}

bool sw_emu_warpgroup_any(bool yes, const char *file, int line)
{
    worker *w = self;
    int t = w->now, first = t / 128 * 4;
    group_vote *v = &w->votes[t / 128];
    if ((first + 4) * 32 > w->threads)
        misuse("votes in a warpgroup that is not whole", t, -1, file, line);
    for (int i = first; i < first + 4; i++)
        if (w->done[i])
            misuse("votes where a thread of its warpgroup has ended", t, i * 32 + __builtin_ctz(w->done[i]), file, line);
    if (v->waiting && (v->line != line || !same(v->file, file)))
        misuse("votes elsewhere than others of its warpgroup", t, -1, v->file, v->line);
    v->file = file;
    v->line = line;
    v->yes |= yes;
    w->at_vote[t / 32] |= 1u << t % 32;
    if (++v->waiting == 128) {
        v->result = v->yes;
        v->yes = false;
        v->waiting = 0;
        for (int i = first; i < first + 4; i++) {
            w->runnable[i] |= w->at_vote[i];
            w->at_vote[i] = 0;
        }
    }
    wait(w, t);
    return v->result;
}

/* Whether two lanes wait for the same meeting. */
static bool together(const lane *a, const lane *b)
{
    return a->mask == b->mask && a->line == b->line && a->meeting == b->meeting && (a->from < 0) == (b->from < 0) &&
           same(a->file, b->file);
}

/* The lanes of mask have all come: what each takes away. */
static void complete(worker *w, int warp, unsigned mask)
{
    lane *lanes = w->lanes + warp * 32;
    uint64_t votes = 0;
    for (unsigned m = mask; m; m &= m - 1) {
        const lane *l = &lanes[__builtin_ctz(m)];
        if (!together(l, &lanes[__builtin_ctz(mask)]))
            misuse("meets a lane that is elsewhere", warp * 32 + __builtin_ctz(m), warp * 32 + __builtin_ctz(mask), l->file, l->line);
        votes |= (l->value & 1) << __builtin_ctz(m);
    }
    if (lanes[__builtin_ctz(mask)].meeting) {
        void *of[32];
        for (int i = 0; i < 32; i++)
            of[i] = (void *)(uintptr_t)lanes[i].value;
        lanes[0].meeting(of);
    }
    for (unsigned m = mask; m; m &= m - 1) {
        lane *l = &lanes[__builtin_ctz(m)];
        if (l->from >= 0 && !(mask >> l->from & 1))
            misuse("takes from a lane that takes no part", warp * 32 + __builtin_ctz(m), warp * 32 + l->from, l->file, l->line);
        l->result = l->from >= 0 ? lanes[l->from].value : votes;
    }
    w->exchanging[warp] &= ~mask;
    w->runnable[warp] |= mask;
}

static uint64_t meet(unsigned mask, uint64_t value, int from, sw_emu_meeting meeting, const char *file, int line)
{
    worker *w = self;
    int t = w->now, warp = t / 32;
    unsigned bit = 1u << t % 32;
    lane *l = &w->lanes[t];
    if (warp == w->warps - 1 && w->threads % 32) /* a last warp that is not full: lanes that were never there */
        mask &= (1u << w->threads % 32) - 1;
    if (!(mask & bit))
        misuse("is not among the lanes that it names", t, -1, file, line);
    if (mask & w->done[warp])
        misuse("waits for a lane that has ended", t, warp * 32 + __builtin_ctz(mask & w->done[warp]), file, line);
    l->mask = mask;
    l->value = value;
    l->from = from;
    l->meeting = meeting;
    l->file = file;
    l->line = line;
    unsigned here = w->exchanging[warp] & mask;
    if (here && !together(l, &w->lanes[warp * 32 + __builtin_ctz(here)]))
        misuse("meets a lane that is elsewhere", t, warp * 32 + __builtin_ctz(here), l->file, l->line);
    w->exchanging[warp] |= bit;
    if ((w->exchanging[warp] & mask) == mask) {
        complete(w, warp, mask);
        begin(w, t);
        return l->result;
    }
    wait(w, t);
    return l->result;
}

uint64_t sw_emu_exchange(unsigned mask, uint64_t value, int from, const char *file, int line)
{
    return meet(mask, value, from, nullptr, file, line);
}

void sw_emu_meet(void *own, sw_emu_meeting meeting, const char *file, int line)
{
    if (self->now / 32 == self->warps - 1 && self->threads % 32)
        misuse("takes part in an instruction of a whole warp", self->now, -1, file, line);
    meet(0xffffffffu, (uint64_t)(uintptr_t)own, -1, meeting, file, line);
}

unsigned sw_emu_vote(unsigned mask, bool yes, const char *file, int line)
{
    return (unsigned)sw_emu_exchange(mask, yes, VOTE, file, line);
}

void sw_emu_copy_async(void *to, const void *from, int bytes)
{
    lane *l = &self->lanes[self->now];
    const char *why = sw_emu_now->waited || !bytes ? nullptr : sw_emu_copied_early(from, bytes);
    if (why)
        misuse(why, self->now, -1, nullptr, 0);
    if ((uintptr_t)from % 16 || (uintptr_t)to % 16 || bytes < 0 || bytes > 16)
        misuse("copies other than up to 16 bytes between multiples of 16", self->now, -1, nullptr, 0);
    memset(to, 0xff, 16);
    l->copies.push_back({to, from, bytes, l->group});
}

/* Those of the groups before `until` arrive. */
static void arrive(lane *l, unsigned until)
{
    size_t left = 0, all = l->copies.size();
    for (const copy &c : l->copies) {
        if (c.group >= until) {
            l->copies[left++] = c;
            continue;
        }
        memset(c.to, 0, 16);
        memcpy(c.to, c.from, (size_t)c.bytes);
    }
    l->copies.resize(left);
    l->unfenced |= left < all;
}

void sw_emu_commit_copies(void) { self->lanes[self->now].group++; }
void sw_emu_wait_groups(unsigned later)
{
    lane *l = &self->lanes[self->now];
    arrive(l, l->group > later ? l->group - later : 0);
}
void sw_emu_wait_copies(void)
{
    sw_emu_commit_copies();
    sw_emu_wait_groups(0);
}

void sw_emu_proxy_fence(void) { self->lanes[self->now].unfenced = false; }
void sw_emu_check_copies_fenced(void)
{
    for (int t = 0; t < self->threads; t++)
        if (self->lanes[t].unfenced)
            misuse("multiplies what another has copied and not fenced", self->now, t, nullptr, 0);
}

enum { FIRST_ADDRESS = 1040 };
unsigned sw_emu_shared_address(const void *p) { return (unsigned)((const unsigned char *)p - self->dynamic) + FIRST_ADDRESS; }
const void *sw_emu_shared_pointer(unsigned address, size_t bytes)
{
    if (address < FIRST_ADDRESS || address - FIRST_ADDRESS + bytes > self->dynamic_memory.size())
        misuse("multiplies what is no shared memory", self->now, -1, nullptr, 0);
    return self->dynamic + (address - FIRST_ADDRESS);
}
void sw_emu_misuse(const char *what) { misuse(what, self->now, -1, nullptr, 0); }

void *sw_emu_dynamic_shared(void) { return self->dynamic; }
int sw_emu_lane(void) { return self->now & 31; }

/* ---- launches */

static std::map<const void *, int> optin; /* dynamic shared memory that a kernel was allowed */
static std::mutex lock;
static cudaError_t last_error;

cudaError_t sw_emu_func_attribute(const void *kernel, int attribute, int value)
{
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value > SHARED_OPTIN)
        return cudaErrorInvalidValue;
    std::lock_guard<std::mutex> hold(lock);
    optin[kernel] = value;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}

static void setup(worker *w, dim3 grid, dim3 block, size_t shared)
{
    w->threads = (int)(block.x * block.y * block.z);
    w->warps = (w->threads + 31) / 32;
    for (int t = 0; t < w->threads; t++) {
        unsigned u = (unsigned)t;
        w->lanes[t].info.thread = {u % block.x, u / block.x % block.y, u / block.x / block.y};
        w->lanes[t].info.block_dim = block;
        w->lanes[t].info.grid_dim = grid;
    }
    w->dynamic_memory = std::vector<unsigned char>(shared); /* of the exact size: its end is checked by the sanitizer */
    w->dynamic = w->dynamic_memory.data();
}

void sw_emu_launch(const void *kernel, const char *name, dim3 grid, dim3 block, size_t shared, sw_emu_body body, const void *args)
{
    size_t threads = (size_t)block.x * block.y * block.z, blocks = (size_t)grid.x * grid.y * grid.z;
    size_t allowed = SHARED;
    {
        std::lock_guard<std::mutex> hold(lock);
        auto found = optin.find(kernel);
        if (found != optin.end() && (size_t)found->second > allowed)
            allowed = (size_t)found->second;
    }
    if (!threads || threads > MAX_THREADS || block.z > 64 || !blocks || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535 || shared > allowed) {
        last_error = cudaErrorInvalidConfiguration;
        return;
    }
    sw_emu_count.launches++;
    static const uint64_t seed = getenv("SWIFT_EMULATOR_SEED") ? strtoull(getenv("SWIFT_EMULATOR_SEED"), nullptr, 10) : 1;
    static uint64_t launches;
    uint64_t random = seed * 1000003 + launches++, factor = next_random(&random) % blocks | 1, first = next_random(&random) % blocks;
    while (std::gcd(factor, (uint64_t)blocks) != 1)
        factor += 2;
    sw_emu_access access;
    std::atomic<size_t> next(0);
    void *graph = sw_emu_graph_at_work();
    auto work = [&] {
        sw_emu_work_for_graph(graph);
        static thread_local worker own;
        self = &own;
        own.name = name;
        own.body = body;
        own.args = args;
        setup(&own, grid, block, shared);
        for (size_t i; (i = next++) < blocks;) {
            size_t b = (size_t)((i * factor + first) % blocks);
            own.random = random + b;
            run_block(&own, {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)});
        }
    };
    if (blocks == 1 || blocks * threads < 32768) { /* waking threads takes longer */
        work();
        return;
    }
#pragma omp parallel
    work();
}
