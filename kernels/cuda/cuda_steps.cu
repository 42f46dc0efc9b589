/* See cuda_steps.cuh. A kernel costs the host 2 to 4 us to launch, a call that is compared about 0.1 us: a model of 32 layers
 * decodes with some 500 calls a token, 1.5 ms of the host's time, which is what a model of 5 GB takes to read. */
#include "cuda_fuse.cuh"

#include <map>
#include <memory>
#include <string.h>
#include <vector>

namespace {

enum { MOST_LISTS = 16, MOST_CALLS = 20000, MOST_STAGED = 4 << 20, MOST_MISSES = 4 };

struct step_list {
    std::vector<std::unique_ptr<cuda_call>> calls;
    cudaGraphExec_t graph = NULL;
    uint64_t scratch = 0;  /* the temporary space that the graph was made with */
    char *staging = NULL;  /* pinned: the bytes of the copies */
    size_t staged = 0, room = 0;
    int misses = 0;        /* steps since one was launched as a graph */
    bool off = false;
};

enum step_mode { LEARNING, FOLLOWING, AFTER };

} // namespace

struct cuda_steps {
    step_mode mode;
    std::map<uint64_t, step_list> lists;
    step_list *now;
    size_t at; /* the call that comes next */
    cudaEvent_t read; /* staging may be written again */
    bool reading;
};

namespace {

struct put_call : cuda_call {
    static const char name;
    void *to;
    size_t n, offset;
    step_list *list;
    put_call(void *to_, size_t n_, size_t offset_, step_list *l) : cuda_call(&name), to(to_), n(n_), offset(offset_), list(l) {}
    int run(sw_stream *s) override
    {
        CUDA_TRY(s, cudaMemcpyAsync(to, list->staging + offset, n, cudaMemcpyHostToDevice, s->stream));
        s->steps->reading = true;
        return 0;
    }
    bool writes(const sw_tensor *w) const override
    {
        int64_t bytes = (int64_t)n;
        sw_tensor t = {};
        t.data = to, t.dtype = SW_I8, t.ndim = 1, t.shape[0] = bytes, t.stride[0] = 1;
        return !cuda_apart(&t, w);
    }
};
const char put_call::name = 0;

void drop_graph(step_list *l)
{
    if (l->graph)
        cudaGraphExecDestroy(l->graph);
    l->graph = NULL;
}

/* The bytes of copies are there until the device has read them. */
int wait_for_reading(sw_stream *s)
{
    cuda_steps *o = s->steps;
    if (o->reading)
        CUDA_TRY(s, cudaEventSynchronize(o->read));
    o->reading = false;
    return 0;
}

/* Forgets calls from `first` on. */
int cut(sw_stream *s, step_list *l, size_t first)
{
    drop_graph(l);
    for (size_t i = first; i < l->calls.size(); i++)
        if (l->calls[i]->kind == &put_call::name) {
            l->staged = static_cast<put_call *>(l->calls[i].get())->offset;
            break;
        }
    l->calls.resize(first);
    if (first || !l->staging)
        return 0;
    if (s->steps->reading) {
        CUDA_TRY(s, cudaEventRecord(s->steps->read, s->stream));
        if (wait_for_reading(s))
            return -1;
    }
    cudaFreeHost(l->staging);
    l->staging = NULL;
    l->staged = l->room = 0;
    return 0;
}

int give_up(sw_stream *s)
{
    cuda_steps *o = s->steps;
    s->in_step = false;
    o->now->off = true;
    return cut(s, o->now, 0);
}

/* The calls so far, one by one. */
int run_all(sw_stream *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s->steps->now->calls[i]->run(s))
            return -1;
    return 0;
}

/* All of them by as few kernels as can be. */
int run_fused(sw_stream *s, const step_list *l)
{
    size_t n = l->calls.size();
    for (size_t i = 0; i < n;) {
        int done = cuda_fuse(s, &l->calls[i], n - i);
        if (done < 0 || (!done && l->calls[i]->run(s)))
            return -1;
        i += done ? (size_t)done : 1;
    }
    return 0;
}

/* The list as a graph; 1 when a call cannot be in one. */
int capture(sw_stream *s)
{
    step_list *l = s->steps->now;
    cudaGraph_t graph = NULL;
    uint64_t scratch = s->scratch_number;
    drop_graph(l);
    CUDA_TRY(s, cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeThreadLocal));
    s->capturing = true;
    s->shared_first = cuda_fills_shared(l->calls.data(), l->calls.size());
    int rc = run_fused(s, l);
    s->capturing = false;
    cudaError_t e = cudaStreamEndCapture(s->stream, &graph);
    if (e == cudaSuccess && !rc && scratch == s->scratch_number)
        e = cudaGraphInstantiate(&l->graph, graph, 0);
    else
        rc = 1;
    if (graph)
        cudaGraphDestroy(graph);
    if (e != cudaSuccess || rc) {
        cudaGetLastError();
        l->graph = NULL;
        return 1;
    }
    l->scratch = scratch;
    return 0;
}

int launch(sw_stream *s)
{
    step_list *l = s->steps->now;
    if ((!l->graph || l->scratch != s->scratch_number) && capture(s)) {
        int rc = run_all(s, l->calls.size());
        return give_up(s) || rc ? -1 : 0;
    }
    CUDA_TRY(s, cudaGraphLaunch(l->graph, s->stream));
    s->steps->reading = true;
    l->misses = 0;
    return 0;
}

/* Pinned memory for the copies of a list that was learnt. */
int make_staging(sw_stream *s, step_list *l)
{
    if (l->staged <= l->room)
        return 0;
    drop_graph(l);
    if (l->staging)
        cudaFreeHost(l->staging);
    l->staging = NULL;
    CUDA_TRY(s, cudaMallocHost((void **)&l->staging, l->staged));
    l->room = l->staged;
    return 0;
}

} // namespace

int cuda_steps_open(sw_stream *s)
{
    s->steps = new cuda_steps();
    CUDA_TRY(s, cudaEventCreateWithFlags(&s->steps->read, cudaEventDisableTiming));
    return 0;
}

void cuda_steps_close(sw_stream *s)
{
    if (!s->steps)
        return;
    for (auto &l : s->steps->lists) {
        drop_graph(&l.second);
        if (l.second.staging)
            cudaFreeHost(l.second.staging);
    }
    if (s->steps->read)
        cudaEventDestroy(s->steps->read);
    delete s->steps;
    s->steps = NULL;
}

int cuda_step_begin(sw_stream *s, uint64_t key)
{
    cuda_steps *o = s->steps;
    if (s->in_step && cuda_step_end(s)) /* of a step that failed */
        return -1;
    if (wait_for_reading(s))
        return -1;
    if (!o->lists.count(key) && o->lists.size() >= MOST_LISTS) {
        for (auto &l : o->lists) {
            o->now = &l.second;
            if (cut(s, &l.second, 0))
                return -1;
        }
        o->lists.clear();
    }
    o->now = &o->lists[key];
    o->at = 0;
    if (o->now->off)
        return 0;
    o->mode = o->now->calls.empty() ? LEARNING : FOLLOWING;
    if (o->mode == FOLLOWING && make_staging(s, o->now))
        return -1;
    s->in_step = true;
    return 0;
}

int cuda_step_boundary(sw_stream *s)
{
    cuda_steps *o = s->steps;
    if (!s->in_step || o->mode == AFTER)
        return 0;
    if (o->mode == FOLLOWING && o->at < o->now->calls.size() && cuda_step_differs(s))
        return -1;
    bool follows = s->in_step && o->mode == FOLLOWING;
    o->mode = AFTER;
    return follows ? launch(s) : 0;
}

int cuda_step_end(sw_stream *s)
{
    int rc = cuda_step_boundary(s);
    if (s->steps->reading)
        CUDA_TRY(s, cudaEventRecord(s->steps->read, s->stream));
    s->in_step = false;
    return rc;
}

cuda_call *cuda_step_next(sw_stream *s)
{
    cuda_steps *o = s->steps;
    return o->mode == FOLLOWING && o->at < o->now->calls.size() ? o->now->calls[o->at].get() : NULL;
}

void cuda_step_matched(sw_stream *s) { s->steps->at++; }

int cuda_step_differs(sw_stream *s)
{
    cuda_steps *o = s->steps;
    if (o->mode == AFTER) /* the host has read something and goes on */
        return give_up(s);
    if (o->mode == LEARNING)
        return 0;
    if (run_all(s, o->at))
        return -1;
    if (++o->now->misses > MOST_MISSES)
        return give_up(s);
    o->mode = LEARNING;
    return cut(s, o->now, o->at);
}

bool cuda_step_learns(const sw_stream *s) { return s->in_step && s->steps->mode == LEARNING; }

void cuda_step_learn(sw_stream *s, cuda_call *call)
{
    step_list *l = s->steps->now;
    l->calls.emplace_back(call);
    if (l->calls.size() > MOST_CALLS || l->staged > MOST_STAGED)
        give_up(s);
}

int cuda_step_memory(sw_stream *s)
{
    return s->in_step && s->steps->mode == FOLLOWING ? cuda_step_differs(s) : 0;
}

int cuda_step_put(sw_stream *s, void *to, const void *from, size_t n)
{
    cuda_steps *o = s->steps;
    if (!s->in_step || !n)
        return 0;
    cuda_call *next = cuda_step_next(s);
    if (next && next->kind == &put_call::name) {
        put_call *p = static_cast<put_call *>(next);
        if (p->to == to && p->n == n) {
            memcpy(o->now->staging + p->offset, from, n);
            cuda_step_matched(s);
            return 1;
        }
    }
    if (cuda_step_differs(s))
        return -1;
    if (cuda_step_learns(s)) {
        size_t offset = o->now->staged;
        o->now->staged += cuda_padded(n);
        cuda_step_learn(s, new put_call(to, n, offset, o->now));
    }
    return 0;
}

bool cuda_unwritten(const sw_stream *s, const sw_tensor *w)
{
    bool unwritten = s->capturing;
    for (size_t i = 0; unwritten && i < s->steps->now->calls.size(); i++)
        unwritten = !s->steps->now->calls[i]->writes(w);
    return unwritten;
}

/* ---- where tensors lie */

namespace {

struct span {
    uintptr_t from, to;
};
span span_of(const sw_tensor *t)
{
    int64_t last = 0;
    if (!t || !t->data)
        return span{0, 0};
    for (int i = 0; i < t->ndim; i++) {
        if (!t->shape[i])
            return span{0, 0};
        last += (t->shape[i] - 1) * t->stride[i];
    }
    const sw_dtype_info *type = &sw_dtypes[t->dtype];
    return span{(uintptr_t)t->data, (uintptr_t)t->data + (size_t)(last / type->block + 1) * (size_t)type->bytes};
}

} // namespace

bool cuda_apart(const sw_tensor *a, const sw_tensor *b)
{
    span u = span_of(a), v = span_of(b);
    return u.to <= v.from || v.to <= u.from;
}

/* ---- what is the same */

bool cuda_same(const sw_tensor &a, const sw_tensor &b)
{
    bool same = a.data == b.data && a.dtype == b.dtype && a.ndim == b.ndim && a.scales == b.scales;
    for (int i = 0; same && i < a.ndim; i++)
        same = a.shape[i] == b.shape[i] && a.stride[i] == b.stride[i];
    return same;
}

bool cuda_same(const sw_attention &a, const sw_attention &b)
{
    return a.scale == b.scale && a.causal == b.causal && a.window == b.window && a.softcap == b.softcap && a.alibi == b.alibi &&
           a.sinks == b.sinks && a.dsinks == b.dsinks && a.bias == b.bias && a.dbias == b.dbias && a.bias_span == b.bias_span &&
           a.bias_zero == b.bias_zero && a.seen == b.seen && a.seen_words == b.seen_words && cuda_same(a.paging, b.paging);
}

bool cuda_same(const sw_paging &a, const sw_paging &b) { return a.page == b.page && a.bits == b.bits && a.most == b.most; }

bool cuda_same(const sw_rng &a, const sw_rng &b) { return a.seed == b.seed && a.step == b.step && a.site == b.site; }

bool cuda_same(const sw_adamw &a, const sw_adamw &b)
{
    return a.lr == b.lr && a.beta1 == b.beta1 && a.beta2 == b.beta2 && a.eps == b.eps && a.decay == b.decay &&
           a.grad_scale == b.grad_scale && a.step == b.step;
}

bool cuda_same(const sw_router &a, const sw_router &b)
{
    return a.score == b.score && a.k == b.k && a.groups == b.groups && a.top_groups == b.top_groups && a.group_by_two == b.group_by_two &&
           a.normalise == b.normalise && a.power == b.power && a.eps == b.eps && a.scale == b.scale && a.jitter == b.jitter &&
           a.given == b.given;
}

bool cuda_same(const sw_matrices &a, const sw_matrices &b)
{
    return cuda_same(a.one, b.one) && a.count == b.count && a.step == b.step && (a.at ? a.table : NULL) == (b.at ? b.table : NULL) &&
           (a.scales ? a.scales_table : NULL) == (b.scales ? b.scales_table : NULL);
}
