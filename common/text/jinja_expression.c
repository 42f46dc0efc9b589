/* The parser of expressions. Precedence, low to high: x if y else z; or; and; not; comparisons; + -; ~; * / // %;
 * unary; **; then subscripts, calls, filters and tests. */
#include "text/jinja_parser.h"

#include <string.h>

static int parse_unary(jparser *p, bool filters, jnode **out);
static int parse_primary(jparser *p, jnode **out);
static int parse_postfix(jparser *p, jnode *n, jnode **out);

static jnode *binary(jparser *p, jtype type, jop op, jnode *a, jnode *b)
{
    jnode *n = jinja_node(p, type);
    n->op = (uint8_t)op;
    n->a = a;
    n->b = b;
    return n;
}

static jnode *constant(jparser *p, jv v)
{
    jnode *n = jinja_node(p, N_CONST);
    if (v.kind == J_STR)
        v.hash = jinja_hash(v.u.s, v.n);
    n->value = v;
    return n;
}

static int unexpected(jparser *p)
{
    const jtoken *t = p->t;
    if (t->type == T_END)
        return sw_fail("line %d: unexpected end of template", t->line);
    return sw_fail("line %d: unexpected '%s'", t->line, jinja_token_name(t->type));
}

/* ---- primaries */

static int parse_list(jparser *p, jtoken_type end, jnode *n)
{
    jnode **tail = &n->a;
    while (p->t->type != end) {
        if (n->a && jinja_expect(p, T_COMMA))
            return -1;
        if (p->t->type == end)
            break;
        jnode *one;
        if (jinja_parse_expression(p, &one))
            return -1;
        if (n->type == N_DICT) {
            one = binary(p, N_PAIR, 0, one, NULL);
            if (jinja_expect(p, T_COLON) || jinja_parse_expression(p, &one->b))
                return -1;
        }
        *tail = one;
        tail = &one->next;
        n->n++;
    }
    return jinja_expect(p, end);
}

static int parse_strings(jparser *p, jnode **out)
{
    sw_span text = p->t++->text;
    if (p->t->type == T_STRING) { /* neighbours are one */
        size_t total = text.n;
        for (const jtoken *t = p->t; t->type == T_STRING; t++)
            total += t->text.n;
        char *to = sw_arena_alloc(&p->j->arena, total + 1);
        memcpy(to, text.at, text.n);
        for (size_t at = text.n; p->t->type == T_STRING; p->t++) {
            memcpy(to + at, p->t->text.at, p->t->text.n);
            at += p->t->text.n;
        }
        text = (sw_span){to, total};
    }
    *out = constant(p, jspan(text.at, text.n));
    return 0;
}

static int parse_primary(jparser *p, jnode **out)
{
    static const struct {
        const char *name;
        jv value;
    } constants[] = {
        {"true", {.kind = J_BOOL, .u.b = true}}, {"True", {.kind = J_BOOL, .u.b = true}},
        {"false", {.kind = J_BOOL}}, {"False", {.kind = J_BOOL}}, {"none", {.kind = J_NONE}}, {"None", {.kind = J_NONE}},
    };
    const jtoken *t = p->t;
    switch (t->type) {
    case T_NAME:
        for (size_t i = 0; i < SW_COUNT(constants); i++)
            if (jinja_skip_name(p, constants[i].name)) {
                *out = constant(p, constants[i].value);
                return 0;
            }
        *out = jinja_node(p, N_NAME);
        (*out)->name = t->text;
        p->t++;
        jinja_load_name(p, *out);
        return 0;
    case T_STRING: return parse_strings(p, out);
    case T_INT:
    case T_FLOAT:
        *out = constant(p, t->number);
        p->t++;
        return 0;
    case T_LPAREN:
        p->t++;
        return jinja_parse_tuple(p, true, true, out) || jinja_expect(p, T_RPAREN) ? -1 : 0;
    case T_LBRACKET:
        p->t++;
        *out = jinja_node(p, N_LIST);
        return parse_list(p, T_RBRACKET, *out);
    case T_LBRACE:
        p->t++;
        *out = jinja_node(p, N_DICT);
        return parse_list(p, T_RBRACE, *out);
    default: return unexpected(p);
    }
}

/* ---- subscripts, calls, filters, tests */

static int parse_slice_part(jparser *p, jnode **out)
{
    if (p->t->type == T_COLON || p->t->type == T_RBRACKET || p->t->type == T_COMMA)
        return 0;
    return jinja_parse_expression(p, out);
}

static int parse_subscript(jparser *p, jnode *object, jnode **out)
{
    if (jinja_skip(p, T_DOT)) {
        const jtoken *t = p->t;
        if (t->type == T_INT) {
            *out = binary(p, N_ITEM, 0, object, constant(p, t->number));
        } else if (t->type == T_NAME) {
            *out = binary(p, N_ATTR, 0, object, NULL);
            (*out)->name = t->text;
            (*out)->value = jspan(t->text.at, t->text.n);
            (*out)->value.hash = jinja_hash(t->text.at, t->text.n);
            (*out)->method = jinja_find_method(t->text.at, t->text.n);
        } else {
            return sw_fail("line %d: expected name or number", t->line);
        }
        p->t++;
        return 0;
    }
    p->t++; /* the bracket */
    jnode *index = NULL;
    if (p->t->type != T_COLON && jinja_parse_tuple(p, true, false, &index))
        return -1;
    if (!jinja_skip(p, T_COLON)) {
        *out = binary(p, N_ITEM, 0, object, index);
        return jinja_expect(p, T_RBRACKET);
    }
    jnode *n = *out = binary(p, N_SLICE, 0, object, index);
    if (parse_slice_part(p, &n->c) || (jinja_skip(p, T_COLON) && parse_slice_part(p, &n->d)))
        return -1;
    return jinja_expect(p, T_RBRACKET);
}

/* "(a, k=b, *c, **d)" into n->b. */
static int parse_arguments(jparser *p, jnode *n)
{
    if (jinja_expect(p, T_LPAREN))
        return -1;
    jnode **tail = &n->b;
    while (p->t->type != T_RPAREN) {
        if (n->b && jinja_expect(p, T_COMMA))
            return -1;
        if (p->t->type == T_RPAREN)
            break;
        jnode *one;
        if (p->t->type == T_MUL || p->t->type == T_POW) {
            one = jinja_node(p, p->t->type == T_MUL ? N_STAR : N_STAR_STAR);
            p->t++;
            n->has_keywords = true;
            if (jinja_parse_expression(p, &one->a))
                return -1;
        } else if (p->t->type == T_NAME && p->t[1].type == T_ASSIGN) {
            one = jinja_node(p, N_KEYWORD);
            one->name = p->t->text;
            p->t += 2;
            n->has_keywords = true;
            if (jinja_parse_expression(p, &one->a))
                return -1;
        } else if (n->has_keywords) {
            return sw_fail("line %d: an argument by position follows one by name", p->t->line);
        } else if (jinja_parse_expression(p, &one)) {
            return -1;
        }
        *tail = one;
        tail = &one->next;
        n->n++;
    }
    return jinja_expect(p, T_RPAREN);
}

static int parse_filter_name(jparser *p, const char *what, sw_span *name)
{
    *name = p->t->text;
    if (jinja_expect(p, T_NAME))
        return -1;
    if (p->t->type == T_DOT)
        return sw_fail("line %d: no %s named '%.*s.…'", p->t->line, what, (int)SW_MIN(name->n, 100), name->at);
    return 0;
}

int jinja_parse_filters(jparser *p, jnode *input, jnode **out)
{
    *out = input;
    do {
        p->t++;
        jnode *n = binary(p, N_FILTER, 0, *out, NULL);
        if (parse_filter_name(p, "filter", &n->name))
            return -1;
        n->fn = jinja_find_filter(n->name.at, n->name.n);
        if (!n->fn && !p->conditional)
            return sw_fail("line %d: No filter named '%.*s'", n->line, (int)SW_MIN(n->name.n, 100), n->name.at);
        if (p->t->type == T_LPAREN && parse_arguments(p, n))
            return -1;
        *out = n;
    } while (p->t->type == T_PIPE);
    return 0;
}

static bool starts_test_argument(const jparser *p)
{
    switch (p->t->type) {
    case T_NAME: return !jinja_at_name(p, "else") && !jinja_at_name(p, "or") && !jinja_at_name(p, "and");
    case T_STRING:
    case T_INT:
    case T_FLOAT:
    case T_LPAREN:
    case T_LBRACKET:
    case T_LBRACE: return true;
    default: return false;
    }
}

static int parse_test(jparser *p, jnode *input, jnode **out)
{
    p->t++; /* is */
    bool negated = jinja_skip_name(p, "not");
    jnode *n = *out = binary(p, N_TEST, 0, input, NULL);
    if (parse_filter_name(p, "test", &n->name))
        return -1;
    n->fn = jinja_find_test(n->name.at, n->name.n);
    if (!n->fn && !p->conditional)
        return sw_fail("line %d: No test named '%.*s'", n->line, (int)SW_MIN(n->name.n, 100), n->name.at);
    if (p->t->type == T_LPAREN) {
        if (parse_arguments(p, n))
            return -1;
    } else if (starts_test_argument(p)) {
        if (jinja_at_name(p, "is"))
            return sw_fail("line %d: You cannot chain multiple tests with is", p->t->line);
        jnode *argument;
        if (parse_primary(p, &argument) || parse_postfix(p, argument, &n->b))
            return -1;
        n->n = 1;
    }
    if (negated)
        *out = binary(p, N_NOT, 0, n, NULL);
    return 0;
}

static int parse_call(jparser *p, jnode *callee, jnode **out)
{
    *out = binary(p, N_CALL, 0, callee, NULL);
    return parse_arguments(p, *out);
}

static int parse_postfix(jparser *p, jnode *n, jnode **out)
{
    for (*out = n;; n = *out) {
        if (p->t->type == T_DOT || p->t->type == T_LBRACKET) {
            if (parse_subscript(p, n, out))
                return -1;
        } else if (p->t->type == T_LPAREN) {
            if (parse_call(p, n, out))
                return -1;
        } else {
            return 0;
        }
    }
}

static int parse_filtered(jparser *p, jnode *n, jnode **out)
{
    for (*out = n;; n = *out) {
        int bad;
        if (p->t->type == T_PIPE)
            bad = jinja_parse_filters(p, n, out);
        else if (jinja_at_name(p, "is"))
            bad = parse_test(p, n, out);
        else if (p->t->type == T_LPAREN)
            bad = parse_call(p, n, out);
        else
            return 0;
        if (bad)
            return -1;
    }
}

/* ---- operators */

static int parse_unary(jparser *p, bool filters, jnode **out)
{
    if (jinja_enter(p))
        return -1;
    jnode *n;
    jtoken_type sign = p->t->type;
    if (sign == T_SUB || sign == T_ADD) {
        p->t++;
        jnode *operand;
        if (parse_unary(p, false, &operand))
            return -1;
        n = binary(p, sign == T_SUB ? N_NEG : N_POS, 0, operand, NULL);
    } else if (parse_primary(p, &n)) {
        return -1;
    }
    if (parse_postfix(p, n, out) || (filters && parse_filtered(p, *out, out)))
        return -1;
    p->depth--;
    return 0;
}

typedef struct level {
    jtoken_type token;
    jop op;
} level;

/* Left-associative operators of one level over those of the next. */
static int parse_left(jparser *p, const level *ops, size_t n, int (*next)(jparser *, jnode **), jnode **out)
{
    if (next(p, out))
        return -1;
    for (;;) {
        size_t i = 0;
        while (i < n && ops[i].token != p->t->type)
            i++;
        if (i == n)
            return 0;
        p->t++;
        jnode *right;
        if (next(p, &right))
            return -1;
        *out = binary(p, N_BINARY, ops[i].op, *out, right);
    }
}

static int parse_operand(jparser *p, jnode **out) { return parse_unary(p, true, out); }
static int parse_power(jparser *p, jnode **out)
{
    static const level ops[] = {{T_POW, OP_POW}};
    return parse_left(p, ops, 1, parse_operand, out);
}
static int parse_product(jparser *p, jnode **out)
{
    static const level ops[] = {{T_MUL, OP_MUL}, {T_DIV, OP_DIV}, {T_FLOORDIV, OP_FLOORDIV}, {T_MOD, OP_MOD}};
    return parse_left(p, ops, SW_COUNT(ops), parse_power, out);
}

static int parse_concat(jparser *p, jnode **out)
{
    if (parse_product(p, out))
        return -1;
    if (p->t->type != T_TILDE)
        return 0;
    jnode *n = jinja_node(p, N_CONCAT), **tail = &(*out)->next;
    n->a = *out;
    n->n = 1;
    *out = n;
    for (; jinja_skip(p, T_TILDE); tail = &(*tail)->next, n->n++)
        if (parse_product(p, tail))
            return -1;
    return 0;
}

static int parse_sum(jparser *p, jnode **out)
{
    static const level ops[] = {{T_ADD, OP_ADD}, {T_SUB, OP_SUB}};
    return parse_left(p, ops, SW_COUNT(ops), parse_concat, out);
}

static int parse_comparison(jparser *p, jnode **out)
{
    static const level ops[] = {{T_EQ, OP_EQ}, {T_NE, OP_NE}, {T_LT, OP_LT}, {T_LE, OP_LE}, {T_GT, OP_GT}, {T_GE, OP_GE}};
    jnode *n = NULL, **tail = NULL;
    if (parse_sum(p, out))
        return -1;
    for (;;) {
        int op = -1;
        for (size_t i = 0; i < SW_COUNT(ops); i++)
            if (p->t->type == ops[i].token)
                op = ops[i].op;
        if (jinja_at_name(p, "in"))
            op = OP_IN;
        if (jinja_at_name(p, "not") && p->t[1].type == T_NAME && p->t[1].text.n == 2 && !memcmp(p->t[1].text.at, "in", 2)) {
            op = OP_NOT_IN;
            p->t++;
        }
        if (op < 0)
            return 0;
        p->t++;
        if (!n) {
            n = binary(p, N_COMPARE, 0, *out, NULL);
            tail = &n->b;
            *out = n;
        }
        *tail = binary(p, N_OPERAND, (jop)op, NULL, NULL);
        if (parse_sum(p, &(*tail)->a))
            return -1;
        tail = &(*tail)->next;
    }
}

static int parse_not(jparser *p, jnode **out)
{
    if (!jinja_at_name(p, "not"))
        return parse_comparison(p, out);
    if (jinja_enter(p))
        return -1;
    *out = jinja_node(p, N_NOT);
    p->t++;
    int bad = parse_not(p, &(*out)->a);
    p->depth--;
    return bad;
}

static int parse_and(jparser *p, jnode **out)
{
    if (parse_not(p, out))
        return -1;
    while (jinja_skip_name(p, "and")) {
        jnode *right;
        if (parse_not(p, &right))
            return -1;
        *out = binary(p, N_AND, 0, *out, right);
    }
    return 0;
}

static int parse_or(jparser *p, jnode **out)
{
    if (parse_and(p, out))
        return -1;
    while (jinja_skip_name(p, "or")) {
        jnode *right;
        if (parse_and(p, &right))
            return -1;
        *out = binary(p, N_OR, 0, *out, right);
    }
    return 0;
}

int jinja_parse_expression(jparser *p, jnode **out)
{
    if (jinja_enter(p) || parse_or(p, out))
        return -1;
    while (jinja_skip_name(p, "if")) {
        jnode *n = binary(p, N_COND, 0, NULL, *out);
        *out = n;
        p->conditional++;
        if (parse_or(p, &n->a) || (jinja_skip_name(p, "else") && jinja_parse_expression(p, &n->c)))
            return -1;
        p->conditional--;
    }
    p->depth--;
    return 0;
}

static bool tuple_ends(const jparser *p)
{
    jtoken_type t = p->t->type;
    return t == T_BLOCK_END || t == T_PRINT_END || t == T_RPAREN || t == T_RBRACKET || t == T_END ||
           (p->in_for && jinja_at_name(p, "recursive"));
}

int jinja_parse_tuple(jparser *p, bool conditional, bool parenthesised, jnode **out)
{
    jnode *n = NULL, *first = NULL, **tail = &first;
    uint32_t count = 0;
    bool comma = false;
    if (jinja_enter(p))
        return -1;
    while (!tuple_ends(p)) {
        if (conditional ? jinja_parse_expression(p, tail) : parse_or(p, tail))
            return -1;
        tail = &(*tail)->next;
        count++;
        if (!(comma = jinja_skip(p, T_COMMA)))
            break;
        n = first;
    }
    p->depth--;
    if (!first && !parenthesised) {
        if (p->t->type == T_END)
            return sw_fail("line %d: unexpected end of template", p->t->line);
        return sw_fail("line %d: Expected an expression, got '%s'", p->t->line, jinja_token_name(p->t->type));
    }
    if (n == NULL && first) {
        *out = first;
        return 0;
    }
    *out = jinja_node(p, N_TUPLE);
    (*out)->a = first;
    (*out)->n = count;
    return 0;
}
