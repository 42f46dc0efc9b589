/* Streams, events and graphs of the emulated runtime. Work is done where it is asked for; one stream of the program may be
 * late (SWIFT_EMULATOR_LATE): what it is given waits until somebody waits for it. An event that should have been waited for
 * then shows: with late copies kernels read what has not come, with late kernels copies overwrite what is still read. */
#include "emulator_streams.h"

#include "emulator_control.h"
#include "emulator_memory.h"

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

namespace {

/* What a late stream has been given. */
struct late_work {
    std::deque<std::function<void()>> waiting;
    uint64_t given = 0, done = 0;
};

std::recursive_mutex lock; /* of late work: the thread of an engine of communication waits for marks too */
std::vector<std::shared_ptr<late_work>> all_late;
int alive; /* streams */

void run_until(late_work *w, uint64_t place)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    while (w->done < place && !w->waiting.empty()) {
        std::function<void()> run = std::move(w->waiting.front());
        w->waiting.pop_front();
        run();
        w->done++;
    }
}

} // namespace

/* What kernels of a graph copy before they have waited: where it lies is learnt when that is launched for the first time, and what it
 * is then, at the begin of each launch to come. A kernel that finds other bytes there was overtaken by one that writes them. */
struct early_copies {
    std::map<const char *, std::vector<char>> from; /* by where they begin; each reaches to the next at most */
    std::vector<std::pair<const char *, size_t>> more;
};
struct sw_emu_graph {
    std::vector<std::function<void()>> calls;
    std::shared_ptr<early_copies> early = std::make_shared<early_copies>();
};
static thread_local early_copies *running; /* of the graph that is at work */
static std::mutex early_lock;

static void begin_graph(const std::shared_ptr<early_copies> &e)
{
    sw_emu_access access;
    std::sort(e->more.begin(), e->more.end());
    for (auto &p : e->more) { /* pieces of 16 bytes, which blocks of a matrix make one by one */
        auto before = e->from.upper_bound(p.first);
        if (before != e->from.begin()) {
            auto &last = *--before;
            size_t have = last.second.size(), at = (size_t)(p.first - last.first);
            if (at <= have) {
                last.second.resize(std::max(have, at + p.second));
                continue;
            }
        }
        e->from[p.first].resize(p.second);
    }
    e->more.clear();
    for (auto &f : e->from)
        memcpy(f.second.data(), f.first, f.second.size());
    running = e.get();
}
static void end_graph(void) { running = nullptr; }
void *sw_emu_graph_at_work(void) { return running; }
void sw_emu_work_for_graph(void *graph) { running = (early_copies *)graph; }

const char *sw_emu_copied_early(const void *p, int n)
{
    const char *from = (const char *)p;
    if (!running)
        return "copies before it has waited for the kernels before, in no graph";
    std::lock_guard<std::mutex> hold(early_lock);
    auto after = running->from.upper_bound(from);
    if (after != running->from.begin()) {
        auto &f = *--after;
        size_t at = (size_t)(from - f.first);
        if (at + (size_t)n <= f.second.size())
            return memcmp(f.second.data() + at, from, (size_t)n) ? "copies before it has waited what a kernel before it writes" : nullptr;
    }
    running->more.push_back({from, (size_t)n});
    return nullptr;
}

struct sw_emu_stream {
    sw_emu_graph *graph;
    bool spoilt;                     /* by something that cannot be in a graph */
    std::shared_ptr<late_work> late; /* NULL: nothing is put off */
};
struct sw_emu_event {
    std::shared_ptr<late_work> of; /* NULL: what it was recorded behind is done */
    uint64_t place;
};
static std::vector<sw_emu_stream *> capturing;

static bool captures(cudaStream_t s) { return s && s->graph; }
bool sw_emu_puts_off(cudaStream_t s) { return s && (s->graph || s->late); }

void sw_emu_give(cudaStream_t s, std::function<void()> run)
{
    if (captures(s)) {
        s->graph->calls.push_back(std::move(run));
    } else if (s && s->late) {
        std::lock_guard<std::recursive_mutex> hold(lock);
        s->late->waiting.push_back(std::move(run));
        s->late->given++;
    } else {
        run();
    }
}

void sw_emu_run_all(void)
{
    for (auto &w : all_late)
        run_until(w.get(), w->given);
}

cudaError_t sw_emu_outside_capture(void)
{
    for (sw_emu_stream *s : capturing)
        s->spoilt = true;
    return capturing.empty() ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
}

/* ---- graphs */

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode)
{
    if (!s || s->graph)
        return cudaErrorInvalidValue;
    s->graph = new sw_emu_graph;
    s->spoilt = false;
    capturing.push_back(s);
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    if (!captures(s))
        return cudaErrorInvalidValue;
    *g = s->graph;
    s->graph = nullptr;
    capturing.clear();
    sw_emu_count.captures++;
    if (!s->spoilt)
        return cudaSuccess;
    delete *g;
    *g = nullptr;
    return cudaErrorStreamCaptureInvalidated;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t g, unsigned long long)
{
    if (sw_emu_outside_capture())
        return cudaErrorStreamCaptureUnsupported;
    *made = new sw_emu_graph();
    (*made)->calls = g->calls;
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    delete g;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) { return cudaGraphDestroy(g); }
cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s)
{
    sw_emu_count.graphs++;
    std::shared_ptr<early_copies> early = g->early;
    bool later = sw_emu_puts_off(s);
    sw_emu_give(s, [=] { begin_graph(early); });
    for (auto &run : g->calls)
        sw_emu_give(s, run);
    sw_emu_give(s, [=] {
        (void)early; /* until here */
        end_graph();
    });
    return later ? cudaSuccess : cudaGetLastError();
}

/* ---- copies */

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind kind, cudaStream_t s)
{
    bool pageable = kind != cudaMemcpyDeviceToDevice && !sw_emu_is_pinned(kind == cudaMemcpyHostToDevice ? from : to, n);
    if (pageable) { /* the host waits, which a graph cannot */
        if (captures(s))
            return sw_emu_outside_capture();
        cudaStreamSynchronize(s);
        sw_emu_access access;
        memcpy(to, from, n);
        return cudaSuccess;
    }
    sw_emu_give(s, [=] {
        sw_emu_access access;
        for (auto &w : all_late)
            sw_emu_count.beside += w != s->late && !w->waiting.empty();
        memcpy(to, from, n);
    });
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t n, cudaStream_t s)
{
    sw_emu_give(s, [=] {
        sw_emu_access access;
        memset(to, value, n);
    });
    return cudaSuccess;
}

/* ---- streams and events */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    const char *late = getenv("SWIFT_EMULATOR_LATE");
    *s = new sw_emu_stream();
    if (late && *late && atoi(late) == alive)
        all_late.push_back((*s)->late = std::make_shared<late_work>());
    alive++;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    cudaStreamSynchronize(s);
    std::lock_guard<std::recursive_mutex> hold(lock);
    all_late.erase(std::remove(all_late.begin(), all_late.end(), s->late), all_late.end());
    alive--;
    delete s;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (sw_emu_outside_capture())
        return cudaErrorStreamCaptureUnsupported;
    sw_emu_count.waits++;
    if (s && s->late)
        run_until(s->late.get(), s->late->given);
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    if (!e)
        return cudaErrorInvalidValue;
    if (captures(s)) /* of another stream's work: not in a graph here */
        return sw_emu_outside_capture();
    std::shared_ptr<late_work> of = e->of;
    uint64_t place = e->place;
    if (of && !(s && s->late == of))
        sw_emu_give(s, [=] { run_until(of.get(), place); });
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = new sw_emu_event();
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    e->of = s ? s->late : nullptr;
    e->place = e->of ? e->of->given : 0;
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    if (sw_emu_outside_capture())
        return cudaErrorStreamCaptureUnsupported;
    sw_emu_count.waits++;
    if (e->of)
        run_until(e->of.get(), e->place);
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    return e->of && e->of->done < e->place ? cudaErrorNotReady : cudaSuccess;
}
