/* Address space on the GPU that takes memory where it is written and gives the memory of parts back: what ranks share
 * (common/nn/param.h) keeps its place and takes room only where it is. By the driver's virtual memory management. A GPU does
 * not fault in pages: every kernel call says what it will touch (the wrappers of cuda_steps.cuh do), and pieces that are
 * not there are mapped and cleared, in order with the kernels, before it runs. */
#ifndef SW_CUDA_SPARSE_CUH
#define SW_CUDA_SPARSE_CUH

#include "cuda_common.cuh"

/* Fills the device's reserve, release, unreserve and commit where the driver and the GPU can do it. */
int cuda_sparse_open(sw_stream *s, sw_device *d);
void cuda_sparse_close(sw_stream *s);
/* Makes [p, p + n) be there, as far as it lies in reserved space. */
int cuda_sparse_touch(sw_stream *s, const void *p, size_t n);
/* Gives memory that waits for use back to the driver; true when there was some. */
bool cuda_sparse_trim(sw_stream *s);

/* What a kernel is given. */
static inline int cuda_touch_tensor(sw_stream *s, const sw_tensor *t)
{
    if (!t || !t->data)
        return 0;
    int64_t last = 0; /* value that lies furthest */
    for (int i = 0; i < t->ndim; i++) {
        if (!t->shape[i])
            return 0;
        last += (t->shape[i] - 1) * t->stride[i];
    }
    const sw_dtype_info *type = &sw_dtypes[t->dtype];
    return cuda_sparse_touch(s, t->data, (size_t)(last / type->block + 1) * (size_t)type->bytes);
}
static inline int cuda_touch_attention(sw_stream *s, const sw_attention *a)
{
    enum { MOST_HEADS = 4096 }; /* what lies behind a parameter is another one: touching more costs nothing but memory */
    return (a->sinks && cuda_sparse_touch(s, a->sinks, MOST_HEADS * sizeof(float))) ||
                   (a->dsinks && cuda_sparse_touch(s, a->dsinks, MOST_HEADS * sizeof(float)))
               ? -1
               : 0;
}
static inline int cuda_touch_matrices(sw_stream *s, const sw_matrices *m)
{
    for (int64_t i = 0; i < m->count; i++) {
        sw_tensor t = sw_matrix(m, i);
        if (cuda_touch_tensor(s, &t))
            return -1;
    }
    return 0;
}
template <class T> static inline int cuda_touch(sw_stream *s, T v)
{
    typedef typename std::remove_const<typename std::remove_pointer<T>::type>::type pointed;
    if constexpr (std::is_pointer<T>::value && std::is_same<pointed, sw_tensor>::value)
        return cuda_touch_tensor(s, v);
    else if constexpr (std::is_pointer<T>::value && std::is_same<pointed, sw_attention>::value)
        return cuda_touch_attention(s, v);
    else if constexpr (std::is_pointer<T>::value && std::is_same<pointed, sw_matrices>::value)
        return cuda_touch_matrices(s, v);
    return 0;
}

#endif
