#include "store/pickle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 64 << 20, NEWEST_PROTOCOL = 5 };

typedef struct machine {
    const uint8_t *bytes;
    size_t n, at;
    const sw_pickle_global *allowed;
    sw_arena *arena;
    sw_pickle_items stack, memo; /* malloc'ed */
    sw_pickle *out;
    size_t ops;
} machine;

static void push(machine *m, sw_pickle_value v) { SW_PUSH(m->stack, v); }

/* As SW_PUSH, in the arena: the old array stays behind, which at most doubles what is used. */
static void add(machine *m, sw_pickle_items *to, sw_pickle_value v)
{
    if (to->n == to->cap) {
        size_t cap = to->cap ? 2 * to->cap : 2;
        sw_pickle_value *grown = sw_arena_alloc(m->arena, cap * sizeof *grown);
        if (to->n)
            memcpy(grown, to->at, to->n * sizeof *grown);
        to->at = grown;
        to->cap = cap;
    }
    to->at[to->n++] = v;
}

static sw_pickle_value of_items(machine *m, sw_pickle_kind kind, const sw_pickle_value *at, size_t n)
{
    sw_pickle_value v = {.kind = kind, .items = sw_arena_zalloc(m->arena, sizeof(sw_pickle_items))};
    if (n) {
        v.items->at = sw_arena_alloc(m->arena, n * sizeof *at);
        v.items->n = v.items->cap = n;
        memcpy(v.items->at, at, n * sizeof *at);
    }
    return v;
}

static int need(machine *m, size_t n)
{
    if (m->stack.n < n)
        return sw_fail("%zu values are needed on the stack, which holds %zu", n, m->stack.n);
    for (size_t i = 0; i < n; i++)
        if (m->stack.at[m->stack.n - 1 - i].kind == SW_PICKLE_MARK)
            return sw_fail("a mark lies where a value is needed");
    return 0;
}

/* The values above the topmost mark: their number, with the mark at stack.at[stack.n - number - 1]. */
static int above_mark(machine *m, size_t *n)
{
    for (*n = 0; *n < m->stack.n; ++*n)
        if (m->stack.at[m->stack.n - 1 - *n].kind == SW_PICKLE_MARK)
            return 0;
    return sw_fail("there is no mark on the stack");
}

static int take(machine *m, uint64_t n, const uint8_t **at)
{
    if (n > m->n - m->at)
        return sw_fail("%" PRIu64 " bytes are needed, %zu are left: it is cut short", n, m->n - m->at);
    *at = m->bytes + m->at;
    m->at += (size_t)n;
    return 0;
}

static int take_number(machine *m, int bytes, uint64_t *out)
{
    const uint8_t *p = NULL;
    *out = 0;
    if (take(m, (uint64_t)bytes, &p))
        return -1;
    for (int i = bytes - 1; i >= 0; i--)
        *out = *out << 8 | p[i];
    return 0;
}

static int take_text(machine *m, int length_bytes, sw_pickle_kind kind)
{
    uint64_t n;
    const uint8_t *p = NULL;
    if (take_number(m, length_bytes, &n) || take(m, n, &p))
        return -1;
    push(m, (sw_pickle_value){.kind = kind, .text = {(const char *)p, (size_t)n}});
    return 0;
}

static int take_long(machine *m, int length_bytes)
{
    uint64_t n, value = 0;
    const uint8_t *p = NULL;
    if (take_number(m, length_bytes, &n) || take(m, n, &p))
        return -1;
    if (n > 8) {
        push(m, (sw_pickle_value){.kind = SW_PICKLE_LONG, .text = {(const char *)p, (size_t)n}});
        return 0;
    }
    if (n && p[n - 1] & 0x80)
        value = UINT64_MAX;
    for (uint64_t i = n; i-- > 0;)
        value = value << 8 | p[i];
    push(m, (sw_pickle_value){.kind = SW_PICKLE_INT, .i = (int64_t)value});
    return 0;
}

static int take_line(machine *m, sw_span *out)
{
    const uint8_t *start = m->bytes + m->at, *end = memchr(start, '\n', m->n - m->at);
    if (!end)
        return sw_fail("a line has no end: it is cut short");
    *out = (sw_span){(const char *)start, (size_t)(end - start)};
    m->at += out->n + 1;
    return 0;
}

static bool is(sw_span s, const char *text) { return s.n == strlen(text) && !memcmp(s.at, text, s.n); }

/* A name for a message, whatever its bytes. */
static void printable(sw_buf *b, sw_span s)
{
    for (size_t i = 0; i < SW_MIN(s.n, 80); i++)
        sw_buf_putc(b, s.at[i] > ' ' && s.at[i] < 127 ? s.at[i] : '?');
}

static int push_global(machine *m, sw_span module, sw_span name)
{
    for (const sw_pickle_global *g = m->allowed; g->name; g++)
        if (is(module, g->module) && is(name, g->name)) {
            push(m, (sw_pickle_value){.kind = SW_PICKLE_GLOBAL, .global = g});
            return 0;
        }
    sw_buf b = {0};
    printable(&b, module);
    sw_buf_putc(&b, '.');
    printable(&b, name);
    int rc = sw_fail("it asks for %s, which is refused: only tensors and plain values are read", b.at);
    sw_buf_free(&b);
    return rc;
}

static int stack_global(machine *m)
{
    if (need(m, 2))
        return -1;
    sw_pickle_value module = m->stack.at[m->stack.n - 2], name = m->stack.at[m->stack.n - 1];
    if (module.kind != SW_PICKLE_STR || name.kind != SW_PICKLE_STR)
        return sw_fail("the name of a global is no string");
    m->stack.n -= 2;
    return push_global(m, module.text, name.text);
}

/* callee, arguments -> what the call would make */
static int call(machine *m)
{
    char what[96];
    if (need(m, 2))
        return -1;
    sw_pickle_value callee = m->stack.at[m->stack.n - 2], arguments = m->stack.at[m->stack.n - 1];
    if (callee.kind != SW_PICKLE_GLOBAL)
        return sw_fail("it calls %s", sw_pickle_describe(&callee, what));
    if (arguments.kind != SW_PICKLE_TUPLE)
        return sw_fail("the arguments of %s.%s are %s, a tuple is needed", callee.global->module, callee.global->name,
                       sw_pickle_describe(&arguments, what));
    m->stack.n -= 2;
    if (!callee.global->makes_dict) {
        push(m, of_items(m, SW_PICKLE_CALL, (sw_pickle_value[]){callee, arguments}, 2));
        return 0;
    }
    sw_pickle_value dict = of_items(m, SW_PICKLE_DICT, NULL, 0);
    sw_pickle_items *pairs = NULL;
    if (arguments.items->n == 1 && arguments.items->at[0].kind == SW_PICKLE_LIST)
        pairs = arguments.items->at[0].items;
    if (arguments.items->n > 1 || (arguments.items->n && !pairs))
        return sw_fail("the arguments of %s.%s are no list of pairs", callee.global->module, callee.global->name);
    for (size_t i = 0; pairs && i < pairs->n; i++) {
        sw_pickle_value pair = pairs->at[i];
        if ((pair.kind != SW_PICKLE_TUPLE && pair.kind != SW_PICKLE_LIST) || pair.items->n != 2)
            return sw_fail("the arguments of %s.%s are no list of pairs", callee.global->module, callee.global->name);
        add(m, dict.items, pair.items->at[0]);
        add(m, dict.items, pair.items->at[1]);
    }
    if (pairs)
        pairs->n = 0; /* each list becomes a dict once: many calls over one list would take time without bound */
    push(m, dict);
    return 0;
}

/* object, state -> object: attributes of a dict or a tensor say nothing about values */
static int build(machine *m)
{
    char what[96];
    if (need(m, 2))
        return -1;
    sw_pickle_value object = m->stack.at[m->stack.n - 2];
    if (object.kind != SW_PICKLE_DICT && object.kind != SW_PICKLE_CALL)
        return sw_fail("it sets the state of %s", sw_pickle_describe(&object, what));
    m->stack.n--;
    return 0;
}

static int collect(machine *m, sw_pickle_kind kind, size_t n)
{
    if (need(m, n))
        return -1;
    sw_pickle_value v = of_items(m, kind, m->stack.at + m->stack.n - n, n);
    m->stack.n -= n;
    push(m, v);
    return 0;
}

/* From a mark on. */
static int collect_marked(machine *m, sw_pickle_kind kind)
{
    size_t n;
    if (above_mark(m, &n))
        return -1;
    if (kind == SW_PICKLE_DICT && n % 2)
        return sw_fail("a key has no value");
    sw_pickle_value v = of_items(m, kind, m->stack.at + m->stack.n - n, n);
    m->stack.n -= n + 1;
    push(m, v);
    return 0;
}

/* The top n values, under which a list or dict lies, go into it. */
static int extend(machine *m, sw_pickle_kind kind, size_t n, size_t marks)
{
    char what[96];
    if (m->stack.n < n + marks + 1)
        return sw_fail("there is nothing to add to");
    sw_pickle_value to = m->stack.at[m->stack.n - n - marks - 1];
    if (to.kind != kind)
        return sw_fail("members of a %s are added to %s", kind == SW_PICKLE_DICT ? "dict" : "list",
                       sw_pickle_describe(&to, what));
    if (kind == SW_PICKLE_DICT && n % 2)
        return sw_fail("a key has no value");
    for (size_t i = 0; i < n; i++)
        add(m, to.items, m->stack.at[m->stack.n - n + i]);
    m->stack.n -= n + marks;
    return 0;
}

static int extend_marked(machine *m, sw_pickle_kind kind)
{
    size_t n;
    return above_mark(m, &n) || extend(m, kind, n, 1) ? -1 : 0;
}

static int extend_by(machine *m, sw_pickle_kind kind, size_t n) { return need(m, n) || extend(m, kind, n, 0) ? -1 : 0; }

/* Writers count memo places up from 0 or 1, so that none is beyond the instructions so far. */
static int put(machine *m, uint64_t index)
{
    if (need(m, 1))
        return -1;
    if (index > m->ops)
        return sw_fail("memo place %" PRIu64 " is far beyond any that a writer would use here", index);
    while (m->memo.n <= index)
        SW_PUSH(m->memo, ((sw_pickle_value){.kind = SW_PICKLE_MARK}));
    m->memo.at[index] = m->stack.at[m->stack.n - 1];
    return 0;
}

static int get(machine *m, uint64_t index)
{
    if (index >= m->memo.n || m->memo.at[index].kind == SW_PICKLE_MARK)
        return sw_fail("memo place %" PRIu64 " is read and was never written", index);
    push(m, m->memo.at[index]);
    return 0;
}

static int persistent(machine *m)
{
    if (collect(m, SW_PICKLE_PERSISTENT, 1))
        return -1;
    add(m, &m->out->persistents, m->stack.at[m->stack.n - 1]);
    return 0;
}

static int push_float(machine *m)
{
    const uint8_t *p = NULL;
    union {
        uint64_t u;
        double f;
    } v = {0};
    if (take(m, 8, &p))
        return -1;
    for (int i = 0; i < 8; i++)
        v.u = v.u << 8 | p[i];
    push(m, (sw_pickle_value){.kind = SW_PICKLE_FLOAT, .f = v.f});
    return 0;
}

static int push_int(machine *m, int bytes)
{
    uint64_t v;
    if (take_number(m, bytes, &v))
        return -1;
    push(m, (sw_pickle_value){.kind = SW_PICKLE_INT, .i = bytes == 4 ? (int32_t)(uint32_t)v : (int64_t)v});
    return 0;
}

static void push_bool(machine *m, bool v) { push(m, (sw_pickle_value){.kind = SW_PICKLE_BOOL, .i = v}); }

static int pop(machine *m)
{
    if (!m->stack.n)
        return sw_fail("the stack is empty");
    m->stack.n--;
    return 0;
}

static int pop_mark(machine *m)
{
    size_t n;
    if (above_mark(m, &n))
        return -1;
    m->stack.n -= n + 1;
    return 0;
}

static int step(machine *m, uint8_t op)
{
    uint64_t v;
    sw_span module, name;
    switch (op) {
    case 0x80: /* PROTO */
        if (take_number(m, 1, &v))
            return -1;
        return v <= NEWEST_PROTOCOL ? 0 : sw_fail("protocol %" PRIu64 ", at most %d is known", v, NEWEST_PROTOCOL);
    case 0x95: return take_number(m, 8, &v); /* FRAME */
    case '(': push(m, (sw_pickle_value){.kind = SW_PICKLE_MARK}); return 0;
    case '0': return pop(m);
    case '1': return pop_mark(m);
    case '2':
        if (need(m, 1))
            return -1;
        push(m, m->stack.at[m->stack.n - 1]);
        return 0;
    case 'N': push(m, (sw_pickle_value){.kind = SW_PICKLE_NONE}); return 0;
    case 0x88: push_bool(m, true); return 0;
    case 0x89: push_bool(m, false); return 0;
    case 'J': return push_int(m, 4);
    case 'K': return push_int(m, 1);
    case 'M': return push_int(m, 2);
    case 0x8a: return take_long(m, 1);
    case 0x8b: return take_long(m, 4);
    case 'G': return push_float(m);
    case 0x8c:
    case 'U': return take_text(m, 1, SW_PICKLE_STR);
    case 'X':
    case 'T': return take_text(m, 4, SW_PICKLE_STR);
    case 0x8d: return take_text(m, 8, SW_PICKLE_STR);
    case 'C': return take_text(m, 1, SW_PICKLE_BYTES);
    case 'B': return take_text(m, 4, SW_PICKLE_BYTES);
    case 0x8e: return take_text(m, 8, SW_PICKLE_BYTES);
    case ')': return collect(m, SW_PICKLE_TUPLE, 0);
    case 0x85: return collect(m, SW_PICKLE_TUPLE, 1);
    case 0x86: return collect(m, SW_PICKLE_TUPLE, 2);
    case 0x87: return collect(m, SW_PICKLE_TUPLE, 3);
    case 't': return collect_marked(m, SW_PICKLE_TUPLE);
    case ']':
    case 0x8f: return collect(m, SW_PICKLE_LIST, 0);
    case 'l':
    case 0x91: return collect_marked(m, SW_PICKLE_LIST);
    case '}': return collect(m, SW_PICKLE_DICT, 0);
    case 'd': return collect_marked(m, SW_PICKLE_DICT);
    case 'a': return extend_by(m, SW_PICKLE_LIST, 1);
    case 'e':
    case 0x90: return extend_marked(m, SW_PICKLE_LIST);
    case 's': return extend_by(m, SW_PICKLE_DICT, 2);
    case 'u': return extend_marked(m, SW_PICKLE_DICT);
    case 'c': return take_line(m, &module) || take_line(m, &name) || push_global(m, module, name) ? -1 : 0;
    case 'i': /* INST: a call of protocol 0; its name is said */
        return take_line(m, &module) || take_line(m, &name) || push_global(m, module, name) ||
                       sw_fail("protocol 0 is not read")
                   ? -1
                   : 0;
    case 0x93: return stack_global(m);
    case 'R':
    case 0x81: return call(m); /* NEWOBJ: a class without a function of its own */
    case 'b': return build(m);
    case 'Q': return persistent(m);
    case 'q': return take_number(m, 1, &v) || put(m, v) ? -1 : 0;
    case 'r': return take_number(m, 4, &v) || put(m, v) ? -1 : 0;
    case 0x94: return put(m, m->memo.n);
    case 'h': return take_number(m, 1, &v) || get(m, v) ? -1 : 0;
    case 'j': return take_number(m, 4, &v) || get(m, v) ? -1 : 0;
    default:
        return sw_fail(op > ' ' && op < 127 ? "the instruction '%c' is refused: no writer of tensors needs it"
                                            : "the instruction 0x%02x is refused: no writer of tensors needs it",
                       op);
    }
}

static int run(machine *m)
{
    for (;;) {
        uint64_t op;
        size_t at = m->at;
        if (at >= MOST_BYTES)
            return sw_fail("it is longer than %d bytes", MOST_BYTES);
        if (take_number(m, 1, &op))
            return sw_fail_in("byte %zu", at);
        m->ops++;
        if (op != '.') {
            if (step(m, (uint8_t)op))
                return sw_fail_in("byte %zu", at);
            continue;
        }
        if (need(m, 1) || (m->stack.n != 1 && sw_fail("%zu values are left over", m->stack.n - 1)))
            return sw_fail_in("byte %zu", at);
        m->out->value = m->stack.at[0];
        m->out->used = m->at;
        return 0;
    }
}

int sw_pickle_read(const uint8_t *bytes, size_t n, const sw_pickle_global *allowed, sw_arena *a, sw_pickle *out)
{
    machine m = {.bytes = bytes, .n = n, .allowed = allowed, .arena = a, .out = out};
    *out = (sw_pickle){0};
    SW_RESERVE(m.stack, 64);
    int rc = run(&m);
    free(m.stack.at);
    free(m.memo.at);
    return rc;
}

char *sw_pickle_describe(const sw_pickle_value *v, char out[96])
{
    static const char *const words[] = {"None",    "a bool", "a number", "a number", "a number", "a string",  "bytes",
                                        "a tuple", "a list", "a dict",   "a name",   "a call",   "a storage", "a mark"};
    const sw_pickle_value *g = v->kind == SW_PICKLE_CALL ? &v->items->at[0] : v;
    if (g->kind == SW_PICKLE_GLOBAL)
        snprintf(out, 96, "%s%s.%s", v == g ? "" : "a call of ", g->global->module, g->global->name);
    else
        snprintf(out, 96, "%s", words[v->kind]);
    return out;
}
