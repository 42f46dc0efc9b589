/* Operators, attributes, subscripts and slices, as Python and the sandbox have them. */
#include "text/jinja_internal.h"

#include <math.h>
#include <string.h>

/* ---- arithmetic */

static int unsupported(const char *op, jv a, jv b)
{
    if (a.kind == J_UNDEFINED)
        return jinja_use_undefined(a);
    if (b.kind == J_UNDEFINED)
        return jinja_use_undefined(b);
    return sw_fail("unsupported operand type(s) for %s: '%s' and '%s'", op, jinja_type_name(a), jinja_type_name(b));
}

int jinja_concat(jrun *r, jv a, jv b, jv *out)
{
    char *tip = r->text.tip;
    if (a.n && a.u.s + a.n == tip && (size_t)(r->text.end - tip) >= b.n) { /* the left side is the newest text: it grows */
        memcpy(tip, b.u.s, b.n);
        r->text.tip += b.n;
        *out = jspan(a.u.s, a.n + b.n);
        return jinja_charge(r, b.n / 64);
    }
    char *to = jinja_text(r, a.n + b.n);
    if (!to)
        return -1;
    memcpy(to, a.u.s, a.n);
    memcpy(to + a.n, b.u.s, b.n);
    *out = jspan(to, a.n + b.n);
    return 0;
}

static int add(jrun *r, jv a, jv b, jv *out)
{
    if (a.kind == J_STR && b.kind == J_STR) {
        if (!((a.flags | b.flags) & JF_MARKUP))
            return jinja_concat(r, a, b, out);
        if (jinja_escape(r, a, &a) || jinja_escape(r, b, &b) || jinja_concat(r, a, b, out))
            return -1;
        out->flags = JF_MARKUP;
        return 0;
    }
    if (a.kind == b.kind && (a.kind == J_LIST || a.kind == J_TUPLE)) {
        const jv *tip = (const jv *)(const void *)r->items.tip;
        if (a.n && a.u.items + a.n == tip && (size_t)(r->items.end - r->items.tip) / sizeof(jv) >= b.n) {
            jv *to = jinja_items(r, b.n);
            if (!to)
                return -1;
            memcpy(to, b.u.items, b.n * sizeof(jv));
            *out = jlist((jkind)a.kind, a.u.items, a.n + b.n);
            return jinja_charge(r, b.n / 4);
        }
        jv *to = jinja_items(r, a.n + b.n);
        if (!to || jinja_charge(r, (a.n + b.n) / 4))
            return -1;
        if (a.n)
            memcpy(to, a.u.items, a.n * sizeof(jv));
        if (b.n)
            memcpy(to + a.n, b.u.items, b.n * sizeof(jv));
        *out = jlist((jkind)a.kind, to, a.n + b.n);
        return 0;
    }
    if (a.kind == J_STR && b.kind != J_UNDEFINED)
        return sw_fail("can only concatenate str (not \"%s\") to str", jinja_type_name(b));
    if ((a.kind == J_LIST || a.kind == J_TUPLE) && b.kind != J_UNDEFINED)
        return sw_fail("can only concatenate %s (not \"%s\") to %s", jinja_type_name(a), jinja_type_name(b), jinja_type_name(a));
    return unsupported("+", a, b);
}

static int repeat(jrun *r, jv v, jv count, jv *out)
{
    int64_t times = jinja_index(count);
    size_t total, n = times > 0 ? (size_t)times : 0;
    if (sw_mul_size(v.n, n, &total) || total > JINJA_MAX_MEMORY)
        return sw_fail("the template uses too much memory (a repeated value)");
    if (jinja_charge(r, n))
        return -1;
    if (v.kind == J_STR) {
        char *to = jinja_text(r, total);
        if (!to)
            return -1;
        for (size_t i = 0; i < n; i++)
            memcpy(to + i * v.n, v.u.s, v.n);
        *out = jspan(to, total);
        out->flags = v.flags;
        return 0;
    }
    jv *to = jinja_items(r, total);
    if (!to)
        return -1;
    for (size_t i = 0; v.n && i < n; i++)
        memcpy(to + i * v.n, v.u.items, v.n * sizeof(jv));
    *out = jlist((jkind)v.kind, to, total);
    return jinja_charge(r, total / 4);
}

static int power(jv a, jv b, jv *out)
{
    if (a.kind == J_FLOAT || b.kind == J_FLOAT || jinja_int(b) < 0) {
        double x = jinja_double(a), y = jinja_double(b);
        if (x == 0 && y < 0)
            return sw_fail("zero to a negative power");
        if (x < 0 && y != floor(y))
            return sw_fail("a negative number to a fractional power is complex");
        *out = jfloat(pow(x, y));
        return isinf(out->u.f) && !isinf(x) && !isinf(y) ? sw_fail("the result of ** is too large") : 0;
    }
    __int128 base = jinja_int(a), result = 1, e = jinja_int(b);
    if (base == 0 || base == 1 || base == -1) {
        *out = jinja_from_int(e == 0 ? 1 : base == -1 && !(e & 1) ? 1 : base);
        return 0;
    }
    for (; e > 0; e--)
        if (__builtin_mul_overflow(result, base, &result))
            return sw_fail("the result of ** is too large");
    *out = jinja_from_int(result);
    return 0;
}

static int divide_floats(jop op, double x, double y, jv *out)
{
    if (y == 0)
        return sw_fail(op == OP_DIV ? "division by zero" : op == OP_MOD ? "float modulo by zero" : "float floor division by zero");
    double m = fmod(x, y);
    if (m != 0 && (m < 0) != (y < 0))
        m += y;
    else if (m == 0)
        m = copysign(0, y);
    *out = jfloat(op == OP_DIV ? x / y : op == OP_MOD ? m : round((x - m) / y));
    return 0;
}

static int divide_ints(jop op, __int128 x, __int128 y, jv *out)
{
    if (!y)
        return sw_fail(op == OP_MOD ? "integer modulo by zero" : op == OP_DIV ? "division by zero" : "integer division or modulo by zero");
    if (op == OP_DIV) {
        *out = jfloat((double)x / (double)y);
        return 0;
    }
    if (y == -1) { /* the one quotient that can overflow */
        if (op == OP_MOD || !__builtin_sub_overflow((__int128)0, x, &x)) {
            *out = jinja_from_int(op == OP_MOD ? 0 : x);
            return 0;
        }
        return sw_fail("the result of // is too large");
    }
    __int128 q = x / y, m = x % y;
    if (m && (m < 0) != (y < 0)) {
        q--;
        m += y;
    }
    *out = jinja_from_int(op == OP_MOD ? m : q);
    return 0;
}

static int arithmetic(jop op, jv a, jv b, jv *out)
{
    static const char *const names[] = {"+", "-", "*"};
    bool ints = a.kind != J_FLOAT && b.kind != J_FLOAT;
    if (op == OP_POW)
        return power(a, b, out);
    if (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD)
        return ints ? divide_ints(op, jinja_int(a), jinja_int(b), out)
                    : divide_floats(op, jinja_double(a), jinja_double(b), out);
    if (!ints) {
        double x = jinja_double(a), y = jinja_double(b);
        *out = jfloat(op == OP_ADD ? x + y : op == OP_SUB ? x - y : x * y);
        return 0;
    }
    __int128 x = jinja_int(a), y = jinja_int(b), z;
    if (op == OP_ADD ? __builtin_add_overflow(x, y, &z)
        : op == OP_SUB ? __builtin_sub_overflow(x, y, &z)
                       : __builtin_mul_overflow(x, y, &z))
        return sw_fail("the result of %s is too large", names[op]);
    *out = jinja_from_int(z);
    return 0;
}

int jinja_binary(jrun *r, jop op, jv a, jv b, jv *out)
{
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "**"};
    if (jis_number(a) && jis_number(b))
        return arithmetic(op, a, b, out);
    if (op == OP_ADD)
        return add(r, a, b, out);
    if (op == OP_MOD && a.kind == J_STR)
        return jinja_percent(r, a, b, out);
    if (op == OP_MUL) {
        bool left = a.kind >= J_STR && a.kind <= J_TUPLE, right = b.kind >= J_STR && b.kind <= J_TUPLE;
        if (left && jis_int(b))
            return repeat(r, a, b, out);
        if (right && jis_int(a))
            return repeat(r, b, a, out);
    }
    return unsupported(names[op], a, b);
}

int jinja_negate(jv v, jv *out)
{
    if (v.kind == J_UNDEFINED)
        return jinja_use_undefined(v);
    if (v.kind == J_FLOAT) {
        *out = jfloat(-v.u.f);
        return 0;
    }
    if (!jis_int(v))
        return sw_fail("bad operand type for unary -: '%s'", jinja_type_name(v));
    __int128 i;
    if (__builtin_sub_overflow((__int128)0, jinja_int(v), &i))
        return sw_fail("the result of - is too large");
    *out = jinja_from_int(i);
    return 0;
}

/* ---- attributes */

static const char *owner_name(jv v)
{
    switch ((jkind)v.kind) {
    case J_NONE: return "None";
    case J_BOOL: return "bool object";
    case J_INT: return "int object";
    case J_FLOAT: return "float object";
    case J_STR: return "str object";
    case J_LIST: return "list object";
    case J_TUPLE: return "tuple object";
    case J_DICT: return "dict object";
    case J_NAMESPACE: return "jinja2.utils.Namespace object";
    default: return jinja_type_name(v);
    }
}

static int missing(jrun *r, jv v, jv name, bool unsafe, jv *out)
{
    *out = jinja_undefined(r, unsafe ? jinja_type_name(v) : owner_name(v), name);
    if (!out->u.undefined)
        return -1;
    out->u.undefined->unsafe = unsafe;
    return 0;
}

static int loop_changed(jrun *r, jv self, const jargs *a, jv *out)
{
    struct jloop *l = self.u.loop;
    bool changed = !l->changed || l->n_changed != a->n;
    for (size_t i = 0; !changed && i < a->n; i++)
        changed = !jinja_equal(r, l->changed[i], a->at[i]);
    *out = jbool(changed);
    if (!changed)
        return 0;
    jv *copy = jinja_items(r, a->n + 1);
    if (!copy)
        return -1;
    if (a->n)
        memcpy(copy, a->at, a->n * sizeof *copy);
    l->changed = copy;
    l->n_changed = a->n;
    return 0;
}

static int loop_cycle(jrun *r, jv self, const jargs *a, jv *out)
{
    (void)r;
    if (!a->n)
        return sw_fail("no items for cycling given");
    *out = a->at[self.u.loop->i % a->n];
    return 0;
}

static int cycler_next(jrun *r, jv self, const jargs *a, jv *out)
{
    struct jcycle *c = self.u.cycle;
    (void)r, (void)a;
    *out = c->items.u.items[c->pos];
    c->pos = (c->pos + 1) % c->items.n;
    return 0;
}

static int cycler_reset(jrun *r, jv self, const jargs *a, jv *out)
{
    (void)r, (void)a;
    self.u.cycle->pos = 0;
    *out = J_NONE_V;
    return 0;
}

static int bind_method(jrun *r, jv self, const jmethod *row, jmethod_fn fn, jv *out)
{
    struct jmethod_value *m = jinja_alloc(r, sizeof *m);
    if (!m)
        return -1;
    *m = (struct jmethod_value){self, row, fn};
    *out = (jv){.kind = J_METHOD, .u.method = m};
    return 0;
}

static int loop_attribute(jrun *r, jv v, jv name, jv *out)
{
    static const jmethod changed = {.name = "changed"}, cycle = {.name = "cycle"};
    const struct jloop *l = v.u.loop;
    int64_t i = (int64_t)l->i, n = (int64_t)l->n;
    if (JTEXT_IS(name, "index0"))
        *out = jint(i);
    else if (JTEXT_IS(name, "index"))
        *out = jint(i + 1);
    else if (JTEXT_IS(name, "first"))
        *out = jbool(i == 0);
    else if (JTEXT_IS(name, "last"))
        *out = jbool(i + 1 == n);
    else if (JTEXT_IS(name, "length"))
        *out = jint(n);
    else if (JTEXT_IS(name, "revindex"))
        *out = jint(n - i);
    else if (JTEXT_IS(name, "revindex0"))
        *out = jint(n - i - 1);
    else if (JTEXT_IS(name, "depth"))
        *out = jint((int64_t)l->depth + 1);
    else if (JTEXT_IS(name, "depth0"))
        *out = jint((int64_t)l->depth);
    else if (JTEXT_IS(name, "previtem") && i)
        *out = l->items[i - 1];
    else if (JTEXT_IS(name, "nextitem") && i + 1 < n)
        *out = l->items[i + 1];
    else if (JTEXT_IS(name, "changed"))
        return bind_method(r, v, &changed, loop_changed, out);
    else if (JTEXT_IS(name, "cycle"))
        return bind_method(r, v, &cycle, loop_cycle, out);
    else
        return missing(r, v, name, false, out);
    return 0;
}

static int macro_attribute(jrun *r, jv v, jv name, jv *out)
{
    const jnode *n = v.u.macro->node;
    if (JTEXT_IS(name, "name")) {
        *out = v.u.macro->name;
    } else if (JTEXT_IS(name, "arguments")) {
        jv *items = jinja_items(r, n->n);
        if (!items)
            return -1;
        *out = jlist(J_TUPLE, items, n->n);
        for (const jnode *p = n->a; p; p = p->next)
            *items++ = p->value;
    } else if (JTEXT_IS(name, "caller")) {
        *out = jbool(n->uses_caller);
    } else if (JTEXT_IS(name, "catch_varargs")) {
        *out = jbool(n->uses_varargs);
    } else if (JTEXT_IS(name, "catch_kwargs")) {
        *out = jbool(n->uses_kwargs);
    } else {
        return missing(r, v, name, false, out);
    }
    return 0;
}

/* What getattr finds: a method or a field; MISSING where there is none. */
static int python_attribute(jrun *r, jv v, jv name, const jmethod *row, jv *out)
{
    jmethod_fn fn = NULL;
    bool unsafe = name.n > 4 && !memcmp(name.u.s, "__", 2) && !memcmp(name.u.s + name.n - 2, "__", 2);
    static const jmethod next = {.name = "next"}, reset = {.name = "reset"};
    *out = (jv){0};
    switch ((jkind)v.kind) {
    case J_STR: fn = row ? row->str : NULL; break;
    case J_LIST:
        unsafe |= row && row->unsafe_list;
        fn = row ? row->list : NULL;
        break;
    case J_TUPLE:
        if (v.flags & JF_GROUP && (JTEXT_IS(name, "grouper") || JTEXT_IS(name, "list"))) {
            *out = v.u.items[JTEXT_IS(name, "list")];
            return 0;
        }
        fn = row && strcmp(row->name, "copy") ? row->list : NULL;
        break;
    case J_DICT:
        unsafe |= row && row->unsafe_dict;
        fn = row ? row->dict : NULL;
        break;
    case J_NAMESPACE: {
        const jv *found = unsafe ? NULL : jinja_dict_find(r, v.u.dict, name);
        if (found)
            *out = *found;
        break;
    }
    case J_LOOP:
        if (!unsafe)
            return loop_attribute(r, v, name, out);
        break;
    case J_MACRO:
        if (!unsafe)
            return macro_attribute(r, v, name, out);
        break;
    case J_CYCLER:
        if (JTEXT_IS(name, "current")) {
            *out = v.u.cycle->items.u.items[v.u.cycle->pos];
            return 0;
        }
        if (JTEXT_IS(name, "next"))
            return bind_method(r, v, &next, cycler_next, out);
        if (JTEXT_IS(name, "reset"))
            return bind_method(r, v, &reset, cycler_reset, out);
        break;
    case J_BOOL:
    case J_INT:
    case J_FLOAT:
        if (JTEXT_IS(name, "real"))
            *out = v.kind == J_BOOL ? jint(v.u.b) : v;
        else if (JTEXT_IS(name, "imag"))
            *out = v.kind == J_FLOAT ? jfloat(0) : jint(0);
        else if (v.kind != J_FLOAT && (JTEXT_IS(name, "numerator") || JTEXT_IS(name, "denominator")))
            *out = JTEXT_IS(name, "denominator") ? jint(1) : v.kind == J_BOOL ? jint(v.u.b) : v;
        break;
    default: break;
    }
    if (fn)
        return bind_method(r, v, row, fn, out);
    return unsafe ? missing(r, v, name, true, out) : 0;
}

int jinja_getattr(jrun *r, jv v, jv name, const jmethod *row, jv *out)
{
    if (v.kind == J_UNDEFINED)
        return jinja_use_undefined(v);
    if (python_attribute(r, v, name, row, out))
        return -1;
    if (out->kind != J_MISSING)
        return 0;
    const jv *member = v.kind == J_DICT ? jinja_dict_find(r, v.u.dict, name) : NULL;
    if (member) {
        *out = *member;
        return 0;
    }
    return missing(r, v, name, false, out);
}

/* ---- subscripts and slices */

size_t jinja_offset(jv text, size_t i)
{
    size_t at = 0;
    for (; i && at < text.n; i--)
        do
            at++;
        while (at < text.n && ((unsigned char)text.u.s[at] & 0xc0) == 0x80);
    return at;
}

int jinja_getitem(jrun *r, jv v, jv index, jv *out)
{
    size_t n;
    switch ((jkind)v.kind) {
    case J_UNDEFINED: return jinja_use_undefined(v);
    case J_DICT: {
        const jv *member = jinja_dict_find(r, v.u.dict, index);
        if (member) {
            *out = *member;
            return 0;
        }
        break;
    }
    case J_VIEW:
        if (v.flags != JF_RANGE)
            break; /* fallthrough */
    case J_LIST:
    case J_TUPLE:
    case J_STR:
        if (!jis_int(index) || jinja_length(v, &n))
            break;
        int64_t i = jinja_index(index);
        if (i < 0)
            i += (int64_t)n;
        if (i < 0 || i >= (int64_t)n)
            return missing(r, v, index, false, out);
        if (v.kind == J_STR) {
            size_t from = jinja_offset(v, (size_t)i), len = jinja_offset(jspan(v.u.s + from, v.n - from), 1);
            *out = jspan(v.u.s + from, len);
            out->flags = v.flags;
            return jinja_charge(r, v.n / 16);
        }
        *out = v.u.items[i];
        return 0;
    default: break;
    }
    if (index.kind == J_STR) {
        if (python_attribute(r, v, index, jinja_find_method(index.u.s, index.n), out))
            return -1;
        if (out->kind != J_MISSING)
            return 0;
    }
    return missing(r, v, index, false, out);
}

static int slice_bound(jv v, int64_t n, int64_t by, int64_t missing_value, int64_t *out)
{
    *out = missing_value;
    if (v.kind == J_NONE)
        return 0;
    if (!jis_int(v))
        return sw_fail("slice indices must be integers or None");
    int64_t i = jinja_index(v);
    if (i < 0)
        i = SW_MAX(i + n, by < 0 ? -1 : 0);
    *out = SW_MIN(i, by < 0 ? n - 1 : n);
    return 0;
}

int jinja_slice(jrun *r, jv v, jv start, jv stop, jv step, jv *out)
{
    size_t length;
    if (v.kind == J_UNDEFINED)
        return jinja_use_undefined(v);
    if (v.kind < J_STR || v.kind > J_VIEW || (v.kind == J_VIEW && v.flags != JF_RANGE))
        return sw_fail("'%s' object cannot be sliced", jinja_type_name(v));
    if (jinja_length(v, &length))
        return -1;
    int64_t n = (int64_t)length, by = 1, from, to;
    if (step.kind != J_NONE) {
        if (!jis_int(step))
            return sw_fail("slice indices must be integers or None");
        by = jinja_index(step);
        if (!by)
            return sw_fail("slice step cannot be zero");
    }
    if (slice_bound(start, n, by, by < 0 ? n - 1 : 0, &from) || slice_bound(stop, n, by, by < 0 ? -1 : n, &to))
        return -1;
    int64_t count = by > 0 ? (to > from ? (to - from - 1) / by + 1 : 0) : (from > to ? (from - to - 1) / -by + 1 : 0);
    if (by == 1 && v.kind == J_STR) {
        size_t a = jinja_offset(v, (size_t)from), b = a + jinja_offset(jspan(v.u.s + a, v.n - a), (size_t)count);
        *out = jspan(v.u.s + a, b - a);
        out->flags = v.flags;
        return jinja_charge(r, v.n / 16);
    }
    jkind kind = v.kind == J_VIEW ? J_LIST : (jkind)v.kind;
    if (by == 1) {
        *out = jlist(kind, v.u.items + from, (size_t)count);
        return 0;
    }
    const jv *items = v.u.items;
    size_t total = 0;
    if (v.kind == J_STR && jinja_iterate(r, v, &items, &length))
        return -1;
    if (v.kind != J_STR) {
        jv *to_items = jinja_items(r, (size_t)count);
        if (!to_items || jinja_charge(r, (size_t)count))
            return -1;
        for (int64_t i = 0; i < count; i++)
            to_items[i] = items[from + i * by];
        *out = jlist(kind, to_items, (size_t)count);
        return 0;
    }
    for (int64_t i = 0; i < count; i++)
        total += items[from + i * by].n;
    char *text = jinja_text(r, total);
    if (!text)
        return -1;
    *out = jspan(text, total);
    for (int64_t i = 0; i < count; i++) {
        memcpy(text, items[from + i * by].u.s, items[from + i * by].n);
        text += items[from + i * by].n;
    }
    return 0;
}

int jinja_reverse_text(jrun *r, jv v, jv *out) { return jinja_slice(r, v, J_NONE_V, J_NONE_V, jint(-1), out); }
