/* Calls: arguments, macros, recursive loops, bound methods; and the globals that chat templates see. */
#include "text/jinja_internal.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- arguments */

int jinja_arguments(jrun *r, jframe *f, const jnode *list, const jv *first, const jv *caller, jargs *out)
{
    struct {
        jv *at;
        size_t n, cap;
    } values = {0};
    struct {
        jkw *at;
        size_t n, cap;
    } words = {0};
    jv v;
    int bad = 0;
    if (first)
        SW_PUSH(values, *first);
    for (const jnode *c = list; c && !bad; c = c->next) {
        bool wrapped = c->type == N_KEYWORD || c->type == N_STAR || c->type == N_STAR_STAR;
        bad = jinja_eval(r, f, wrapped ? c->a : c, &v);
        if (bad)
            break;
        if (c->type == N_KEYWORD) {
            SW_PUSH(words, ((jkw){c->name, v}));
        } else if (c->type == N_STAR) {
            const jv *items;
            size_t n;
            bad = jinja_iterate(r, v, &items, &n) || jinja_charge(r, n);
            for (size_t i = 0; !bad && i < n; i++)
                SW_PUSH(values, items[i]);
        } else if (c->type == N_STAR_STAR) {
            if (v.kind != J_DICT)
                bad = sw_fail("argument after ** must be a mapping, not %s", jinja_type_name(v));
            for (size_t i = 0; !bad && i < v.u.dict->n; i++) {
                jv key = v.u.dict->at[i].key;
                if (key.kind != J_STR)
                    bad = sw_fail("keywords must be strings");
                else
                    SW_PUSH(words, ((jkw){{key.u.s, key.n}, v.u.dict->at[i].value}));
            }
        } else {
            SW_PUSH(values, v);
        }
    }
    if (caller)
        SW_PUSH(words, ((jkw){{"caller", 6}, *caller}));
    jv *at = bad ? NULL : jinja_items(r, values.n);
    jkw *kw = at ? jinja_alloc(r, words.n * sizeof *kw) : NULL;
    if (kw) {
        if (values.n)
            memcpy(at, values.at, values.n * sizeof *at);
        if (words.n)
            memcpy(kw, words.at, words.n * sizeof *kw);
        *out = (jargs){at, values.n, kw, words.n};
    }
    free(values.at);
    free(words.at);
    return kw ? 0 : -1;
}

int jinja_bind(const char *who, const jargs *a, const char *const *names, size_t n, size_t required, jv *out)
{
    if (a->n > n)
        return sw_fail("%s takes at most %zu arguments (%zu given)", who, n, a->n);
    for (size_t i = 0; i < n; i++)
        out[i] = i < a->n ? a->at[i] : (jv){0};
    for (size_t k = 0; k < a->n_kw; k++) {
        sw_span name = a->kw[k].name;
        size_t i = 0;
        while (i < n && (strlen(names[i]) != name.n || memcmp(names[i], name.at, name.n)))
            i++;
        if (i == n)
            return sw_fail("%s got an unexpected keyword argument '%.*s'", who, (int)SW_MIN(name.n, 100), name.at);
        if (out[i].kind != J_MISSING)
            return sw_fail("%s got multiple values for argument '%s'", who, names[i]);
        out[i] = a->kw[k].value;
    }
    for (size_t i = 0; i < required; i++)
        if (out[i].kind == J_MISSING)
            return sw_fail("%s misses its argument '%s'", who, names[i]);
    return 0;
}

/* ---- macros */

typedef struct jmacro_call {
    const jnode *node;
    const jargs *args;
    const bool *used; /* keywords that a parameter took */
} jmacro_call;

static bool is_caller(const jkw *k) { return k->name.n == 6 && !memcmp(k->name.at, "caller", 6); }

/* What no parameter took goes to varargs, kwargs and caller where the macro names them, else is refused. */
static int left_over(jrun *r, const jmacro_call *c, jframe *in)
{
    const jnode *n = c->node;
    const jargs *a = c->args;
    if (n->uses_varargs) {
        size_t more = a->n > n->n ? a->n - n->n : 0;
        in->slot[n->slot_varargs] = jlist(J_TUPLE, more ? a->at + n->n : NULL, more);
    } else if (a->n > n->n) {
        return sw_fail("macro '%.*s' takes not more than %u argument(s)", (int)n->name.n, n->name.at, n->n);
    }
    jv words = {0};
    if (n->uses_kwargs) {
        words = jinja_dict_new(r, 0);
        if (!words.kind)
            return -1;
        in->slot[n->slot_kwargs] = words;
    }
    if (n->uses_caller && !in->slot[n->slot_caller].kind) {
        in->slot[n->slot_caller] = jinja_undefined(r, NULL, JSTR("caller"));
        if (!in->slot[n->slot_caller].u.undefined)
            return -1;
    }
    for (size_t k = 0; k < a->n_kw; k++) {
        const jkw *word = &a->kw[k];
        if (c->used[k])
            continue;
        if (is_caller(word) && n->uses_caller) {
            in->slot[n->slot_caller] = word->value;
        } else if (n->uses_kwargs) {
            if (jinja_dict_put(r, words.u.dict, jspan(word->name.at, word->name.n), word->value))
                return -1;
        } else {
            return sw_fail("macro '%.*s' takes no keyword argument '%.*s'", (int)n->name.n, n->name.at,
                           (int)SW_MIN(word->name.n, 100), word->name.at);
        }
    }
    return 0;
}

static int call_method(jrun *r, const jmethod *row, jmethod_fn fn, jv self, const jargs *a, jv *out)
{
    if (row->bare && a->n + a->n_kw)
        return sw_fail("%s() takes no arguments (%zu given)", row->name, a->n + a->n_kw);
    return fn(r, self, a, out);
}

static int call_macro(jrun *r, const struct jmacro *m, const jargs *a, jv *out)
{
    const jnode *n = m->node;
    jframe *in = jinja_frame(r, m->frame, n->n_slots);
    bool *used = jinja_alloc(r, a->n_kw);
    if (!in || !used)
        return -1;
    memset(used, 0, a->n_kw);
    size_t i = 0, defaults = 0;
    for (const jnode *d = n->b; d; d = d->next)
        defaults++;
    const jnode *value = n->b;
    for (const jnode *p = n->a; p; p = p->next, i++) {
        jv *slot = &in->slot[p->slot];
        *slot = i < a->n ? a->at[i] : (jv){0};
        for (size_t k = 0; k < a->n_kw && !slot->kind; k++)
            if (!used[k] && a->kw[k].name.n == p->name.n && !memcmp(a->kw[k].name.at, p->name.at, p->name.n)) {
                *slot = a->kw[k].value;
                used[k] = true;
            }
        bool has_default = i + defaults >= n->n;
        if (!slot->kind && has_default && jinja_eval(r, in, value, slot))
            return -1;
        if (!slot->kind) {
            *slot = jinja_undefined(r, NULL, p->value);
            if (!slot->u.undefined)
                return -1;
            slot->u.undefined->parameter = true;
        }
        if (has_default)
            value = value->next;
    }
    jmacro_call c = {n, a, used};
    if (left_over(r, &c, in))
        return -1;
    int line = r->line;
    int bad = jinja_exec_captured(r, in, n->c, out);
    if (!bad)
        r->line = line;
    return bad;
}

/* loop(items) of a recursive loop: the body once more, one level down, as text. */
static int call_loop(jrun *r, const struct jloop *l, const jargs *a, jv *out)
{
    jv items;
    if (!l->node->recursive)
        return sw_fail("The loop must have the 'recursive' marker to be called recursively.");
    if (JINJA_BIND("loop", a, 1, &items, "iterable"))
        return -1;
    sw_buf *before = r->out;
    size_t start = r->scratch.n;
    r->out = &r->scratch;
    int how = jinja_exec_for(r, l->frame, l->node, items, l->depth + 1);
    r->out = before;
    if (how == JX_ERROR || jinja_copy_text(r, r->scratch.at ? r->scratch.at + start : "", r->scratch.n - start, out))
        return -1;
    r->scratch.n = start;
    return 0;
}

static int call_value(jrun *r, jv callee, const jargs *a, jv *out)
{
    switch ((jkind)callee.kind) {
    case J_UNDEFINED: return jinja_use_undefined(callee);
    case J_MACRO: return call_macro(r, callee.u.macro, a, out);
    case J_FUNCTION: return callee.u.function->fn(r, a, out);
    case J_METHOD: return call_method(r, callee.u.method->row, callee.u.method->fn, callee.u.method->self, a, out);
    case J_LOOP: return call_loop(r, callee.u.loop, a, out);
    case J_JOINER: /* nothing the first time, then the separator */
        *out = callee.u.cycle->pos++ ? callee.u.cycle->items : JSTR("");
        return 0;
    default: return sw_fail("'%s' object is not callable", jinja_type_name(callee));
    }
}

int jinja_call(jrun *r, jv callee, const jargs *a, jv *out)
{
    if (++r->depth > JINJA_MAX_DEPTH) {
        r->depth--;
        return sw_fail("the template recurses deeper than %d levels", JINJA_MAX_DEPTH);
    }
    int bad = call_value(r, callee, a, out);
    r->depth--;
    return bad;
}

int jinja_call_node(jrun *r, jframe *f, const jnode *n, jv *out, const jv *caller)
{
    jv callee = {0}, self, few[4];
    jmethod_fn fn = NULL;
    const jmethod *row = n->a->type == N_ATTR ? n->a->method : NULL;
    if (row) { /* x.strip(): no bound method is made */
        if (jinja_eval(r, f, n->a->a, &self))
            return -1;
        fn = self.kind == J_STR                                ? row->str
             : self.kind == J_LIST || self.kind == J_TUPLE ? row->list
             : self.kind == J_DICT                             ? row->dict
                                                               : NULL;
        if (!fn && jinja_getattr(r, self, n->a->value, row, &callee))
            return -1;
    } else if (jinja_eval(r, f, n->a, &callee)) {
        return -1;
    }
    jargs a = {few, 0, NULL, 0};
    if (!n->has_keywords && !caller && n->n <= SW_COUNT(few)) {
        for (const jnode *c = n->b; c; c = c->next)
            if (jinja_eval(r, f, c, &few[a.n++]))
                return -1;
    } else if (jinja_arguments(r, f, n->b, NULL, caller, &a)) {
        return -1;
    }
    r->line = n->line;
    return fn ? call_method(r, row, fn, self, &a, out) : jinja_call(r, callee, &a, out);
}

/* ---- globals */

static int global_range(jrun *r, const jargs *a, jv *out)
{
    int64_t v[3] = {0, 0, 1};
    if (a->n < 1 || a->n > 3 || a->n_kw)
        return sw_fail("range takes one to three numbers");
    for (size_t i = 0; i < a->n; i++) {
        if (a->at[i].kind == J_UNDEFINED)
            return jinja_use_undefined(a->at[i]);
        if (!jis_int(a->at[i]))
            return sw_fail("'%s' object cannot be interpreted as an integer", jinja_type_name(a->at[i]));
        v[i] = jinja_index(a->at[i]);
    }
    if (a->n == 1) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (!v[2])
        return sw_fail("range() arg 3 must not be zero");
    __int128 span = v[2] > 0 ? (__int128)v[1] - v[0] : (__int128)v[0] - v[1], by = v[2] > 0 ? v[2] : -(__int128)v[2];
    __int128 count = span > 0 ? (span + by - 1) / by : 0;
    if (count > JINJA_MAX_RANGE)
        return sw_fail("Range too big. The sandbox blocks ranges larger than %d.", JINJA_MAX_RANGE);
    jv *items = jinja_items(r, (size_t)count + 3);
    if (!items || jinja_charge(r, (size_t)count))
        return -1;
    for (int i = 0; i < 3; i++)
        *items++ = jint(v[i]);
    *out = jlist(J_VIEW, items, (size_t)count);
    out->flags = JF_RANGE;
    for (size_t i = 0; i < (size_t)count; i++)
        items[i] = jint(v[0] + (int64_t)i * v[2]);
    return 0;
}

/* dict(mapping or pairs, **more), also what namespace() takes. */
static int global_dict(jrun *r, const jargs *a, jv *out)
{
    *out = jinja_dict_new(r, a->n_kw);
    if (!out->kind)
        return -1;
    if (a->n > 1)
        return sw_fail("dict expected at most 1 argument, got %zu", a->n);
    if (a->n && a->at[0].kind == J_DICT) {
        const jdict *from = a->at[0].u.dict;
        for (size_t i = 0; i < from->n; i++)
            if (jinja_dict_put(r, out->u.dict, from->at[i].key, from->at[i].value))
                return -1;
    } else if (a->n) {
        const jv *items, *pair;
        size_t n, two;
        if (jinja_iterate(r, a->at[0], &items, &n) || jinja_charge(r, n))
            return -1;
        for (size_t i = 0; i < n; i++) {
            if (jinja_iterate(r, items[i], &pair, &two))
                return -1;
            if (two != 2)
                return sw_fail("dictionary update sequence element #%zu has length %zu; 2 is required", i, two);
            if (jinja_dict_put(r, out->u.dict, pair[0], pair[1]))
                return -1;
        }
    }
    for (size_t k = 0; k < a->n_kw; k++)
        if (jinja_dict_put(r, out->u.dict, jspan(a->kw[k].name.at, a->kw[k].name.n), a->kw[k].value))
            return -1;
    return 0;
}

static int global_namespace(jrun *r, const jargs *a, jv *out)
{
    if (global_dict(r, a, out))
        return -1;
    out->kind = J_NAMESPACE;
    for (size_t i = 0; i < out->u.dict->n; i++) {
        jv key = out->u.dict->at[i].key;
        if (key.kind == J_STR && key.n && key.u.s[0] == '_')
            return sw_fail("a namespace's names may not begin with '_'");
    }
    return 0;
}

static int global_raise(jrun *r, const jargs *a, jv *out)
{
    jv message;
    if (JINJA_BIND("raise_exception", a, 1, &message, "message") || jinja_to_text(r, message, out))
        return -1;
    r->raised = true;
    return sw_fail("%.*s", (int)SW_MIN(out->n, (size_t)1 << 20), out->u.s);
}

static int global_strftime(jrun *r, const jargs *a, jv *out)
{
    jv format;
    char f[256], text[1024];
    if (JINJA_BIND("strftime_now", a, 1, &format, "format"))
        return -1;
    if (format.kind != J_STR)
        return sw_fail("strftime() argument 1 must be str, not %s", jinja_type_name(format));
    if (format.n >= sizeof f - 1 || memchr(format.u.s, 0, format.n))
        return sw_fail("strftime_now: the format is longer than %zu bytes or holds U+0000", sizeof f - 2);
    memcpy(f, format.u.s, format.n);
    f[format.n] = ' '; /* tells an empty result from one that does not fit */
    f[format.n + 1] = 0;
    struct tm tm;
    time_t now = r->now == -1 ? time(NULL) : (time_t)r->now;
    if (!(r->now == -1 ? localtime_r(&now, &tm) : gmtime_r(&now, &tm)))
        return sw_fail("strftime_now: the time is out of range");
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c)
        return sw_fail("strftime_now: no C locale");
    size_t n = strftime_l(text, sizeof text, f, &tm, c);
    freelocale(c);
    if (!n)
        return sw_fail("strftime_now: the result is longer than %zu bytes", sizeof text);
    return jinja_copy_text(r, text, n - 1, out);
}

static int make_cycle(jrun *r, jkind kind, jv items, jv *out)
{
    struct jcycle *c = jinja_alloc(r, sizeof *c);
    if (!c)
        return -1;
    *c = (struct jcycle){items, 0};
    *out = (jv){.kind = (uint8_t)kind, .u.cycle = c};
    return 0;
}

static int global_cycler(jrun *r, const jargs *a, jv *out)
{
    if (!a->n || a->n_kw)
        return sw_fail("at least one item has to be provided");
    jv *items = jinja_items(r, a->n);
    if (!items)
        return -1;
    memcpy(items, a->at, a->n * sizeof *items);
    return make_cycle(r, J_CYCLER, jlist(J_TUPLE, items, a->n), out);
}

static int global_joiner(jrun *r, const jargs *a, jv *out)
{
    jv sep;
    if (JINJA_BIND("joiner", a, 0, &sep, "sep"))
        return -1;
    return make_cycle(r, J_JOINER, sep.kind ? sep : JSTR(", "), out);
}

static int global_lipsum(jrun *r, const jargs *a, jv *out)
{
    (void)r, (void)a, (void)out;
    return sw_fail("lipsum makes random filler text, which a chat template has no use for: it is refused");
}

const jglobal *jinja_find_global(const char *name, size_t n)
{
    static const jglobal globals[] = {
        {"range", global_range}, {"dict", global_dict}, {"namespace", global_namespace},
        {"raise_exception", global_raise}, {"strftime_now", global_strftime}, {"cycler", global_cycler},
        {"joiner", global_joiner}, {"lipsum", global_lipsum},
    };
    for (size_t i = 0; i < SW_COUNT(globals); i++)
        if (strlen(globals[i].name) == n && !memcmp(globals[i].name, name, n))
            return &globals[i];
    return NULL;
}
