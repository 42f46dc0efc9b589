#include "store/torch_file.h"

#include "base/map.h"
#include "base/memory.h"
#include "store/pickle.h"
#include "store/zip.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- the names that a file may mention */

enum {
    DICT,
    TENSOR_V1,
    TENSOR_V2,
    TENSOR_V3,
    PARAMETER,
    PLAIN,
    RAW_STORAGE,   /* bytes: the tensor says their type */
    STORAGE = 100, /* + dtype */
    DTYPE = 200,   /* + dtype */
};

static const sw_pickle_global allowed[] = {
    {"collections", "OrderedDict", DICT, true},
    {"torch._utils", "_rebuild_tensor", TENSOR_V1, false},
    {"torch._utils", "_rebuild_tensor_v2", TENSOR_V2, false},
    {"torch._utils", "_rebuild_tensor_v3", TENSOR_V3, false},
    {"torch._utils", "_rebuild_parameter", PARAMETER, false},
    {"torch._utils", "_rebuild_parameter_with_state", PARAMETER, false},
    {"torch", "Size", PLAIN, false},
    {"torch", "device", PLAIN, false},
    {"torch.storage", "UntypedStorage", RAW_STORAGE, false},
    {"torch", "UntypedStorage", RAW_STORAGE, false},
#define STORAGES(module)                                                                                               \
    {module, "FloatStorage", STORAGE + SW_F32, false}, {module, "DoubleStorage", STORAGE + SW_F64, false},             \
        {module, "HalfStorage", STORAGE + SW_F16, false}, {module, "BFloat16Storage", STORAGE + SW_BF16, false},       \
        {module, "LongStorage", STORAGE + SW_I64, false}, {module, "IntStorage", STORAGE + SW_I32, false},             \
        {module, "ShortStorage", STORAGE + SW_I16, false}, {module, "CharStorage", STORAGE + SW_I8, false},            \
        {module, "ByteStorage", STORAGE + SW_U8, false},                                                               \
    {                                                                                                                  \
        module, "BoolStorage", STORAGE + SW_BOOL, false                                                                \
    }
    STORAGES("torch"),
    STORAGES("torch.cuda"),
    {"torch", "float8_e4m3fn", DTYPE + SW_F8_E4M3, false},
    {"torch", "float8_e5m2", DTYPE + SW_F8_E5M2, false},
    {"torch", "float8_e8m0fnu", DTYPE + SW_F8_E8M0, false},
    {"torch", "float32", DTYPE + SW_F32, false},
    {"torch", "float64", DTYPE + SW_F64, false},
    {"torch", "float16", DTYPE + SW_F16, false},
    {"torch", "bfloat16", DTYPE + SW_BF16, false},
    {"torch", "int64", DTYPE + SW_I64, false},
    {"torch", "int32", DTYPE + SW_I32, false},
    {"torch", "int16", DTYPE + SW_I16, false},
    {"torch", "int8", DTYPE + SW_I8, false},
    {"torch", "uint8", DTYPE + SW_U8, false},
    {"torch", "bool", DTYPE + SW_BOOL, false},
    {0},
};

/* The bytes of a storage key, in the file; dtype SW_DTYPE_COUNT: untyped. */
typedef struct storage {
    const uint8_t *at;
    size_t n;
    sw_dtype dtype;
} storage;

struct sw_torch {
    char *name;
    sw_mapping map;
    bool mapped;
    struct {
        sw_entry *at;
        size_t n, cap;
    } entries;
    struct {
        storage *at;
        size_t n, cap;
    } storages;
    sw_map index, keys;
    sw_arena arena; /* names, pickle values */
    sw_arena copies;
    size_t copied;
    sw_zip zip;
};

static bool is_tuple(const sw_pickle_value *v, size_t least)
{
    return v->kind == SW_PICKLE_TUPLE && v->items->n >= least;
}

static bool is_text(const sw_pickle_value *v, const char *text)
{
    return v->kind == SW_PICKLE_STR && v->text.n == strlen(text) && !memcmp(v->text.at, text, v->text.n);
}

/* ---- storages: persistent ids ('storage', type, key, location, values), and in old files a view, which is None */

typedef struct reference {
    sw_span key;
    sw_dtype dtype;
    size_t bytes;
} reference;

static int read_reference(const sw_pickle_value *persistent, reference *r)
{
    char what[96];
    const sw_pickle_value *id = &persistent->items->at[0];
    if (!is_tuple(id, 5) || !is_text(&id->items->at[0], "storage"))
        return sw_fail("a persistent id is %s, which names no storage", sw_pickle_describe(id, what));
    const sw_pickle_value *v = id->items->at;
    if (v[1].kind != SW_PICKLE_GLOBAL || v[1].global->id < RAW_STORAGE || v[1].global->id >= DTYPE)
        return sw_fail("the type of a storage is %s", sw_pickle_describe(&v[1], what));
    if (v[2].kind != SW_PICKLE_STR || v[4].kind != SW_PICKLE_INT || v[4].i < 0)
        return sw_fail("a storage has no key or no size");
    if (id->items->n > 5 && v[5].kind != SW_PICKLE_NONE)
        return sw_fail("a storage is a view of another one, as torch before 0.4 wrote them; a newer torch can save the "
                       "file again");
    bool raw = v[1].global->id == RAW_STORAGE;
    r->key = v[2].text;
    r->dtype = raw ? SW_DTYPE_COUNT : (sw_dtype)(v[1].global->id - STORAGE);
    if (sw_mul_size((size_t)v[4].i, raw ? 1 : (size_t)sw_dtypes[r->dtype].bytes, &r->bytes))
        return sw_fail("a storage of %" PRId64 " values", v[4].i);
    return 0;
}

static const storage *storage_of(const sw_torch *t, const reference *r)
{
    int64_t i = sw_map_get(&t->keys, r->key.at, r->key.n, -1);
    const storage *s = i < 0 ? NULL : &t->storages.at[i];
    int shown = (int)SW_MIN(r->key.n, 60);
    if (!s)
        return sw_fail_null("its storage '%.*s' is not in the file", shown, r->key.at);
    if (s->dtype != r->dtype)
        return sw_fail_null("its storage '%.*s' is of two types", shown, r->key.at);
    if (s->n != r->bytes)
        return sw_fail_null("its storage '%.*s' is of %zu bytes, the file holds %zu", shown, r->key.at, r->bytes, s->n);
    return s;
}

/* ---- tensors */

static int sizes_of(const sw_pickle_value *v, int *ndim, int64_t out[SW_MAX_DIMS])
{
    if (v->kind == SW_PICKLE_CALL && v->items->at[0].global->id == PLAIN && is_tuple(&v->items->at[1], 1))
        v = &v->items->at[1].items->at[0]; /* torch.Size((…)) */
    if (v->kind != SW_PICKLE_TUPLE)
        return -1;
    if (v->items->n > SW_MAX_DIMS)
        return sw_fail("%zu dimensions, at most %d are read", v->items->n, SW_MAX_DIMS);
    *ndim = (int)v->items->n;
    for (int i = 0; i < *ndim; i++) {
        out[i] = v->items->at[i].i;
        if (v->items->at[i].kind != SW_PICKLE_INT || out[i] < 0)
            return -1;
    }
    return 0;
}

/* Memory for n bytes that cannot stay where they lie: never more than the file in all. */
static char *copy_room(sw_torch *t, size_t n)
{
    if (n > t->map.n - t->copied)
        return sw_fail_null("views and misplaced tensors would take more memory than the file; save it again with "
                            "clone() of each tensor");
    t->copied += n;
    return sw_arena_alloc(&t->copies, n);
}

static void gather(char *to, const char *from, const sw_tensor *t, const int64_t *stride, size_t element)
{
    int64_t at[SW_MAX_DIMS] = {0}, n = sw_numel(t), offset = 0;
    for (int64_t i = 0; i < n; i++, to += element) {
        memcpy(to, from + (size_t)offset * element, element);
        for (int d = t->ndim - 1; d >= 0; d--) {
            offset += stride[d];
            if (++at[d] < t->shape[d])
                break;
            offset -= stride[d] * t->shape[d];
            at[d] = 0;
        }
    }
}

/* e->t of offset, shape and strides in values over a storage. */
static int view(sw_torch *t, sw_entry *e, const storage *s, sw_dtype dtype, int64_t offset, int ndim,
                const int64_t *shape, const int64_t *stride)
{
    size_t element = (size_t)sw_dtypes[dtype].bytes, values = s->n / element, bytes, last = (size_t)offset, reach;
    if (sw_shape_bytes(dtype, ndim, shape, &bytes))
        return -1;
    e->t = sw_tensor_of((void *)(uintptr_t)s->at, dtype, ndim, shape);
    e->file = &t->map;
    if (!bytes)
        return 0;
    sw_tensor strided = e->t;
    for (int i = 0; i < ndim; i++) {
        if (sw_mul_size((size_t)shape[i] - 1, (size_t)stride[i], &reach) || sw_add_size(last, reach, &last))
            return sw_fail("its strides reach beyond any storage");
        strided.stride[i] = stride[i];
    }
    if (last >= values)
        return sw_fail("it reaches to value %zu of a storage of %zu", last, values);
    const char *from = (const char *)s->at + (size_t)offset * element;
    e->t.data = (void *)(uintptr_t)from;
    if (sw_is_dense(&strided) && (uintptr_t)from % element == 0)
        return 0;
    if (bytes > s->n)
        return sw_fail("its values overlap (an expanded tensor); save it again with clone()");
    char *to = copy_room(t, bytes);
    if (!to)
        return -1;
    if (sw_is_dense(&strided))
        memcpy(to, from, bytes);
    else
        gather(to, from, &e->t, stride, element);
    e->t.data = to;
    return 0;
}

/* The call that makes a tensor, under the parameters that wrap it; NULL for another value. */
static const sw_pickle_value *tensor_call(const sw_pickle_value *v)
{
    for (int depth = 0; depth < 4 && v->kind == SW_PICKLE_CALL; depth++) {
        int id = v->items->at[0].global->id;
        if (id == TENSOR_V1 || id == TENSOR_V2 || id == TENSOR_V3)
            return v;
        if (id != PARAMETER || !is_tuple(&v->items->at[1], 1))
            return NULL;
        v = &v->items->at[1].items->at[0];
    }
    return NULL;
}

static int read_tensor(sw_torch *t, sw_entry *e, const sw_pickle_value *made)
{
    int id = made->items->at[0].global->id, ndim, strides;
    const sw_pickle_items *arguments = made->items->at[1].items;
    const sw_pickle_value *v = arguments->at;
    int64_t shape[SW_MAX_DIMS], stride[SW_MAX_DIMS];
    reference r;
    if (arguments->n < (id == TENSOR_V3 ? 7 : 4))
        return sw_fail("%zu arguments make no tensor", arguments->n);
    if (v[0].kind != SW_PICKLE_PERSISTENT || v[1].kind != SW_PICKLE_INT || v[1].i < 0)
        return sw_fail("a storage and an offset are needed");
    sw_error_clear();
    if (sizes_of(&v[2], &ndim, shape) || sizes_of(&v[3], &strides, stride) || ndim != strides)
        return *sw_error() ? -1 : sw_fail("a size and a stride for each dimension are needed");
    if (read_reference(&v[0], &r))
        return -1;
    const storage *s = storage_of(t, &r);
    if (!s)
        return -1;
    sw_dtype dtype = s->dtype;
    if (id == TENSOR_V3) {
        if (v[6].kind != SW_PICKLE_GLOBAL || v[6].global->id < DTYPE)
            return sw_fail("it has no type");
        dtype = (sw_dtype)(v[6].global->id - DTYPE);
    } else if (dtype == SW_DTYPE_COUNT) {
        dtype = SW_U8;
    }
    return view(t, e, s, dtype, v[1].i, ndim, shape, stride);
}

static bool holds_tensors(const sw_pickle_value *v)
{
    for (size_t i = 1; v->kind == SW_PICKLE_DICT && i < v->items->n; i += 2)
        if (tensor_call(&v->items->at[i]))
            return true;
    return false;
}

/* The dict of tensors: the file's value, or where training loops put it. */
static const sw_pickle_value *state_of(const sw_pickle_value *top)
{
    static const char *const places[] = {"state_dict", "model", "module", "model_state_dict"};
    char what[96];
    if (holds_tensors(top))
        return top;
    for (size_t p = 0; p < SW_COUNT(places); p++)
        for (size_t i = 0; top->kind == SW_PICKLE_DICT && i < top->items->n; i += 2)
            if (is_text(&top->items->at[i], places[p]) && holds_tensors(&top->items->at[i + 1]))
                return &top->items->at[i + 1];
    return sw_fail_null("it holds %s%s; a dict of names and tensors is needed", sw_pickle_describe(top, what),
                        top->kind == SW_PICKLE_DICT ? " without tensors" : "");
}

static int read_state(sw_torch *t, const sw_pickle_value *top)
{
    const sw_pickle_value *state = state_of(top);
    if (!state)
        return -1;
    for (size_t i = 0; i < state->items->n; i += 2) {
        const sw_pickle_value *key = &state->items->at[i], *made = tensor_call(&state->items->at[i + 1]);
        if (!made)
            continue; /* numbers, text and None among the tensors mean nothing here */
        if (key->kind != SW_PICKLE_STR || memchr(key->text.at, 0, key->text.n) ||
            sw_utf8_valid_prefix(key->text.at, key->text.n) < key->text.n)
            return sw_fail("a tensor's name is no text without NUL");
        sw_entry e = {.name = sw_arena_strndup(&t->arena, key->text.at, key->text.n)};
        if (read_tensor(t, &e, made))
            return sw_fail_in("tensor '%s'", e.name);
        if (sw_map_gets(&t->index, e.name, -1) >= 0)
            return sw_fail("tensor '%s' is listed twice", e.name);
        sw_map_puts(&t->index, e.name, (int64_t)t->entries.n);
        SW_PUSH(t->entries, e);
    }
    return 0;
}

static int add_storage(sw_torch *t, sw_span key, storage s)
{
    sw_map_put(&t->keys, key.at, key.n, (int64_t)t->storages.n);
    SW_PUSH(t->storages, s);
    return 0;
}

/* ---- the zip format: NAME/data.pkl, NAME/data/KEY, NAME/byteorder */

static int parse_zip(sw_torch *t)
{
    if (sw_zip_open(&t->zip, t->map.at, t->map.n, &t->arena))
        return -1;
    const sw_zip_record *pickle = NULL;
    for (size_t i = 0; i < t->zip.n && !pickle; i++) {
        const char *slash = strchr(t->zip.records[i].name, '/');
        if (slash && !strcmp(slash, "/data.pkl"))
            pickle = &t->zip.records[i];
    }
    if (!pickle)
        return sw_fail("a zip file without data.pkl: torch.save did not write it");
    char *prefix = sw_arena_strndup(&t->arena, pickle->name, strlen(pickle->name) - strlen("data.pkl"));
    char *name = sw_strfmt("%sconstants.pkl", prefix);
    bool script = sw_zip_find(&t->zip, name);
    free(name);
    if (script)
        return sw_fail("a TorchScript program; torch.save(model.state_dict(), …) writes what is needed");
    name = sw_strfmt("%sbyteorder", prefix);
    const sw_zip_record *order = sw_zip_find(&t->zip, name);
    free(name);
    if (order && (order->n != 6 || memcmp(order->at, "little", 6)))
        return sw_fail("its numbers are in the byte order '%.*s', 'little' is needed", (int)SW_MIN(order->n, 20),
                       (const char *)order->at);
    sw_pickle p;
    if (sw_pickle_read(pickle->at, pickle->n, allowed, &t->arena, &p))
        return sw_fail_in("data.pkl");
    for (size_t i = 0; i < p.persistents.n; i++) {
        reference r;
        if (read_reference(&p.persistents.at[i], &r))
            return sw_fail_in("data.pkl");
        if (sw_map_get(&t->keys, r.key.at, r.key.n, -1) >= 0)
            continue;
        name = sw_strfmt("%sdata/%.*s", prefix, (int)SW_MIN(r.key.n, 1000), r.key.at);
        const sw_zip_record *data = sw_zip_find(&t->zip, name);
        free(name);
        if (data && add_storage(t, r.key, (storage){data->at, data->n, r.dtype}))
            return -1;
    }
    return read_state(t, &p.value);
}

/* ---- the old format: five pickles (magic number, version, system, value, storage keys), then each storage as its
 * number of values and its bytes */

static const uint8_t magic[] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

static int next_pickle(sw_torch *t, size_t *at, sw_pickle *p, const char *what)
{
    if (sw_pickle_read(t->map.at + *at, t->map.n - *at, allowed, &t->arena, p))
        return sw_fail_in("%s (at byte %zu)", what, *at);
    *at += p->used;
    return 0;
}

static int check_system(const sw_pickle_value *v)
{
    for (size_t i = 0; v->kind == SW_PICKLE_DICT && i < v->items->n; i += 2)
        if (is_text(&v->items->at[i], "little_endian") && v->items->at[i + 1].kind == SW_PICKLE_BOOL &&
            !v->items->at[i + 1].i)
            return sw_fail("its numbers are big-endian, little-endian ones are read");
    return 0;
}

/* What type a key has, the references say. */
static int reference_types(const sw_pickle *p, sw_map *types)
{
    for (size_t i = 0; i < p->persistents.n; i++) {
        reference r;
        if (read_reference(&p->persistents.at[i], &r))
            return -1;
        int64_t was = sw_map_get(types, r.key.at, r.key.n, r.dtype);
        if (was != (int64_t)r.dtype)
            return sw_fail("the storage '%.*s' is of two types", (int)SW_MIN(r.key.n, 60), r.key.at);
        sw_map_put(types, r.key.at, r.key.n, r.dtype);
    }
    return 0;
}

static int read_storages(sw_torch *t, const sw_pickle_value *keys, const sw_map *types, size_t at)
{
    if (keys->kind != SW_PICKLE_LIST)
        return sw_fail("there is no list of storages");
    for (size_t i = 0; i < keys->items->n; i++) {
        const sw_pickle_value *key = &keys->items->at[i];
        int64_t dtype = key->kind == SW_PICKLE_STR ? sw_map_get(types, key->text.at, key->text.n, -1) : -1, count;
        size_t bytes;
        if (dtype < 0)
            return sw_fail("storage %zu of the list is one that nothing refers to", i);
        if (t->map.n - at < 8)
            return sw_fail("storage %zu of %zu is missing: the file is cut short", i, keys->items->n);
        memcpy(&count, t->map.at + at, 8);
        at += 8;
        if (count < 0 ||
            sw_mul_size((size_t)count, dtype == SW_DTYPE_COUNT ? 1 : (size_t)sw_dtypes[dtype].bytes, &bytes) ||
            bytes > t->map.n - at)
            return sw_fail("storage %zu has %" PRId64 " values, the file ends before them: it is cut short", i, count);
        if (sw_map_get(&t->keys, key->text.at, key->text.n, -1) >= 0)
            return sw_fail("storage %zu is listed twice", i);
        if (add_storage(t, key->text, (storage){t->map.at + at, bytes, (sw_dtype)dtype}))
            return -1;
        at += bytes;
    }
    return at == t->map.n ? 0 : sw_fail("%zu bytes follow the last storage", t->map.n - at);
}

static int parse_old(sw_torch *t)
{
    sw_pickle p, value, keys;
    size_t at = 0;
    sw_map types = {0};
    if (next_pickle(t, &at, &p, "magic number"))
        return -1;
    if (p.value.kind != SW_PICKLE_LONG || p.value.text.n != sizeof magic ||
        memcmp(p.value.text.at, magic, sizeof magic))
        return sw_fail("a pickle that torch.save did not write");
    if (next_pickle(t, &at, &p, "version"))
        return -1;
    if (p.value.kind != SW_PICKLE_INT || p.value.i != 1001)
        return sw_fail("the version is not 1001");
    int rc = next_pickle(t, &at, &p, "system") || check_system(&p.value) || next_pickle(t, &at, &value, "value") ||
             reference_types(&value, &types) || next_pickle(t, &at, &keys, "list of storages") ||
             read_storages(t, &keys.value, &types, at) || read_state(t, &value.value);
    sw_map_free(&types);
    return rc ? -1 : 0;
}

/* ---- */

static sw_torch *finish(sw_torch *t, int rc)
{
    const uint8_t *b = t->map.at;
    size_t n = t->map.n;
    if (!rc) {
        if (n >= 4 && !memcmp(b, "PK\3\4", 4))
            rc = parse_zip(t);
        else if (n >= 2 && b[0] == 0x80)
            rc = parse_old(t);
        else if (n > 262 && !memcmp(b + 257, "ustar", 5))
            rc = sw_fail("a tar file, as torch before 0.1.10 wrote them; a newer torch can save it again");
        else
            rc = sw_fail("no file of torch.save: it begins with neither a zip record nor a pickle");
        if (rc)
            sw_fail_in("%s", t->name);
    }
    if (!rc)
        return t;
    sw_torch_close(t);
    return NULL;
}

sw_torch *sw_torch_open(const char *path)
{
    sw_torch *t = SW_NEW(sw_torch);
    t->name = sw_strdup(path);
    int rc = sw_map_file(path, &t->map);
    t->mapped = !rc;
    return finish(t, rc);
}

sw_torch *sw_torch_from_bytes(const void *bytes, size_t n, const char *name)
{
    sw_torch *t = SW_NEW(sw_torch);
    t->name = sw_strdup(name);
    t->map = (sw_mapping){bytes, n};
    return finish(t, 0);
}

void sw_torch_close(sw_torch *t)
{
    if (!t)
        return;
    sw_zip_close(&t->zip);
    if (t->mapped)
        sw_unmap_file(&t->map);
    sw_map_free(&t->index);
    sw_map_free(&t->keys);
    sw_arena_free(&t->arena);
    sw_arena_free(&t->copies);
    free(t->entries.at);
    free(t->storages.at);
    free(t->name);
    free(t);
}

size_t sw_torch_count(const sw_torch *t) { return t->entries.n; }
const sw_entry *sw_torch_at(const sw_torch *t, size_t i) { return i < t->entries.n ? &t->entries.at[i] : NULL; }

const sw_entry *sw_torch_find(const sw_torch *t, const char *name)
{
    int64_t i = sw_map_gets(&t->index, name, -1);
    return i < 0 ? NULL : &t->entries.at[i];
}
