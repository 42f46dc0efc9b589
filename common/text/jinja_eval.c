/* Running the tree. Every node that is evaluated counts as a step; nesting of calls and expressions is bounded, so
 * that a template can neither run for ever nor use up the stack. */
#include "text/jinja_internal.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

static inline int step(jrun *r)
{
    if (++r->steps > JINJA_MAX_STEPS)
        return jinja_charge(r, 0);
    return 0;
}

static int too_deep(jrun *r)
{
    r->depth--;
    return sw_fail("the template recurses deeper than %d levels", JINJA_MAX_DEPTH);
}

jframe *jinja_frame(jrun *r, jframe *parent, uint32_t n_slots)
{
    jframe *f = jinja_alloc(r, sizeof *f + n_slots * sizeof(jv));
    if (!f)
        return NULL;
    f->parent = parent;
    memset(f->slot, 0, n_slots * sizeof(jv));
    return f;
}

/* ---- expressions */

static int eval_name(jrun *r, jframe *f, const jnode *n, jv *out)
{
    uint32_t up = 0;
    for (uint32_t i = 0; i < n->n_refs; i++) {
        for (; up < n->refs[i].up; up++)
            f = f->parent;
        *out = f->slot[n->refs[i].slot];
        if (out->kind != J_MISSING)
            return 0;
    }
    *out = r->context[n->global];
    if (out->kind != J_MISSING)
        return 0;
    *out = jinja_undefined(r, NULL, n->value);
    return out->u.undefined ? 0 : -1;
}

static int eval_items(jrun *r, jframe *f, const jnode *n, jv *out)
{
    jv *items = jinja_items(r, n->n);
    if (!items)
        return -1;
    *out = jlist(n->type == N_LIST ? J_LIST : J_TUPLE, items, n->n);
    for (const jnode *c = n->a; c; c = c->next)
        if (jinja_eval(r, f, c, items++))
            return -1;
    return 0;
}

static int eval_dict(jrun *r, jframe *f, const jnode *n, jv *out)
{
    *out = jinja_dict_new(r, n->n);
    if (!out->kind)
        return -1;
    for (const jnode *c = n->a; c; c = c->next) {
        jv key, value;
        if (jinja_eval(r, f, c->a, &key) || jinja_eval(r, f, c->b, &value) || jinja_dict_put(r, out->u.dict, key, value))
            return -1;
    }
    return 0;
}

static int compare_pair(jrun *r, jop op, jv a, jv b, bool *yes)
{
    static const char *const names[] = {[OP_LT] = "<", [OP_LE] = "<=", [OP_GT] = ">", [OP_GE] = ">="};
    int cmp;
    switch (op) {
    case OP_EQ: *yes = jinja_equal(r, a, b); return 0;
    case OP_NE: *yes = !jinja_equal(r, a, b); return 0;
    case OP_IN: return jinja_contains(r, a, b, yes);
    case OP_NOT_IN:
        if (jinja_contains(r, a, b, yes))
            return -1;
        *yes = !*yes;
        return 0;
    default: break;
    }
    if (jinja_compare(r, a, b, names[op], &cmp))
        return -1;
    *yes = cmp != 2 && (op == OP_LT ? cmp < 0 : op == OP_LE ? cmp <= 0 : op == OP_GT ? cmp > 0 : cmp >= 0);
    return 0;
}

static int eval_compare(jrun *r, jframe *f, const jnode *n, jv *out)
{
    jv left, right;
    bool yes = true;
    if (jinja_eval(r, f, n->a, &left))
        return -1;
    for (const jnode *o = n->b; o && yes; o = o->next, left = right)
        if (jinja_eval(r, f, o->a, &right) || compare_pair(r, (jop)o->op, left, right, &yes))
            return -1;
    *out = jbool(yes);
    return 0;
}

static int eval_concat(jrun *r, jframe *f, const jnode *n, jv *out)
{
    jv few[8], *parts = n->n <= SW_COUNT(few) ? few : jinja_items(r, n->n);
    size_t total = 0, i = 0;
    if (!parts)
        return -1;
    for (const jnode *c = n->a; c; c = c->next, i++) {
        if (jinja_eval(r, f, c, &parts[i]) || jinja_to_text(r, parts[i], &parts[i]))
            return -1;
        total += parts[i].n;
    }
    char *to = jinja_text(r, total);
    if (!to)
        return -1;
    *out = jspan(to, total);
    for (size_t k = 0; k < i; k++) {
        memcpy(to, parts[k].u.s, parts[k].n);
        to += parts[k].n;
    }
    return 0;
}

static int eval_slice(jrun *r, jframe *f, const jnode *n, jv *out)
{
    jv v, start = J_NONE_V, stop = J_NONE_V, by = J_NONE_V;
    if (jinja_eval(r, f, n->a, &v) || (n->b && jinja_eval(r, f, n->b, &start)) || (n->c && jinja_eval(r, f, n->c, &stop)) ||
        (n->d && jinja_eval(r, f, n->d, &by)))
        return -1;
    return jinja_slice(r, v, start, stop, by, out);
}

/* A FILTER or TEST over an input. */
static int eval_applied(jrun *r, jframe *f, const jnode *n, jv *out)
{
    jv input[5];
    jargs a = {input, 1, NULL, 0};
    if (jinja_eval(r, f, n->a, &input[0]))
        return -1;
    if (!n->fn)
        return sw_fail("No %s named '%.*s'", n->type == N_TEST ? "test" : "filter", (int)SW_MIN(n->name.n, 100), n->name.at);
    if (!n->has_keywords && n->n < SW_COUNT(input)) { /* nearly all of them */
        for (const jnode *c = n->b; c; c = c->next)
            if (jinja_eval(r, f, c, &input[a.n++]))
                return -1;
    } else if (jinja_arguments(r, f, n->b, &input[0], NULL, &a)) {
        return -1;
    }
    r->line = n->line;
    return n->fn(r, &a, out);
}

static int eval_attr(jrun *r, jframe *f, const jnode *n, jv *out)
{
    jv v;
    if (jinja_eval(r, f, n->a, &v))
        return -1;
    if (v.kind == J_DICT && !(n->method && n->method->dict)) { /* the common case: a member of a message */
        const jv *member = jinja_dict_find(r, v.u.dict, n->value);
        if (member) {
            *out = *member;
            return 0;
        }
    }
    return jinja_getattr(r, v, n->value, n->method, out);
}

static int eval_node(jrun *r, jframe *f, const jnode *n, jv *out)
{
    jv a, b;
    switch ((jtype)n->type) {
    case N_CONST: *out = n->value; return 0;
    case N_NAME: return eval_name(r, f, n, out);
    case N_LIST:
    case N_TUPLE: return eval_items(r, f, n, out);
    case N_DICT: return eval_dict(r, f, n, out);
    case N_ATTR: return eval_attr(r, f, n, out);
    case N_ITEM:
        if (jinja_eval(r, f, n->a, &a) || jinja_eval(r, f, n->b, &b))
            return -1;
        return jinja_getitem(r, a, b, out);
    case N_SLICE: return eval_slice(r, f, n, out);
    case N_CALL: return jinja_call_node(r, f, n, out, NULL);
    case N_FILTER:
    case N_TEST: return eval_applied(r, f, n, out);
    case N_FILTER_INPUT: *out = r->filter_input; return 0;
    case N_COND:
        if (jinja_eval(r, f, n->a, &a))
            return -1;
        if (jinja_truth(a))
            return jinja_eval(r, f, n->b, out);
        if (n->c)
            return jinja_eval(r, f, n->c, out);
        *out = jinja_undefined(r, NULL, JSTR("the inline if-expression without else"));
        return out->u.undefined ? 0 : -1;
    case N_AND:
    case N_OR:
        if (jinja_eval(r, f, n->a, out))
            return -1;
        return jinja_truth(*out) == (n->type == N_AND) ? jinja_eval(r, f, n->b, out) : 0;
    case N_NOT:
        if (jinja_eval(r, f, n->a, &a))
            return -1;
        *out = jbool(!jinja_truth(a));
        return 0;
    case N_NEG:
    case N_POS:
        if (jinja_eval(r, f, n->a, &a) || jinja_negate(a, out))
            return -1;
        return n->type == N_POS ? jinja_negate(*out, out) : 0;
    case N_BINARY:
        if (jinja_eval(r, f, n->a, &a) || jinja_eval(r, f, n->b, &b))
            return -1;
        return jinja_binary(r, (jop)n->op, a, b, out);
    case N_CONCAT: return eval_concat(r, f, n, out);
    case N_COMPARE: return eval_compare(r, f, n, out);
    default: return sw_fail("a statement stands where a value should");
    }
}

int jinja_eval(jrun *r, jframe *f, const jnode *n, jv *out)
{
    if (step(r))
        return -1;
    if (n->type == N_CONST) {
        *out = n->value;
        return 0;
    }
    if (++r->depth > JINJA_MAX_DEPTH)
        return too_deep(r);
    int bad = eval_node(r, f, n, out);
    r->depth--;
    return bad;
}

/* ---- statements */

static int emit(jrun *r, const char *s, size_t n)
{
    if (n > JINJA_MAX_OUTPUT || r->out->n + n > JINJA_MAX_OUTPUT + r->top_start)
        return sw_fail("the output is too long (more than %d MiB)", JINJA_MAX_OUTPUT >> 20);
    sw_buf_add(r->out, s, n);
    return jinja_charge(r, n / 64);
}

static int emit_value(jrun *r, jv v)
{
    if (v.kind == J_STR)
        return emit(r, v.u.s, v.n);
    if (v.kind == J_UNDEFINED)
        return 0;
    return jinja_print(r, r->out, v) || emit(r, "", 0) ? -1 : 0;
}

/* a + b + c of plain texts goes to the output piece by piece, without making the sum. */
static int emit_sum(jrun *r, jframe *f, const jnode *n)
{
    const jnode *spine[64];
    size_t depth = 0, start = r->out->n;
    for (; n->type == N_BINARY && n->op == OP_ADD && depth < SW_COUNT(spine); n = n->a)
        spine[depth++] = n->b;
    jv sum, right;
    if (jinja_eval(r, f, n, &sum))
        return -1;
    bool plain = sum.kind == J_STR && !sum.flags;
    if (plain && emit(r, sum.u.s, sum.n))
        return -1;
    while (depth--) {
        if (jinja_eval(r, f, spine[depth], &right))
            return -1;
        if (plain && right.kind == J_STR && !right.flags) {
            if (emit(r, right.u.s, right.n))
                return -1;
            continue;
        }
        if (plain) { /* markup, which escapes what came before it, or an error: the sum is wanted after all */
            plain = false;
            if (jinja_copy_text(r, r->out->at ? r->out->at + start : "", r->out->n - start, &sum))
                return -1;
            r->out->n = start;
        }
        if (jinja_binary(r, OP_ADD, sum, right, &sum))
            return -1;
    }
    return plain ? 0 : emit_value(r, sum);
}

static int exec_output(jrun *r, jframe *f, const jnode *n)
{
    jv v;
    r->line = n->line;
    if (n->type == N_BINARY && n->op == OP_ADD)
        return emit_sum(r, f, n);
    if (n->type == N_CONCAT) {
        for (const jnode *c = n->a; c; c = c->next)
            if (jinja_eval(r, f, c, &v) || emit_value(r, v))
                return -1;
        return 0;
    }
    return jinja_eval(r, f, n, &v) || emit_value(r, v) ? -1 : 0;
}

static int assign(jrun *r, jframe *f, const jnode *target, jv v)
{
    if (target->type == N_NAME) {
        f->slot[target->slot] = v;
        return 0;
    }
    if (target->type == N_ATTR) {
        jv ns;
        if (jinja_eval(r, f, target->a, &ns))
            return -1;
        if (ns.kind != J_NAMESPACE)
            return sw_fail("cannot assign attribute on non-namespace object");
        if (target->name.n && target->name.at[0] == '_')
            return sw_fail("a namespace's names may not begin with '_'");
        return jinja_dict_put(r, ns.u.dict, jspan(target->name.at, target->name.n), v);
    }
    const jv *items;
    size_t n;
    if (jinja_iterate(r, v, &items, &n))
        return -1;
    if (n < target->n)
        return sw_fail("not enough values to unpack (expected %u, got %zu)", target->n, n);
    if (n > target->n)
        return sw_fail("too many values to unpack (expected %u)", target->n);
    for (const jnode *t = target->a; t; t = t->next)
        if (assign(r, f, t, *items++))
            return -1;
    return 0;
}

int jinja_exec_for(jrun *r, jframe *f, const jnode *n, jv iterable, size_t depth)
{
    const jv *items;
    size_t count;
    if (jinja_iterate(r, iterable, &items, &count))
        return -1;
    jframe *in = jinja_frame(r, f, n->n_slots);
    struct jloop *loop = jinja_alloc(r, sizeof *loop);
    if (!in || !loop)
        return -1;
    if (n->c && count) { /* the condition decides what the loop is over */
        jv *kept = jinja_items(r, count), yes;
        size_t k = 0;
        if (!kept)
            return -1;
        for (size_t i = 0; i < count; i++) {
            memset(in->slot, 0, n->n_slots * sizeof(jv));
            if (assign(r, in, n->a, items[i]) || jinja_eval(r, in, n->c, &yes))
                return -1;
            if (jinja_truth(yes))
                kept[k++] = items[i];
        }
        items = kept;
        count = k;
    }
    *loop = (struct jloop){.node = n, .frame = f, .items = items, .n = count, .depth = depth};
    for (size_t i = 0; i < count; i++) {
        loop->i = i;
        memset(in->slot, 0, n->n_slots * sizeof(jv));
        in->slot[n->slot] = (jv){.kind = J_LOOP, .u.loop = loop};
        if (step(r) || assign(r, in, n->a, items[i]))
            return -1;
        int how = jinja_exec(r, in, n->d);
        if (how == JX_ERROR)
            return -1;
        if (how == JX_BREAK)
            break;
    }
    return count ? JX_NEXT : jinja_exec(r, f, n->e);
}

/* Runs body with its output taken as a text. */
int jinja_exec_captured(jrun *r, jframe *f, const jnode *body, jv *out)
{
    sw_buf *before = r->out;
    size_t start = r->scratch.n;
    r->out = &r->scratch;
    int how = jinja_exec(r, f, body);
    r->out = before;
    if (how == JX_ERROR || jinja_copy_text(r, r->scratch.at ? r->scratch.at + start : "", r->scratch.n - start, out))
        return -1;
    r->scratch.n = start;
    return 0;
}

static int exec_block_value(jrun *r, jframe *f, const jnode *body, uint32_t n_slots, const jnode *filter, jv *out)
{
    jframe *in = jinja_frame(r, f, n_slots);
    if (!in || jinja_exec_captured(r, in, body, out))
        return -1;
    if (!filter)
        return 0;
    jv before = r->filter_input;
    r->filter_input = *out;
    int bad = jinja_eval(r, f, filter, out);
    r->filter_input = before;
    return bad;
}

static int exec_with(jrun *r, jframe *f, const jnode *n)
{
    jframe *in = jinja_frame(r, f, n->n_slots);
    if (!in)
        return -1;
    const jnode *value = n->b;
    for (const jnode *t = n->a; t; t = t->next, value = value->next) {
        jv v;
        if (jinja_eval(r, f, value, &v) || assign(r, in, t, v))
            return -1;
    }
    return jinja_exec(r, in, n->c);
}

static int make_macro(jrun *r, jframe *f, const jnode *n, jv *out)
{
    struct jmacro *m = jinja_alloc(r, sizeof *m);
    if (!m)
        return -1;
    *m = (struct jmacro){n, f, jspan(n->name.at, n->name.n)};
    *out = (jv){.kind = J_MACRO, .u.macro = m};
    return 0;
}

static int exec_call_block(jrun *r, jframe *f, const jnode *n)
{
    jv caller, v;
    return make_macro(r, f, n->b, &caller) || jinja_call_node(r, f, n->a, &v, &caller) || emit_value(r, v) ? -1 : 0;
}

/* Inside a macro the place in the output is not known yet; what is there so far stands for it, as for those who
 * made this block. */
static int exec_generation(jrun *r, jframe *f, const jnode *n)
{
    size_t start = r->out->n, from = r->top->n;
    jframe *in = jinja_frame(r, f, n->n_slots);
    if (!in || jinja_exec(r, in, n->b) == JX_ERROR)
        return -1;
    if (r->ranges) {
        SW_RESERVE(*r->ranges, r->ranges->n + 1);
        r->ranges->at[r->ranges->n][0] = from;
        r->ranges->at[r->ranges->n++][1] = from + (r->out->n - start);
    }
    return 0;
}

static int exec_block(jrun *r, jframe *f, const jnode *n)
{
    r->line = n->line;
    if (n->op & BLOCK_REQUIRED)
        return sw_fail("Required block '%.*s' not found", (int)SW_MIN(n->b->name.n, 100), n->b->name.at);
    jframe *in = jinja_frame(r, n->op & BLOCK_SCOPED ? f : r->root, n->b->n_slots);
    return in ? jinja_exec(r, in, n->b->c) : -1;
}

static int exec_one(jrun *r, jframe *f, const jnode *n)
{
    jv v;
    switch ((jtype)n->type) {
    case N_DATA: return emit(r, n->name.at, n->name.n);
    case N_OUTPUT: return exec_output(r, f, n->a);
    case N_FOR:
        r->line = n->line;
        return jinja_eval(r, f, n->b, &v) ? -1 : jinja_exec_for(r, f, n, v, 0);
    case N_IF:
        for (;; n = n->c) { /* elif by elif */
            r->line = n->line;
            if (jinja_eval(r, f, n->a, &v))
                return -1;
            if (jinja_truth(v))
                return jinja_exec(r, f, n->b);
            if (!n->c || n->c->type != N_IF || n->c->next)
                return jinja_exec(r, f, n->c);
        }
    case N_SET:
        r->line = n->line;
        return jinja_eval(r, f, n->b, &v) ? -1 : assign(r, f, n->a, v);
    case N_SET_BLOCK:
        return exec_block_value(r, f, n->b, n->n_slots, n->c, &v) ? -1 : assign(r, f, n->a, v);
    case N_FILTER_BLOCK:
        if (exec_block_value(r, f, n->b, n->n_slots, n->a, &v))
            return -1;
        return v.kind == J_STR ? emit_value(r, v) : sw_fail("a filter block ends in text, not in %s", jinja_type_name(v));
    case N_WITH: return exec_with(r, f, n);
    case N_MACRO: return make_macro(r, f, n, &f->slot[n->slot]);
    case N_CALL_BLOCK: return exec_call_block(r, f, n);
    case N_BREAK: return JX_BREAK;
    case N_CONTINUE: return JX_CONTINUE;
    case N_GENERATION: return exec_generation(r, f, n);
    case N_BLOCK: return exec_block(r, f, n);
    default: return sw_fail("a value stands where a statement should");
    }
}

int jinja_exec(jrun *r, jframe *f, const jnode *body)
{
    if (++r->depth > JINJA_MAX_DEPTH)
        return too_deep(r);
    int how = JX_NEXT;
    for (const jnode *n = body; n && how == JX_NEXT; n = n->next)
        how = step(r) ? JX_ERROR : exec_one(r, f, n);
    r->depth--;
    return how;
}

/* ---- a rendering */

/* What a scoped block sees when it is called from elsewhere: nothing of the scopes that it stands in. */
static jframe *empty_frames(jrun *r, const jnode *scopes)
{
    jframe *outer = scopes ? empty_frames(r, scopes->next) : r->root;
    return outer && scopes ? jinja_frame(r, outer, scopes->a->n_slots) : outer;
}

/* `self`: the blocks, to be called. */
static int blocks_of(jrun *r, jv *out)
{
    const sw_jinja *j = r->template;
    *out = jinja_dict_new(r, j->blocks.n);
    if (!out->kind)
        return -1;
    out->kind = J_NAMESPACE;
    for (size_t i = 0; i < j->blocks.n; i++) {
        jv block;
        sw_span name = j->blocks.at[i]->name;
        jframe *f = empty_frames(r, j->blocks.at[i]->d);
        if (!f || make_macro(r, f, j->blocks.at[i], &block) ||
            jinja_dict_put(r, out->u.dict, jspan(name.at, name.n), block))
            return -1;
    }
    return 0;
}

/* What the names of the template are before any statement: variables, else the globals of chat templates. */
static int fill_context(jrun *r, const cJSON *vars)
{
    const sw_jinja *j = r->template;
    r->context = jinja_items(r, j->globals.n);
    if (!r->context)
        return -1;
    for (size_t i = 0; i < j->globals.n; i++) {
        sw_span name = j->globals.at[i];
        const jglobal *g = jinja_find_global(name.at, name.n);
        r->context[i] = g ? (jv){.kind = J_FUNCTION, .u.function = g} : (jv){0};
        const cJSON *found = NULL;
        for (const cJSON *c = cJSON_IsObject(vars) ? vars->child : NULL; c; c = c->next)
            if (c->string && strlen(c->string) == name.n && !memcmp(c->string, name.at, name.n))
                found = c;
        bool self = name.n == 4 && !memcmp(name.at, "self", 4);
        if (self ? blocks_of(r, &r->context[i]) : found && jinja_from_json(r, found, &r->context[i]))
            return -1;
    }
    return 0;
}

int sw_jinja_render(const sw_jinja *j, const cJSON *vars, double now, sw_buf *out, sw_ranges *ranges, sw_jinja_error *kind)
{
    size_t ranges_before = ranges ? ranges->n : 0;
    jrun r = {.template = j, .out = out, .top = out, .top_start = out->n, .ranges = ranges, .now = now};
    r.root = jinja_frame(&r, NULL, j->n_slots);
    int bad = !r.root || fill_context(&r, vars) || jinja_exec(&r, r.root, j->body) == JX_ERROR ? -1 : 0;
    if (bad) {
        out->n = r.top_start;
        if (out->at)
            out->at[out->n] = 0;
        if (ranges)
            ranges->n = ranges_before;
        if (!r.raised && r.line)
            sw_fail_in("line %d", r.line);
    }
    if (kind)
        *kind = r.raised ? SW_JINJA_RAISED : SW_JINJA_OTHER;
    jinja_pools_free(&r);
    sw_buf_free(&r.scratch);
    sw_buf_free(&r.number);
    return bad;
}
