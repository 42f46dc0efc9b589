/* Kernels and devices. A device is a table of the kernels in kernels.def plus memory; everything above calls
 * through the table and never knows which device it is on. */
#ifndef SW_KERNELS_H
#define SW_KERNELS_H

#include "base/error.h"
#include "base/philox.h"
#include "kernels/tensor.h"

/* An order of work on a device, with temporary space. Opaque; NULL is right for host devices. */
typedef struct sw_stream sw_stream;

typedef enum sw_act {
    SW_ACT_SILU,      /* x sigmoid(x) */
    SW_ACT_GELU,      /* x Phi(x), by erf */
    SW_ACT_GELU_TANH, /* the tanh form of it */
    SW_ACT_RELU,
    SW_ACT_RELU2, /* relu squared */
    SW_ACT_SIGMOID,
    SW_ACT_TANH,
    SW_ACT_GELU_QUICK, /* x sigmoid(1.702 x) */
    SW_ACT_ELU,        /* exp(x) - 1 below 0, x above */
    SW_ACT_SOFTPLUS,   /* log(1 + exp(x)) */
    SW_ACT_EXP,
    SW_ACT_SQRT, /* 0 below 0; its slope ends at 1000 */
    SW_ACT_NONE,
    SW_ACT_COUNT
} sw_act;

typedef enum sw_rope_mode {
    SW_ROPE_HALF,        /* pairs (i, i + R), as Hugging Face's Llama */
    SW_ROPE_INTERLEAVED, /* pairs (2i, 2i + 1) */
} sw_rope_mode;

enum { SW_MOST_STREAMS = 16 }; /* of hidden states side by side */

/* Rows of a tensor in pages of 1 << bits: row r lies at row (page[r >> bits] << bits) + (r & ((1 << bits) - 1)). A page below 0
 * is nowhere: nobody may ask for its rows. page NULL: row r lies at r. Device memory. */
typedef struct sw_paging {
    const int32_t *page;
    int bits;
    int64_t most; /* rows that a sequence has at most */
} sw_paging;
static inline int64_t sw_paged(const sw_paging *p, int64_t r) /* on host devices */
{
    return p->page ? ((int64_t)p->page[r >> p->bits] << p->bits) + (r & (((int64_t)1 << p->bits) - 1)) : r;
}

typedef struct sw_attention {
    double scale;
    int causal;         /* a query sees no later place */
    int64_t window;     /* > 0: it sees itself and window - 1 places before it (not causal: distance < window) */
    double softcap;     /* > 0: scores become cap tanh(score / cap), before the mask */
    const float *alibi; /* [Hq] slopes or NULL: score += slope * (key place - query place), after the cap; device memory */
    const float *sinks; /* [Hq] or NULL: one more score in the softmax that has no value; device memory */
    float *dsinks;      /* [Hq] += gradient, or NULL */
    /* [Hq, bias_span] or NULL: score += bias[h][key place - query place + bias_zero], after the cap; distances outside of the
     * table take its ends. Device memory. */
    const float *bias;
    float *dbias;       /* [Hq, bias_span] += gradient, or NULL */
    int64_t bias_span, bias_zero;
    /* [N, seen_words] or NULL: query row n sees the key at place j of its sequence only where bit j % 32 of word j / 32 is
     * set; places beyond the words are not seen. Device memory. */
    const uint32_t *seen;
    int64_t seen_words;
    sw_paging paging; /* where the rows of k and v lie that the sequences' keys are */
} sw_attention;

/* How a token is drawn (kernel `sample`). The order is that of Hugging Face and llama.cpp: penalties, temperature, top-k,
 * top-p, min-p, draw. Settings at their neutral values change nothing. */
typedef struct sw_draw {
    double temperature;        /* 0: greedy */
    double top_p;              /* 1: all. Smallest set whose probabilities reach it */
    double min_p;              /* 0: all. Tokens of at least this share of the best one's probability */
    double repetition_penalty; /* 1: none. Logits of tokens seen are divided, negative ones multiplied (Keskar et al. 2019) */
    double presence_penalty;   /* 0: none. Taken off logits of tokens of the answer */
    double frequency_penalty;  /* 0: none. The same times how often */
    int64_t top_k;             /* 0: all */
    sw_rng rng;                /* the draw takes number `place` */
    uint64_t place;
    int32_t seen_first, seen_count; /* rows of `seen` */
    int32_t forced;            /* >= 0: this token and no other, of probability 1 */
    int32_t want_logp;         /* natural, under the softmax of the logits before any setting */
} sw_draw;

typedef struct sw_adamw {
    double lr, beta1, beta2, eps, decay, grad_scale;
    int64_t step; /* from 1 */
} sw_adamw;

/* How the experts of a token are chosen by their scores. SPARSEMIXER (Liu et al. 2024, arXiv 2409.12136) as it is when nothing is
 * sampled: the best is taken k times; each weight is its share in the softmax of those left that are close to it. */
typedef enum sw_router_score { SW_ROUTE_SOFTMAX, SW_ROUTE_SIGMOID, SW_ROUTE_SPARSEMIXER, SW_ROUTE_SQRT_SOFTPLUS } sw_router_score;
enum { SW_MOST_GROUPS = 256 };
typedef struct sw_router {
    sw_router_score score;
    int64_t k;                  /* experts of a token */
    int64_t groups, top_groups; /* > 1: experts come from the top_groups best of so many equal groups */
    bool group_by_two;          /* a group is worth the sum of its two best, else its best */
    bool normalise;             /* weights are divided by their norm + eps */
    double power;               /* of that norm: (sum of s^power)^(1 / power); 0 is 1 */
    double eps, scale;
    double jitter;              /* SW_ROUTE_SPARSEMIXER: how far below the best a score may be, as a share of it, over 2 */
    bool given;                 /* the experts of tokens are known, whatever their scores (ids is an input of route_fwd) */
} sw_router;

/* Matrices of one type and shape, one for each group of rows. */
typedef struct sw_matrices {
    sw_tensor one; /* the first */
    int64_t count;
    int64_t step;             /* values from one to the next */
    const void *const *at;    /* or, where they lie anyhow: where each begins. Host memory; */
    const void *const *table; /* and the same list in the device's */
    const sw_scales *const *scales;  /* of each, where those in `at` are 8-bit floats with scales, which are alike but for where */
    const void *const *scales_table; /* they lie: in device memory, the first of each */
} sw_matrices;
static inline sw_tensor sw_matrix(const sw_matrices *m, int64_t i)
{
    sw_tensor t = m->one;
    t.data = m->at ? (void *)(uintptr_t)m->at[i] : (char *)t.data + sw_dtype_bytes(t.dtype, i * m->step);
    t.scales = m->scales ? m->scales[i] : t.scales;
    return t;
}

typedef struct sw_kernels {
#define K(name, args) int(*name) args;
#include "kernels/kernels.def"
#undef K
} sw_kernels;

/* The plain list of names, for tests and reports. */
typedef enum sw_kernel_id {
#define K(name, args) SW_K_##name,
#include "kernels/kernels.def"
#undef K
    SW_KERNEL_COUNT
} sw_kernel_id;
extern const char *const sw_kernel_names[SW_KERNEL_COUNT];

typedef struct sw_device {
    const char *name;   /* "cpu", "reference", "cuda:0" */
    const sw_kernels *k;
    /* The same, but linear_fwd and grouped_fwd may round x: to 16 bits, in blocks of 32, where w is quantised, or to e4m3 where w is (a scale for a
     * row of x, or for 128 of its values, as w's scales are): for generating tokens one by one, where reading w sets the time.
     * Then what a row is rounded to does not depend on how many there are; on host devices its results do not either, to the bit.
     * NULL: nothing to gain. */
    const sw_kernels *rounding;
    sw_stream *stream;
    bool host;          /* its memory can be read and written by the host directly */
    bool low_precision; /* bf16 products are faster than f32 ones */
    /* Memory, 64-byte aligned, not zeroed. NULL (with sw_error) when there is none left. */
    void *(*alloc)(struct sw_device *d, size_t n);
    void (*free)(struct sw_device *d, void *p);
    /* Address space that reads as zeros and takes memory where it is written; release gives the memory of a part back,
     * which then reads as zeros again (from any thread; nothing may be using it). NULL: this device has no such memory.
     * Freed with unreserve. */
    void *(*reserve)(struct sw_device *d, size_t n);
    void (*release)(struct sw_device *d, void *p, size_t n);
    void (*unreserve)(struct sw_device *d, void *p, size_t n);
    /* Before somebody else than this device (an engine of communication) reads or writes a part of it: makes its memory be
     * there. NULL: it always is. Other memory may be given too. */
    int (*commit)(struct sw_device *d, void *p, size_t n);
    /* Bytes that are free now, and all. NULL: the system's own. */
    int (*memory)(struct sw_device *d, size_t *left, size_t *total);
    /* Between host and device; ordered with the kernels, done when they return. */
    int (*put)(struct sw_device *d, void *to, const void *from_host, size_t n);
    int (*get)(struct sw_device *d, void *to_host, const void *from, size_t n);
    /* As put, but beside the kernels and not in order with them. `to` is memory of alloc which nothing uses that was asked for
     * later than the mark `after` (NULL: nothing at all); what is asked for from now on finds the bytes. NULL: put is as good. */
    int (*send)(struct sw_device *d, void *to, const void *from_host, size_t n, void *after);
    int (*sync)(struct sw_device *d);
    /* A place in the order of work: what was asked for so far. An engine that works beside the device can wait for it
     * (a cudaEvent_t of the caller's `was`, or of a new one that it returns; free with unmark). NULL: sync instead. */
    void *(*mark)(struct sw_device *d, void *was);
    void (*unmark)(struct sw_device *d, void *mark);
    /* Around a step that will come again asking for the same with other numbers in the device's memory (decoding a token):
     * the device may send it off as a whole. `key` tells steps of different shapes apart. In between what is asked for may
     * be put off until the host waits for something; the results are the same. NULL: nothing to gain. */
    int (*begin)(struct sw_device *d, uint64_t key);
    int (*end)(struct sw_device *d);
    void (*close)(struct sw_device *d);
    char description[128]; /* "AMD EPYC, avx512", for people */
} sw_device;

/* "cpu", "reference", "cuda[:N]", or NULL for the best there is (a GPU that can be used, else the CPU). An unknown or
 * absent one is an error that says what is missing. Test programs have "emulator" too: the CUDA kernels on the CPU
 * (tests/emulator). Free with d->close(d). */
sw_device *sw_device_open(const char *name) SW_MUST_CHECK;

/* Temporary space of a stream: at least n bytes, 64-byte aligned, until the next call on that stream by this thread.
 * (host devices: per thread, kept for reuse). NULL when out of memory. */
void *sw_stream_scratch(sw_stream *s, size_t n);

extern const sw_kernels sw_kernels_reference;
/* The CPU's tables for this processor, and the name of the level chosen ("avx512"); SWIFT_ISA=base|avx2|avx512 in the
 * environment forces one. */
const sw_kernels *sw_kernels_cpu(const char **level, const sw_kernels **rounding);

#endif
