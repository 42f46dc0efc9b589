/* Kind quant: bytes and values of stored types (shared INDEX.md "quant"). A case is X.json beside X.safetensors. */
#include "golden.h"

#include "base/fileio.h"
#include "base/json.h"
#include "store/quant.h"
#include "store/safetensors.h"

#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int is_case(const char *path)
{
    char *json = sw_strfmt("%s.json", path), *tensors = sw_strfmt("%s.safetensors", path);
    int yes = sw_is_file(json) && sw_is_file(tensors);
    free(json);
    free(tensors);
    return yes;
}

typedef struct gguf_case {
    sw_safetensors *t, *source, *importance;
    const cJSON *rmse;
    sw_dtype dtype;
} gguf_case;

static const sw_entry *need(const sw_safetensors *s, const char *prefix, const char *name)
{
    char *full = sw_strfmt("%s%s", prefix, name);
    const sw_entry *e = sw_st_find(s, full);
    if (!e)
        sw_fail("the tensor %s is missing", full);
    free(full);
    return e;
}

/* Sum of w * (x - decoded)^2 over rows of packed values; NaN on failure. */
static double squared_error(const gguf_case *c, const uint8_t *packed, const float *x, const float *w, int64_t rows, int64_t n)
{
    float *y = SW_NEW_ARRAY(float, (size_t)n);
    double sum = 0;
    for (int64_t r = 0; r < rows; r++) {
        if (sw_dequantise(y, packed + sw_dtype_bytes(c->dtype, r * n), c->dtype, n))
            sum = NAN;
        for (int64_t i = 0; i < n; i++)
            sum += (w ? w[i] : 1) * (x[r * n + i] - (double)y[i]) * (x[r * n + i] - (double)y[i]);
    }
    free(y);
    return sum;
}

static int quantise_rows(const gguf_case *c, uint8_t *out, const float *x, const float *w, int64_t rows, int64_t n)
{
    for (int64_t r = 0; r < rows; r++)
        if (sw_quantise(out + sw_dtype_bytes(c->dtype, r * n), c->dtype, x + r * n, n, w))
            return -1;
    return 0;
}

/* Types without a search have one right encoding; others must come within 2 % of the error that was recorded. */
static bool has_one_encoding(sw_dtype t)
{
    return (sw_dtypes[t].block < 256 && t != SW_IQ4_NL) || t == SW_TQ1_0 || t == SW_TQ2_0;
}

static int check_written(const gguf_case *c, const char *name, const uint8_t *theirs, const float *x, int64_t rows, int64_t n)
{
    size_t bytes = sw_dtype_bytes(c->dtype, rows * n);
    uint8_t *ours = sw_malloc(bytes);
    double bound = 0;
    int rc = quantise_rows(c, ours, x, NULL, rows, n);
    if (!rc && has_one_encoding(c->dtype)) {
        size_t at = 0;
        while (at < bytes && ours[at] == theirs[at])
            at++;
        if (at < bytes)
            rc = sw_fail("%s: quantised byte %zu is %02x, %02x was expected", name, at, ours[at], theirs[at]);
    } else if (!rc && !(rc = sw_json_f64(c->rmse, name, 0, &bound))) {
        double got = sqrt(squared_error(c, ours, x, NULL, rows, n) / (double)(rows * n));
        if (!(got <= 1.02 * bound))
            rc = sw_fail("%s: rmse %.6g after quantising, %.6g is to be reached within 2 %%", name, got, bound);
    }
    free(ours);
    return rc;
}

/* With importance the weighted error counts. */
static int check_weighted(const gguf_case *c, const char *name, const float *x, int64_t rows, int64_t n)
{
    char *full = sw_strfmt("bytes_imatrix/%s", name);
    const sw_entry *theirs = sw_st_find(c->t, full), *w = c->importance ? sw_st_find(c->importance, name) : NULL;
    free(full);
    if (!theirs || !w || sw_numel(&w->t) != n || sw_tensor_bytes(&theirs->t) != sw_dtype_bytes(c->dtype, rows * n))
        return 0;
    uint8_t *ours = sw_malloc(sw_tensor_bytes(&theirs->t));
    int rc = quantise_rows(c, ours, x, w->t.data, rows, n);
    if (!rc) {
        double got = squared_error(c, ours, x, w->t.data, rows, n), bound = squared_error(c, theirs->t.data, x, w->t.data, rows, n);
        if (!(got <= 1.02 * 1.02 * bound))
            rc = sw_fail("%s: weighted squared error %.6g, %.6g is to be reached within 4 %%", name, got, bound);
    }
    free(ours);
    return rc;
}

static int check_matrix(const gguf_case *c, const sw_entry *packed, double *worst)
{
    const char *name = packed->name + strlen("bytes/");
    const sw_entry *want = need(c->t, "dequant/", name), *source = want ? need(c->source, "", name) : NULL;
    if (!source)
        return -1;
    int64_t rows = want->t.shape[0], n = want->t.shape[1];
    if (want->t.ndim != 2 || want->t.dtype != SW_F32 || source->t.dtype != SW_F32 || sw_numel(&source->t) != rows * n ||
        n % sw_dtypes[c->dtype].block || sw_tensor_bytes(&packed->t) != sw_dtype_bytes(c->dtype, rows * n))
        return sw_fail("%s: shapes do not fit each other", name);
    float *got = SW_NEW_ARRAY(float, (size_t)(rows * n));
    int rc = sw_dequantise(got, packed->t.data, c->dtype, rows * n);
    if (!rc) {
        double d = golden_max_diff(got, want->t.data, (size_t)(rows * n));
        *worst = fmax(*worst, d);
        rc = d == 0 ? 0 : sw_fail("%s: values differ by up to %.3g, they must be equal", name, d);
    }
    free(got);
    if (rc || !sw_is_written(c->dtype))
        return rc;
    rc = check_written(c, name, packed->t.data, source->t.data, rows, n);
    return rc ? rc : check_weighted(c, name, source->t.data, rows, n);
}

static int run_gguf(const char *path, const cJSON *json, double *worst)
{
    int64_t type;
    const char *name;
    if (sw_json_i64(json, "ggml_type", 0, INT32_MAX, 0, &type) || sw_json_str(json, "type", "?", &name))
        return -1;
    gguf_case c = {.dtype = sw_dtype_by_gguf((int)type), .rmse = sw_json_get(json, "rmse")};
    if (c.dtype == SW_DTYPE_COUNT)
        return sw_fail("the type %s (%d) is not known", name, (int)type);
    char *tensors = sw_strfmt("%s.safetensors", path), *copy = sw_strdup(path);
    char *source = sw_path_join(dirname(copy), "source.safetensors"), *importance = sw_path_join(copy, "imatrix.safetensors");
    int rc = (c.t = sw_st_open(tensors)) && (c.source = sw_st_open(source)) ? 0 : -1;
    if (!rc && sw_is_file(importance) && !(c.importance = sw_st_open(importance)))
        rc = -1;
    size_t checked = 0;
    for (size_t i = 0; !rc && i < sw_st_count(c.t); i++)
        if (sw_starts_with(sw_st_at(c.t, i)->name, "bytes/")) {
            rc = check_matrix(&c, sw_st_at(c.t, i), worst);
            checked++;
        }
    if (!rc && !checked)
        rc = sw_fail("no tensor is named bytes/...");
    sw_st_close(c.t);
    sw_st_close(c.source);
    sw_st_close(c.importance);
    free(tensors);
    free(copy);
    free(source);
    free(importance);
    return rc;
}

static int run(const char *path, double *worst)
{
    char *file = sw_strfmt("%s.json", path);
    cJSON *json = sw_json_load(file);
    int rc = -1;
    if (json)
        rc = sw_json_get(json, "ggml_type") ? run_gguf(path, json, worst) : sw_fail("this kind of quantisation is not known");
    cJSON_Delete(json);
    free(file);
    return rc;
}

const golden_kind golden_quant = {"quant", is_case, run, ".json"};
