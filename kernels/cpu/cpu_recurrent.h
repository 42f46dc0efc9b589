/* What kernels over sequences with a state share. */
#ifndef SW_KERNELS_CPU_RECURRENT_H
#define SW_KERNELS_CPU_RECURRENT_H

#include "cpu_isa.h"

#include "base/memory.h"

typedef struct sw_run {
    int64_t first, rows, slot;
    bool goes_on; /* from what the slot holds */
} sw_run;

static inline sw_run sw_run_of(const sw_tensor *seqs, int64_t i)
{
    const int32_t *r = (const int32_t *)seqs->data + i * seqs->stride[0];
    return (sw_run){r[0], r[1], r[2], r[2] >= 0 && r[3]};
}

static inline int64_t sw_longest_run(const sw_tensor *seqs)
{
    int64_t most = 0;
    for (int64_t i = 0; i < seqs->shape[0]; i++)
        most = SW_MAX(most, sw_run_of(seqs, i).rows);
    return most;
}

/* n values of row t from column c on, of a [N, ...] whose other dimensions lie in one run. */
static inline const float *sw_load_part(const sw_tensor *x, int64_t t, int64_t c, int64_t n, float *buf)
{
    return sw_load(sw_at(x, t * x->stride[0] + c), x->dtype, n, buf);
}

static inline void sw_store_part(const sw_tensor *y, int64_t t, int64_t c, int64_t n, const float *from)
{
    sw_store(sw_at(y, t * y->stride[0] + c), y->dtype, n, from);
}

#endif
