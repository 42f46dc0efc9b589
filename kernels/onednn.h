/* oneDNN 2 and 3 as one interface, for matrix products: Debian has had both. */
#ifndef SW_KERNELS_ONEDNN_H
#define SW_KERNELS_ONEDNN_H

#include <oneapi/dnnl/dnnl.h>

/* How the elements of a matrix lie. A zeroed one is none; version 3 owns memory in it. */
typedef dnnl_memory_desc_t sw_dnnl_layout;

#if DNNL_VERSION_MAJOR >= 3

static inline const_dnnl_memory_desc_t sw_dnnl_handle(const sw_dnnl_layout *l) { return *l; }
static inline dnnl_status_t sw_dnnl_layout_make(sw_dnnl_layout *l, dnnl_data_type_t t, const dnnl_dims_t dims, const dnnl_dims_t strides)
{
    return dnnl_memory_desc_create_with_strides(l, 2, dims, t, strides);
}
static inline void sw_dnnl_layout_free(sw_dnnl_layout *l)
{
    if (*l)
        dnnl_memory_desc_destroy(*l);
    *l = NULL;
}
static inline dnnl_status_t sw_dnnl_scratchpad(sw_dnnl_layout *l, const_dnnl_primitive_desc_t pd)
{
    const_dnnl_memory_desc_t is = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    return is ? dnnl_memory_desc_clone(l, is) : dnnl_success;
}
/* The product (with its bias) is multiplied by alpha, and beta times what was there is added; then the larger of that and 0. */
static inline dnnl_status_t sw_dnnl_scale(dnnl_primitive_attr_t attributes, dnnl_post_ops_t after, float alpha, float beta, int relu)
{
    dnnl_status_t e = alpha == 1 ? dnnl_success : dnnl_post_ops_append_eltwise(after, dnnl_eltwise_linear, alpha, 0);
    if (!e && beta != 0)
        e = dnnl_post_ops_append_sum(after, beta, 0, dnnl_data_type_undef);
    if (!e && relu)
        e = dnnl_post_ops_append_eltwise(after, dnnl_eltwise_relu, 0, 0);
    return e ? e : dnnl_primitive_attr_set_post_ops(attributes, after);
}
static inline dnnl_status_t sw_dnnl_matmul(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, const sw_dnnl_layout *a, const sw_dnnl_layout *b,
                                           const sw_dnnl_layout *bias, const sw_dnnl_layout *c, const_dnnl_primitive_attr_t attributes)
{
    return dnnl_matmul_primitive_desc_create(pd, engine, *a, *b, bias ? *bias : NULL, *c, attributes);
}

#else

static inline const dnnl_memory_desc_t *sw_dnnl_handle(const sw_dnnl_layout *l) { return l; }
static inline dnnl_status_t sw_dnnl_layout_make(sw_dnnl_layout *l, dnnl_data_type_t t, const dnnl_dims_t dims, const dnnl_dims_t strides)
{
    return dnnl_memory_desc_init_by_strides(l, 2, dims, t, strides);
}
static inline void sw_dnnl_layout_free(sw_dnnl_layout *l) { (void)l; }
static inline dnnl_status_t sw_dnnl_scratchpad(sw_dnnl_layout *l, const_dnnl_primitive_desc_t pd)
{
    const dnnl_memory_desc_t *is = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    if (is)
        *l = *is;
    return dnnl_success;
}
static inline dnnl_status_t sw_dnnl_scale(dnnl_primitive_attr_t attributes, dnnl_post_ops_t after, float alpha, float beta, int relu)
{
    dnnl_status_t e = alpha == 1 ? dnnl_success : dnnl_primitive_attr_set_output_scales(attributes, 1, 0, &alpha);
    if (!e && beta != 0)
        e = dnnl_post_ops_append_sum(after, beta);
    if (!e && relu)
        e = dnnl_post_ops_append_eltwise(after, 1, dnnl_eltwise_relu, 0, 0);
    return e ? e : dnnl_primitive_attr_set_post_ops(attributes, after);
}
static inline dnnl_status_t sw_dnnl_matmul(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, const sw_dnnl_layout *a, const sw_dnnl_layout *b,
                                           const sw_dnnl_layout *bias, const sw_dnnl_layout *c, const_dnnl_primitive_attr_t attributes)
{
    dnnl_matmul_desc_t d;
    dnnl_status_t e = dnnl_matmul_desc_init(&d, a, b, bias, c);
    return e ? e : dnnl_primitive_desc_create(pd, &d, attributes, engine, NULL);
}

#endif
#endif
