/* Steps that come again the same way (a token for each sequence that is being generated) as one CUDA graph.
 *
 * Between begin and end the calls of kernels and the copies to the device are noted with all that they are given. A step
 * that begins under the same key is compared call by call: while it asks for the same it is only compared, and where the
 * host wants a result all of it is launched as one graph. What changes from step to step (positions, lengths, tables of rows)
 * lies in device memory and comes by copies whose bytes are staged in pinned memory of the graph. The first call that
 * differs (another address, shape or number) ends the comparing: what was put off is run as it would have been, and the
 * step is noted anew. A step that goes on after the host has read something, or that differs time and again, is not tried
 * any more. So a step gives what it would give without all this, whatever it does.
 *
 * Outside of steps (training, prompts) a call that one kernel may do together with the next waits for that one; so the last call
 * may be one that is not launched yet, and whatever else is done in the order of the stream settles it first. */
#ifndef SW_CUDA_STEPS_CUH
#define SW_CUDA_STEPS_CUH

#include "cuda_skinny.cuh"
#include "cuda_sparse.cuh"

/* A call with what it was given, by value. */
struct cuda_call {
    const void *kind;
    explicit cuda_call(const void *kind_) : kind(kind_) {}
    virtual ~cuda_call() {}
    virtual int run(sw_stream *s) = 0;
    /* Whether it may write where w lies. */
    virtual bool writes(const sw_tensor *w) const = 0;
};

int cuda_steps_open(sw_stream *s);
void cuda_steps_close(sw_stream *s);
int cuda_step_begin(sw_stream *s, uint64_t key);
int cuda_step_end(sw_stream *s);
/* Before the host waits for the device. */
int cuda_step_boundary(sw_stream *s);
/* Before memory is asked for or given back. */
int cuda_step_memory(sw_stream *s);
/* A copy to the device: 1 when it is done or put off, 0 when the caller has to do it, -1. */
int cuda_step_put(sw_stream *s, void *to, const void *from, size_t n);

/* For the wrappers of kernels: what the list has next while a step is compared (NULL: it is not, or the list has ended). */
cuda_call *cuda_step_next(sw_stream *s);
void cuda_step_matched(sw_stream *s);
/* The call to come is not the next of the list: what was put off is run. */
int cuda_step_differs(sw_stream *s);
bool cuda_step_learns(const sw_stream *s);
void cuda_step_learn(sw_stream *s, cuda_call *call);

/* Whether no call of the list that is being captured may write to w: a graph begins when all that came before it is done, so that
 * its kernels may read w before they have waited for each other. */
bool cuda_unwritten(const sw_stream *s, const sw_tensor *w);

/* Whether there is nothing between the first and last value of one (NULL: none) that is between those of the other. */
bool cuda_apart(const sw_tensor *a, const sw_tensor *b);

/* A call outside of steps, after the one that is kept, if any: together where cuda_fuse can. One that `waits` is kept in turn.
 * Takes `call`. */
int cuda_call_next(sw_stream *s, cuda_call *call, bool waits);
/* Launches the call that is kept. */
int cuda_run_kept(sw_stream *s);
static inline int cuda_settle(sw_stream *s) { return s->kept ? cuda_run_kept(s) : 0; }

bool cuda_same(const sw_tensor &a, const sw_tensor &b);
bool cuda_same(const sw_attention &a, const sw_attention &b);
bool cuda_same(const sw_rng &a, const sw_rng &b);
bool cuda_same(const sw_adamw &a, const sw_adamw &b);
bool cuda_same(const sw_router &a, const sw_router &b);
bool cuda_same(const sw_matrices &a, const sw_matrices &b);
bool cuda_same(const sw_paging &a, const sw_paging &b);

template <class T> struct cuda_kept {
    T value;
    explicit cuda_kept(T v) : value(v) {}
    bool same(T v) const { return value == v; }
    T give() { return value; }
};
template <class T> struct cuda_kept<T *> {
    bool there;
    typename std::remove_const<T>::type value;
    explicit cuda_kept(T *p) : there(p != NULL), value()
    {
        if (p)
            value = *p;
    }
    bool same(T *p) const { return there == (p != NULL) && (!p || cuda_same(value, *p)); }
    T *give() { return there ? &value : NULL; }
};

/* An argument that a kernel may write to w by. */
template <class T> static inline bool cuda_writes(const T &, const sw_tensor *) { return false; }
static inline bool cuda_writes(const cuda_kept<sw_tensor *> &t, const sw_tensor *w) { return t.there && !cuda_apart(&t.value, w); }
/* Of kernels that also write by what they are given as constant. */
static inline bool cuda_writes_anywhere(const void *kernel)
{
    return kernel == (const void *)cuda_grouped_bwd_w || kernel == (const void *)cuda_attention_bwd;
}

/* Whether a call of F may be the first of a pair. */
template <bool WAITS> struct cuda_call_waits {
    template <class... A> static bool of(const sw_stream *, const A &...) { return WAITS; }
};
template <auto F> struct cuda_waits : cuda_call_waits<false> {};
template <> struct cuda_waits<cuda_add> : cuda_call_waits<true> {};
template <> struct cuda_waits<cuda_rope> : cuda_call_waits<true> {};
template <> struct cuda_waits<cuda_scatter_rows> : cuda_call_waits<true> {};
template <> struct cuda_waits<cuda_linear_bwd_x> {
    static bool of(const sw_stream *s, const sw_tensor *dx, const sw_tensor *dy, const sw_tensor *w, double alpha, double beta)
    {
        cuda_skinny p;
        return cuda_skinny_back_x(s, dx, dy, w, alpha, beta, &p);
    }
};

/* A kernel of the table as programs call it. */
template <auto F> struct cuda_step_kernel;
template <class... A, int (*F)(sw_stream *, A...)> struct cuda_step_kernel<F> : cuda_call {
    std::tuple<cuda_kept<A>...> args;
    explicit cuda_step_kernel(A... a) : cuda_call((const void *)F), args(cuda_kept<A>(a)...) {}
    bool same(A... a) const
    {
        return std::apply([&](const cuda_kept<A> &...kept) { return (kept.same(a) && ...); }, args);
    }
    int run(sw_stream *s) override
    {
        return std::apply([&](cuda_kept<A> &...kept) { return F(s, kept.give()...); }, args);
    }
    bool writes(const sw_tensor *w) const override
    {
        return cuda_writes_anywhere(kind) ||
               std::apply([&](const cuda_kept<A> &...kept) { return (cuda_writes(kept, w) || ...); }, args);
    }
    static int call(sw_stream *s, A... a)
    {
        if (cuda_arrive(s) || (s->sparse && (cuda_touch(s, a) || ...)))
            return -1;
        if (!s->in_step) {
            bool waits = cuda_waits<F>::of(s, a...);
            return waits || s->kept ? cuda_call_next(s, new cuda_step_kernel(a...), waits) : F(s, a...);
        }
        cuda_call *next = cuda_step_next(s);
        if (next && next->kind == (const void *)F && static_cast<cuda_step_kernel *>(next)->same(a...)) {
            cuda_step_matched(s);
            return 0;
        }
        if (cuda_step_differs(s) || F(s, a...))
            return -1;
        if (cuda_step_learns(s))
            cuda_step_learn(s, new cuda_step_kernel(a...));
        return 0;
    }
};

#endif
