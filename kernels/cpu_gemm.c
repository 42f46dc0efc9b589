#include "kernels/cpu_gemm.h"

#include "base/memory.h"
#include "kernels/onednn.h"

#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* What a primitive is made for; compared as bytes, so it is zeroed before it is filled. */
typedef struct key {
    int64_t m, n, k, a_row, a_column, b_row, b_column, c_row;
    int type, c_type, bias, relu, threads;
    float alpha, beta;
} key;

typedef struct entry {
    key key;
    dnnl_primitive_t primitive;
    sw_dnnl_layout a, b, c, bias, scratchpad;
} entry;

/* Open addressing; emptied when it is half full (shapes come and go with the lengths of prompts). */
enum { SLOTS = 1024 };
static entry slots[SLOTS];
static int used;
static dnnl_engine_t engine;
/* Held for reading while a product runs, for writing while the table changes. */
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;

static dnnl_data_type_t type_of(sw_dtype t) { return t == SW_BF16 ? dnnl_bf16 : dnnl_f32; }

static uint64_t hash_of(const key *k)
{
    uint64_t h = 0xcbf29ce484222325u, word;
    for (size_t i = 0; i + sizeof word <= sizeof *k; i += sizeof word) {
        memcpy(&word, (const char *)k + i, sizeof word);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return h;
}

/* The entry of k, or the empty slot where it goes. */
static entry *find(const key *k)
{
    uint64_t h = hash_of(k);
    while (slots[h % SLOTS].primitive && memcmp(&slots[h % SLOTS].key, k, sizeof *k) != 0)
        h++;
    return &slots[h % SLOTS];
}

static void forget(entry *p)
{
    if (p->primitive)
        dnnl_primitive_destroy(p->primitive);
    sw_dnnl_layout *layouts[] = {&p->a, &p->b, &p->c, &p->bias, &p->scratchpad};
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        sw_dnnl_layout_free(layouts[i]);
}

static void forget_all(void)
{
    for (int i = 0; i < SLOTS; i++)
        if (slots[i].primitive)
            forget(&slots[i]);
    memset(slots, 0, sizeof slots);
    used = 0;
}

static dnnl_status_t make_attributes(const key *k, dnnl_primitive_attr_t *out)
{
    dnnl_post_ops_t after = NULL;
    dnnl_status_t e = dnnl_primitive_attr_create(out);
    if (!e) /* shared by threads, so its temporary space is the caller's */
        e = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    if (!e && (k->alpha != 1 || k->beta != 0 || k->relu)) {
        e = dnnl_post_ops_create(&after);
        if (!e)
            e = sw_dnnl_scale(*out, after, k->alpha, k->beta, k->relu);
        dnnl_post_ops_destroy(after);
    }
    return e;
}

static dnnl_status_t make(entry *p, const key *k)
{
    dnnl_dims_t a = {k->m, k->k}, b = {k->k, k->n}, c = {k->m, k->n}, row = {1, k->n};
    dnnl_dims_t as = {k->a_row, k->a_column}, bs = {k->b_row, k->b_column}, cs = {k->c_row, 1}, rs = {k->n, 1};
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t e = engine ? dnnl_success : dnnl_engine_create(&engine, dnnl_cpu, 0);
    if (!e)
        e = sw_dnnl_layout_make(&p->a, (dnnl_data_type_t)k->type, a, as);
    if (!e)
        e = sw_dnnl_layout_make(&p->b, (dnnl_data_type_t)k->type, b, bs);
    if (!e)
        e = sw_dnnl_layout_make(&p->c, (dnnl_data_type_t)k->c_type, c, cs);
    if (!e)
        e = sw_dnnl_layout_make(&p->bias, dnnl_f32, row, rs);
    if (!e)
        e = make_attributes(k, &attributes);
    if (!e)
        e = sw_dnnl_matmul(&pd, engine, &p->a, &p->b, k->bias ? &p->bias : NULL, &p->c, attributes);
    if (!e)
        e = sw_dnnl_scratchpad(&p->scratchpad, pd);
    if (!e)
        e = dnnl_primitive_create(&p->primitive, pd);
    if (e)
        forget(p);
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    if (attributes)
        dnnl_primitive_attr_destroy(attributes);
    return e;
}

/* What one thread keeps: its stream, and room for what primitives put down while they run. */
static _Thread_local struct {
    dnnl_stream_t stream;
    void *space;
    size_t size;
} own;
static pthread_key_t at_exit;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void free_own(void *space)
{
    (void)space;
    if (own.stream)
        dnnl_stream_destroy(own.stream);
    free(own.space);
    own.stream = NULL;
    own.space = NULL;
    own.size = 0;
}
static void make_key(void) { pthread_key_create(&at_exit, free_own); }

static int prepare_own(size_t space)
{
    pthread_once(&once, make_key);
    if (!own.stream) {
        if (dnnl_stream_create(&own.stream, engine, dnnl_stream_default_flags))
            return sw_fail("oneDNN: no stream");
        pthread_setspecific(at_exit, &own);
    }
    if (space > own.size) {
        free(own.space);
        own.size = 0;
        if (posix_memalign(&own.space, 4096, space)) {
            own.space = NULL;
            return sw_fail("out of memory: %zu bytes for a matrix product", space);
        }
        own.size = space;
    }
    return 0;
}

static dnnl_status_t execute(const entry *p, const sw_gemm *g)
{
    const struct {
        int arg;
        const sw_dnnl_layout *d;
        void *data;
    } operand[] = {{DNNL_ARG_SRC, &p->a, (void *)(uintptr_t)g->a.data},
                   {DNNL_ARG_WEIGHTS, &p->b, (void *)(uintptr_t)g->b.data},
                   {DNNL_ARG_DST, &p->c, g->c},
                   {DNNL_ARG_SCRATCHPAD, &p->scratchpad, own.space},
                   {DNNL_ARG_BIAS, &p->bias, (void *)(uintptr_t)g->bias}};
    dnnl_exec_arg_t args[5];
    int n = g->bias ? 5 : 4, made = 0;
    dnnl_status_t e = dnnl_success;
    for (; made < n && !e; made++) {
        args[made].arg = operand[made].arg;
        e = dnnl_memory_create(&args[made].memory, sw_dnnl_handle(operand[made].d), engine, operand[made].data);
        if (e)
            break;
    }
    if (!e)
        e = dnnl_primitive_execute(p->primitive, own.stream, n, args);
    if (!e)
        e = dnnl_stream_wait(own.stream);
    while (made)
        dnnl_memory_destroy(args[--made].memory);
    return e;
}

/* oneDNN 3.7 takes the elements of a with one row, and of c with one column, for neighbours whatever their stride is: those that
 * are none are copied. */
static void copy_apart(void *to, int64_t to_stride, const void *from, int64_t from_stride, int64_t n, size_t bytes)
{
    for (int64_t i = 0; i < n; i++)
        memcpy((char *)to + (size_t)(i * to_stride) * bytes, (const char *)from + (size_t)(i * from_stride) * bytes, bytes);
}
static size_t bytes_of(sw_dtype t) { return t == SW_BF16 ? 2 : 4; }

int sw_cpu_gemm(const sw_gemm *given)
{
    sw_gemm near = *given;
    const sw_gemm *g = &near;
    bool gather = g->m == 1 && g->a.column != 1, scatter = g->n == 1 && g->m > 1 && g->c_row != 1;
    if (gather)
        near.a.row = g->k, near.a.column = 1;
    if (scatter)
        near.c_row = 1;
    key k;
    memset(&k, 0, sizeof k);
    k.m = g->m, k.n = g->n, k.k = g->k;
    /* a stride along a dimension of one element says nothing: the usual one is put there */
    bool a_plain = g->a.column == 1 && (g->m == 1 || g->a.row >= g->k), b_plain = g->b.column == 1 && (g->k == 1 || g->b.row >= g->n);
    k.a_row = g->m == 1 && a_plain ? g->k : g->a.row, k.a_column = g->k == 1 && !a_plain ? g->m : g->a.column;
    k.b_row = g->k == 1 && b_plain ? g->n : g->b.row, k.b_column = g->n == 1 && !b_plain ? g->k : g->b.column;
    k.c_row = g->m == 1 ? g->n : g->c_row;
    k.type = type_of(g->type), k.c_type = type_of(g->c_type), k.bias = g->bias != NULL, k.relu = g->relu;
    k.threads = omp_get_max_threads(), k.alpha = g->alpha, k.beta = g->beta;
    pthread_rwlock_rdlock(&lock);
    entry *p = find(&k);
    dnnl_status_t e = dnnl_success;
    while (!p->primitive && !e) { /* again when another thread has emptied the table between the two locks */
        pthread_rwlock_unlock(&lock);
        pthread_rwlock_wrlock(&lock);
        if (used >= SLOTS / 2)
            forget_all();
        p = find(&k);
        if (!p->primitive) {
            entry made = {.key = k};
            e = make(&made, &k);
            if (!e) {
                memcpy(&made.key, &k, sizeof k);
                *p = made;
                used++;
            }
        }
        pthread_rwlock_unlock(&lock);
        pthread_rwlock_rdlock(&lock);
        p = find(&k);
    }
    int rc = 0;
    if (!e) {
        size_t scratch = (dnnl_memory_desc_get_size(sw_dnnl_handle(&p->scratchpad)) + 63) & ~(size_t)63;
        size_t row = gather ? (size_t)g->k * bytes_of(g->type) : 0, column = scatter ? (size_t)g->m * bytes_of(g->c_type) : 0;
        rc = prepare_own(scratch + SW_MAX(row, column));
        if (!rc && gather) {
            near.a.data = (char *)own.space + scratch;
            copy_apart((char *)own.space + scratch, 1, given->a.data, given->a.column, g->k, bytes_of(g->type));
        }
        if (!rc && scatter) {
            near.c = (char *)own.space + scratch;
            copy_apart(near.c, 1, given->c, given->c_row, g->m, bytes_of(g->c_type));
        }
        if (!rc)
            e = execute(p, g);
        if (!rc && !e && scatter)
            copy_apart(given->c, given->c_row, near.c, 1, g->m, bytes_of(g->c_type));
    }
    pthread_rwlock_unlock(&lock);
    if (e)
        return sw_fail("oneDNN cannot multiply [%lld, %lld] by [%lld, %lld] in %s (status %d)", (long long)g->m, (long long)g->k,
                       (long long)g->k, (long long)g->n, sw_dtypes[g->type].name, (int)e);
    return rc;
}
