#include "store/scaled.h"

#include "base/json.h"
#include "base/memory.h"
#include "store/made.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- methods */

static bool is_float_8(const cJSON *weights)
{
    const cJSON *bits = sw_json_get(weights, "num_bits"), *type = sw_json_get(weights, "type");
    return cJSON_IsNumber(bits) && bits->valuedouble == 8 && cJSON_IsString(type) && !strcmp(type->valuestring, "float");
}

/* Of compressed-tensors: all groups of weights are 8-bit floats. */
static bool are_float_8(const cJSON *q)
{
    const cJSON *groups = sw_json_get(q, "config_groups");
    for (const cJSON *g = groups ? groups->child : NULL; g; g = g->next)
        if (!is_float_8(sw_json_get(g, "weights")))
            return false;
    return groups && groups->child;
}

/* What other methods write in place of a matrix, so that whoever has such a folder knows what they have. */
static const char *layout_of(const char *method)
{
    static const char *const known[][2] = {{"gptq", "packed integers with zeros and scales a group: qweight, qzeros, scales, g_idx"},
                                           {"awq", "packed integers with zeros and scales a group: qweight, qzeros, scales"},
                                           {"aqlm", "codes of additive codebooks: codes, codebooks, scales"},
                                           {"bitsandbytes", "blocks of 4 or 8 bits with scales: quant_state, SCB"}};
    for (size_t i = 0; i < SW_COUNT(known); i++)
        if (!strcmp(known[i][0], method))
            return known[i][1];
    return "";
}

int sw_scaled_check(const cJSON *config)
{
    const cJSON *q = sw_json_get(config, "quantization_config");
    const char *method;
    if (!q)
        return 0;
    if (!cJSON_IsObject(q))
        return sw_fail("\"quantization_config\": an object is needed, not %s", sw_json_kind(q));
    if (sw_json_str(q, "quant_method", "", &method))
        return sw_fail_in("\"quantization_config\"");
    if (!strcmp(method, "fp8") || !strcmp(method, "fbgemm_fp8") || !strcmp(method, "mxfp4") || (!strcmp(method, "compressed-tensors") && are_float_8(q)))
        return 0;
    const char *layout = layout_of(method);
    return sw_fail("is quantised already (%s)%s%s: of such weights only 8-bit floats (fp8, fbgemm_fp8, compressed-tensors of 8-bit floats) and mxfp4 "
                   "are read; give the model it was made from, or a GGUF file of it",
                   *method ? method : "a quantization_config without quant_method", *layout ? ", " : "", layout);
}

/* The configuration's block, or 0. */
static int block_of(const cJSON *config, int64_t block[2])
{
    const cJSON *q = sw_json_get(config, "quantization_config"), *list = sw_json_get(q, "weight_block_size");
    block[0] = block[1] = 0;
    if (!list) { /* compressed-tensors says it by group; a model has one */
        const cJSON *groups = sw_json_get(q, "config_groups");
        list = groups && groups->child ? sw_json_get(sw_json_get(groups->child, "weights"), "block_structure") : NULL;
    }
    if (!list)
        return 0;
    const cJSON *a = cJSON_IsArray(list) ? list->child : NULL, *b = a ? a->next : NULL;
    if (!cJSON_IsNumber(a) || !cJSON_IsNumber(b) || !(a->valuedouble >= 1 && a->valuedouble <= 1 << 20) || !(b->valuedouble >= 1 && b->valuedouble <= 1 << 20))
        return sw_fail("\"weight_block_size\": two sizes are needed");
    block[0] = (int64_t)a->valuedouble;
    block[1] = (int64_t)b->valuedouble;
    return 0;
}

/* ---- 8-bit floats */

typedef struct scaled {
    sw_made base;
    sw_coded c;
} scaled;

static float tables[2][256];

static void fill_tables(void)
{
    for (int i = 0; i < 256; i++) {
        uint8_t byte = (uint8_t)i;
        tables[0][i] = (float)sw_scalar_get(&byte, SW_F8_E4M3, 0);
        tables[1][i] = (float)sw_scalar_get(&byte, SW_F8_E5M2, 0);
    }
}

static const float *table_of(sw_dtype t)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_tables);
    return tables[t == SW_F8_E5M2];
}

/* The scale number `at`. */
static int scale_at(const sw_coded *c, int64_t at, float *scale)
{
    *scale = (float)sw_scalar_get(c->scales->t.data, c->scales->t.dtype, at);
    return isfinite(*scale) ? 0 : sw_fail("%s: scale %" PRId64 " is no number", c->scales->name, at);
}

int sw_coded_scales(const sw_coded *c, float *to, int64_t line)
{
    int64_t own = sw_coded_line(c);
    for (int64_t r = 0; r < c->matrices * sw_coded_lines(c); r++, to += line) {
        for (int64_t k = 0; k < own; k++)
            if (scale_at(c, r * own + k, to + k))
                return -1;
        memset(to + own, 0, (size_t)(line - own) * sizeof *to);
    }
    return 0;
}

int sw_coded_rows(const sw_coded *c, int64_t first, int64_t n, float *to)
{
    const float *value = table_of(c->values->t.dtype);
    for (int64_t r = first; r < first + n; r++, to += c->width) {
        const uint8_t *from = (const uint8_t *)c->values->t.data + r * c->width;
        int64_t at = (r / c->rows * sw_coded_lines(c) + r % c->rows / c->high) * sw_coded_line(c);
        for (int64_t k = 0; k < c->width; at++) {
            float scale;
            if (scale_at(c, at, &scale))
                return -1;
            for (int64_t end = SW_MIN(k + c->wide, c->width); k < end; k++)
                to[k] = value[from[k]] * scale;
        }
    }
    return 0;
}

static int scaled_rows(const sw_made *base, int64_t first, int64_t n, void *out)
{
    const sw_coded *c = &((const scaled *)base)->c;
    uint16_t *to = out;
    float *row = sw_malloc((size_t)c->width * sizeof *row);
    int rc = 0;
    for (int64_t r = first; r < first + n && !rc; r++, to += c->width) {
        rc = sw_coded_rows(c, r, 1, row);
        for (int64_t k = 0; k < c->width && !rc; k++)
            to[k] = sw_f32_to_bf16(row[k]);
    }
    free(row);
    return rc;
}

static int64_t parts(int64_t n, int64_t size) { return (n + size - 1) / size; }

enum { SHAPE_TEXT = 96 };

static const char *shape_text(const sw_tensor *t, char out[SHAPE_TEXT])
{
    strcpy(out, t->ndim ? "[" : "[]");
    for (int i = 0; i < t->ndim; i++)
        snprintf(out + strlen(out), SHAPE_TEXT - strlen(out), "%s%" PRId64 "%s", i ? ", " : "", t->shape[i], i + 1 == t->ndim ? "]" : "");
    return out;
}

static int shape_error(const sw_coded *m, const int64_t block[2])
{
    char have[SHAPE_TEXT];
    int64_t high = block[0] ? block[0] : 128, wide = block[1] ? block[1] : 128;
    return sw_fail("%s is %s for weights of %" PRId64 " x %" PRId64 ": one scale, one a row, or [%" PRId64 ", %" PRId64 "] for blocks of %" PRId64
                   " x %" PRId64 " are needed", m->scales->name, shape_text(&m->scales->t, have), m->rows, m->width, parts(m->rows, high), parts(m->width, wide), high, wide);
}

/* Which values a scale is for, by how many there are. */
static int fit(sw_coded *m, const int64_t block[2])
{
    const sw_tensor *s = &m->scales->t;
    int64_t n = sw_numel(s), matrices = m->matrices;
    int64_t high = block[0] ? block[0] : 128, wide = block[1] ? block[1] : 128;
    if (!sw_is_float(s->dtype) && s->dtype != SW_F8_E8M0)
        return sw_fail("%s is of type %s, a float is needed", m->scales->name, sw_dtypes[s->dtype].name);
    bool blocks = s->ndim >= 2 && s->shape[s->ndim - 2] == parts(m->rows, high) && s->shape[s->ndim - 1] == parts(m->width, wide);
    if (matrices < 1)
        return sw_fail("%s has no values, and a scale", m->values->name);
    if (blocks && n == matrices * parts(m->rows, high) * parts(m->width, wide)) {
        m->high = high;
        m->wide = wide;
    } else if (n == matrices * m->rows && (s->ndim < 2 || s->shape[s->ndim - 1] == 1 || matrices > 1)) {
        m->high = 1;
        m->wide = m->width;
    } else if (n == matrices && !block[0]) {
        m->high = m->rows;
        m->wide = m->width;
    } else {
        return shape_error(m, block);
    }
    return 0;
}

static const sw_entry *sibling(const sw_checkpoint *c, const char *name, const char *end, const char *other)
{
    char *path = sw_strfmt("%.*s%s", (int)(strlen(name) - strlen(end)), name, other);
    const sw_entry *e = sw_checkpoint_find(c, path);
    free(path);
    return e;
}

/* What is at the end of the name of a tensor, and of its scale instead. */
static const char *const scale_names[][2] = {{"", "_scale_inv"}, {"", "_scale"}, {".weight", ".scale"}};

static const sw_entry *scale_of(const sw_checkpoint *c, const sw_entry *e)
{
    const sw_entry *s = NULL;
    for (size_t i = 0; i < SW_COUNT(scale_names) && !s; i++)
        s = sw_ends_with(e->name, scale_names[i][0]) ? sibling(c, e->name, scale_names[i][0], scale_names[i][1]) : NULL;
    return s;
}

static int scale_missing(const sw_entry *e)
{
    int module = (int)(strlen(e->name) - (sw_ends_with(e->name, ".weight") ? strlen(".weight") : 0));
    return sw_fail("%s is of type %s, and its scale, %s_scale_inv, %s_scale or %.*s.scale, is missing", e->name, sw_dtypes[e->t.dtype].name,
                   e->name, e->name, module, e->name);
}

static int float_8(const sw_checkpoint *c, const sw_entry *e, const sw_entry **out, sw_arena *arena)
{
    const sw_entry *s = scale_of(c, e);
    int64_t block[2];
    if (!s && sw_json_get(c->config, "quantization_config"))
        return scale_missing(e);
    if (!s || e->t.ndim < 2)
        return s ? sw_fail("%s has a scale and is no matrix", e->name) : 0;
    if (block_of(c->config, block))
        return -1;
    scaled *m = sw_arena_zalloc(arena, sizeof *m);
    int64_t rows = e->t.shape[e->t.ndim - 2], width = e->t.shape[e->t.ndim - 1];
    *m = (scaled){.base = {scaled_rows},
                  .c = {.values = e, .scales = s, .matrices = rows && width ? sw_numel(&e->t) / (rows * width) : 0, .rows = rows, .width = width}};
    if (fit(&m->c, block))
        return -1;
    sw_entry *made = sw_arena_zalloc(arena, sizeof *made);
    *made = (sw_entry){.name = e->name, .t = sw_tensor_of(NULL, SW_BF16, e->t.ndim, e->t.shape), .made = &m->base, .coded = &m->c};
    *out = made;
    return 0;
}

/* ---- 4-bit floats of gpt-oss: X_blocks [experts, rows, groups, 16] of two values a byte, X_scales [experts, rows, groups] of exponents;
 * what they stand for is the matrix turned, [experts, 32 groups, rows] */

typedef struct mxfp4 {
    sw_made base;
    const sw_entry *blocks, *scales;
    int64_t rows, groups;
} mxfp4;

static int mxfp4_rows(const sw_made *base, int64_t first, int64_t n, void *out)
{
    static const float values[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    const mxfp4 *m = (const mxfp4 *)base;
    const uint8_t *blocks = m->blocks->t.data, *scales = m->scales->t.data;
    int64_t wide = 32 * m->groups;
    uint16_t *to = out;
    for (int64_t r = first, end; r < first + n; r = end) { /* rows of one expert */
        int64_t e = r / wide;
        end = SW_MIN((e + 1) * wide, first + n);
        for (int64_t k = 0; k < m->rows; k++) {
            const uint8_t *row = blocks + (e * m->rows + k) * m->groups * 16, *exponents = scales + (e * m->rows + k) * m->groups;
            for (int64_t i = r; i < end; i++) {
                int64_t at = i % wide;
                int nibble = row[at / 2] >> (at % 2 * 4) & 15;
                to[(i - first) * m->rows + k] = sw_f32_to_bf16(ldexpf(values[nibble], exponents[at / 32] - 127));
            }
        }
    }
    return 0;
}

static int four_bits(const sw_checkpoint *c, const sw_entry *e, const sw_entry **out, sw_arena *arena)
{
    const sw_entry *s = sibling(c, e->name, "_blocks", "_scales");
    const int64_t *b = e->t.shape;
    if (!s)
        return sw_fail("%s: its scales are missing", e->name);
    if (e->t.dtype != SW_U8 || s->t.dtype != SW_U8 || e->t.ndim != 4 || s->t.ndim != 3 || b[3] != 16 || memcmp(b, s->t.shape, 3 * sizeof *b))
        return sw_fail("%s and %s: bytes [experts, rows, groups, 16] and [experts, rows, groups] are needed", e->name, s->name);
    mxfp4 *m = sw_arena_zalloc(arena, sizeof *m);
    *m = (mxfp4){{mxfp4_rows}, e, s, b[1], b[2]};
    sw_entry *made = sw_arena_zalloc(arena, sizeof *made);
    *made = (sw_entry){.name = sw_arena_strndup(arena, e->name, strlen(e->name) - strlen("_blocks")),
                       .t = sw_tensor_of(NULL, SW_BF16, 3, (int64_t[]){b[0], 32 * b[2], b[1]}), .made = &m->base};
    *out = made;
    return 0;
}

/* ---- 4-bit floats of DeepSeek 4: X.weight [rows, width / 2] of two values a byte, the first of them low, and X.scale
 * [rows, width / 32] of exponents. They become blocks of MXFP4, an exponent and then 16 bytes that hold value i low and value
 * i + 16 high, and stay in 4 bits. */

typedef struct pairs {
    sw_made base;
    const sw_entry *bytes, *scales;
    int64_t blocks; /* of a row */
} pairs;

static int pairs_rows(const sw_made *base, int64_t first, int64_t n, void *out)
{
    const pairs *m = (const pairs *)base;
    uint8_t *to = out;
    for (int64_t b = first * m->blocks; b < (first + n) * m->blocks; b++) {
        const uint8_t *from = (const uint8_t *)m->bytes->t.data + b * 16;
        uint8_t exponent = ((const uint8_t *)m->scales->t.data)[b];
        if (exponent == 255)
            return sw_fail("%s: scale %" PRId64 " is no number", m->scales->name, b);
        *to++ = exponent;
        for (int i = 0; i < 16; i++) {
            int shift = i % 2 * 4, low = from[i / 2] >> shift & 15, high = from[8 + i / 2] >> shift & 15;
            *to++ = (uint8_t)(low | high << 4);
        }
    }
    return 0;
}

static bool is_pair(const sw_entry *e, const sw_entry *scale) { return e->t.dtype == SW_I8 && scale->t.dtype == SW_F8_E8M0; }

static int paired(const sw_checkpoint *c, const sw_entry *e, const sw_entry **out, sw_arena *arena)
{
    const sw_entry *s = scale_of(c, e);
    const sw_tensor *t = &e->t;
    bool said = sw_json_get(c->config, "quantization_config"), matrix = t->ndim >= 2 && sw_ends_with(e->name, ".weight");
    int64_t shape[SW_MAX_DIMS], groups[SW_MAX_DIMS];
    char have[SHAPE_TEXT], want[SHAPE_TEXT];
    if (!s)
        return said && matrix ? scale_missing(e) : 0;
    if (!is_pair(e, s)) /* whole numbers, unless the configuration says that there are none */
        return said ? sw_fail("%s is of type %s; %s holds 4-bit floats, two a byte, whose scales are %s", s->name, sw_dtypes[s->t.dtype].name,
                              e->name, sw_dtypes[SW_F8_E8M0].name) : 0;
    if (t->ndim < 2 || sw_numel(t) < 1 || t->shape[t->ndim - 1] % 16)
        return sw_fail("%s is %s: rows of 4-bit floats, two a byte, are whole blocks of 32 values, 16 bytes each", e->name, shape_text(t, have));
    memcpy(shape, t->shape, sizeof shape);
    memcpy(groups, t->shape, sizeof groups);
    shape[t->ndim - 1] *= 2;
    groups[t->ndim - 1] /= 16;
    sw_tensor needed = sw_tensor_of(NULL, SW_F8_E8M0, t->ndim, groups);
    if (s->t.ndim != t->ndim || memcmp(s->t.shape, groups, (size_t)t->ndim * sizeof *groups))
        return sw_fail("%s is %s: %s, one for each 32 values of a row of %s, is needed", s->name, shape_text(&s->t, have), shape_text(&needed, want),
                       e->name);
    pairs *m = sw_arena_zalloc(arena, sizeof *m);
    *m = (pairs){{pairs_rows}, e, s, groups[t->ndim - 1]};
    sw_entry *made = sw_arena_zalloc(arena, sizeof *made);
    *made = (sw_entry){.name = e->name, .t = sw_tensor_of(NULL, SW_MXFP4, t->ndim, shape), .made = &m->base};
    *out = made;
    return 0;
}

/* ---- */

/* Whether e is called as a scale of weights in few bits that are there. */
static bool scales(const sw_checkpoint *c, const sw_entry *e, const char *const names[][2], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const sw_entry *of = sw_ends_with(e->name, names[i][1]) ? sibling(c, e->name, names[i][1], names[i][0]) : NULL;
        if (of && (sw_is_float8(of->t.dtype) || is_pair(of, e)))
            return true;
    }
    return false;
}

int sw_scaled_entry(const sw_checkpoint *c, const sw_entry *e, const sw_entry **out, sw_arena *arena)
{
    static const char *const of_activations[][2] = {{".weight", ".input_scale"}, {".weight", ".activation_scale"}};
    *out = e;
    if (sw_is_float8(e->t.dtype))
        return float_8(c, e, out, arena);
    if (e->t.dtype == SW_I8)
        return paired(c, e, out, arena);
    if (sw_ends_with(e->name, "_blocks") && e->t.dtype == SW_U8)
        return four_bits(c, e, out, arena);
    if (sw_ends_with(e->name, "_scales") && sibling(c, e->name, "_scales", "_blocks"))
        *out = NULL;
    if (scales(c, e, scale_names, SW_COUNT(scale_names)) || scales(c, e, of_activations, SW_COUNT(of_activations)))
        *out = NULL;
    /* of a cache in 8 bits, which is another thing */
    if ((sw_ends_with(e->name, ".k_scale") || sw_ends_with(e->name, ".v_scale")) && sw_json_get(c->config, "quantization_config"))
        *out = NULL;
    return 0;
}
