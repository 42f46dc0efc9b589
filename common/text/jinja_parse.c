/* The parser of statements, and the scopes. Which slots a name may stand for is known once its template has been read to
 * the end (a later `set` makes a name local to its scope), so names are collected and resolved last.
 *
 * Scopes are those of Jinja: a loop's body, a macro, a call, generation, filter or with block; `if` opens none. */
#include "text/jinja_parser.h"

#include <stdlib.h>
#include <string.h>

jnode *jinja_node(jparser *p, jtype type)
{
    jnode *n = sw_arena_zalloc(&p->j->arena, sizeof *n);
    n->type = (uint8_t)type;
    n->line = p->t->line;
    return n;
}

bool jinja_at_name(const jparser *p, const char *name)
{
    return p->t->type == T_NAME && p->t->text.n == strlen(name) && !memcmp(p->t->text.at, name, p->t->text.n);
}

bool jinja_skip(jparser *p, jtoken_type type)
{
    if (p->t->type != type)
        return false;
    p->t++;
    return true;
}

bool jinja_skip_name(jparser *p, const char *name)
{
    if (!jinja_at_name(p, name))
        return false;
    p->t++;
    return true;
}

static int shown(const jtoken *t, const char **text)
{
    *text = t->type == T_NAME ? t->text.at : jinja_token_name(t->type);
    return t->type == T_NAME ? (int)SW_MIN(t->text.n, 100) : (int)strlen(*text);
}

int jinja_expect(jparser *p, jtoken_type type)
{
    if (jinja_skip(p, type))
        return 0;
    const char *got;
    int n = shown(p->t, &got);
    if (p->t->type == T_END)
        return sw_fail("line %d: unexpected end of template, expected '%s'", p->t->line, jinja_token_name(type));
    return sw_fail("line %d: expected token '%s', got '%.*s'", p->t->line, jinja_token_name(type), n, got);
}

int jinja_enter(jparser *p)
{
    if (++p->depth > JINJA_MAX_NESTING)
        return sw_fail("line %d: nested deeper than %d", p->t->line, JINJA_MAX_NESTING);
    return 0;
}

/* ---- scopes */

static jscope *open_scope(jparser *p, jnode *owner)
{
    jscope *s = sw_arena_zalloc(&p->j->arena, sizeof *s);
    s->parent = p->scope;
    s->owner = owner;
    return p->scope = s;
}

static uint32_t find_slot(const jscope *s, sw_span name)
{
    uint32_t i = 0;
    for (const jlocal *l = s->locals; l; l = l->next, i++)
        if (l->name.n == name.n && !memcmp(l->name.at, name.at, name.n))
            return l->slot;
    return UINT32_MAX;
}

static uint32_t declare(jparser *p, jscope *s, sw_span name)
{
    uint32_t slot = find_slot(s, name);
    if (slot != UINT32_MAX)
        return slot;
    jlocal *l = sw_arena_alloc(&p->j->arena, sizeof *l);
    *l = (jlocal){s->locals, name, s->n};
    s->locals = l;
    return s->n++;
}
#define DECLARE(p, s, literal) declare(p, s, (sw_span){literal, sizeof(literal) - 1})

static void close_scope(jparser *p, jnode *n)
{
    n->n_slots = p->scope->n;
    p->scope = p->scope->parent;
}

void jinja_load_name(jparser *p, jnode *n)
{
    n->value = jspan(n->name.at, n->name.n);
    n->value.hash = jinja_hash(n->name.at, n->name.n);
    jload *l = sw_arena_alloc(&p->j->arena, sizeof *l);
    *l = (jload){p->loads, n, p->scope};
    p->loads = l;
    /* what a macro does not name it does not take */
    static const char *const special[] = {"caller", "varargs", "kwargs"};
    for (int i = 0; i < 3; i++) {
        if (n->name.n != strlen(special[i]) || memcmp(n->name.at, special[i], n->name.n))
            continue;
        for (jscope *s = p->scope; s; s = s->parent)
            if (s->owner && s->owner->type == N_MACRO) {
                uint32_t slot = declare(p, s, n->name);
                *(i == 0 ? &s->owner->uses_caller : i == 1 ? &s->owner->uses_varargs : &s->owner->uses_kwargs) = true;
                *(i == 0 ? &s->owner->slot_caller : i == 1 ? &s->owner->slot_varargs : &s->owner->slot_kwargs) = slot;
            }
    }
}

static void resolve_names(jparser *p)
{
    for (jload *l = p->loads; l; l = l->next) {
        jnode *n = l->node;
        uint32_t count = 0, up = 0;
        for (const jscope *s = l->scope; s; s = s->parent)
            count += find_slot(s, n->name) != UINT32_MAX;
        jref *refs = sw_arena_alloc(&p->j->arena, (count + 1) * sizeof *refs);
        n->n_refs = count;
        n->refs = refs;
        for (const jscope *s = l->scope; s; s = s->parent, up++) {
            uint32_t slot = find_slot(s, n->name);
            if (slot != UINT32_MAX)
                *refs++ = (jref){up, slot};
        }
        int64_t at = sw_map_get(&p->globals, n->name.at, n->name.n, -1);
        if (at < 0) {
            at = (int64_t)p->j->globals.n;
            SW_PUSH(p->j->globals, n->name);
            sw_map_put(&p->globals, n->name.at, n->name.n, at);
        }
        n->global = (uint32_t)at;
    }
}

/* ---- assignment targets */

static int parse_target_one(jparser *p, jnode **out)
{
    if (jinja_enter(p))
        return -1;
    int bad = 0;
    if (jinja_skip(p, T_LPAREN)) {
        bad = jinja_parse_target(p, out) || jinja_expect(p, T_RPAREN);
    } else {
        jnode *n = *out = jinja_node(p, N_NAME);
        n->name = p->t->text;
        if (p->t->type != T_NAME) {
            const char *got;
            int len = shown(p->t, &got);
            bad = sw_fail("line %d: Expected an expression, got '%.*s'; a name to assign to is wanted", p->t->line, len, got);
        } else {
            p->t++;
            if (p->with_namespace && p->t->type == T_DOT && p->t[1].type == T_NAME) {
                jnode *attribute = jinja_node(p, N_ATTR);
                jinja_load_name(p, n);
                attribute->a = n;
                attribute->name = p->t[1].text;
                p->t += 2;
                *out = attribute;
            } else {
                n->slot = declare(p, p->scope, n->name);
            }
        }
    }
    p->depth--;
    return bad ? -1 : 0;
}

/* One name, or a tuple of them (nested ones in parentheses). */
int jinja_parse_target(jparser *p, jnode **out)
{
    jnode *first;
    if (parse_target_one(p, &first))
        return -1;
    *out = first;
    if (p->t->type != T_COMMA)
        return 0;
    jnode *tuple = *out = jinja_node(p, N_TUPLE), **tail = &first->next;
    tuple->a = first;
    tuple->n = 1;
    while (jinja_skip(p, T_COMMA)) {
        if (p->t->type == T_RPAREN || p->t->type == T_ASSIGN || jinja_at_name(p, "in"))
            break;
        if (parse_target_one(p, tail))
            return -1;
        tail = &(*tail)->next;
        tuple->n++;
    }
    return 0;
}

/* ---- statements */

static int parse_body(jparser *p, const char *opened, const char *const *ends, jnode **out);
#define ENDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static int end_of_tag(jparser *p) { return jinja_expect(p, T_BLOCK_END); }

static int parse_for(jparser *p, jnode *n)
{
    jscope *outer = p->scope, *inner = open_scope(p, n);
    p->with_namespace = false;
    if (jinja_parse_target(p, &n->a))
        return -1;
    n->slot = DECLARE(p, inner, "loop");
    if (!jinja_skip_name(p, "in"))
        return sw_fail("line %d: a for loop wants 'in' after its target", p->t->line);
    p->scope = outer; /* the iterable sees what stands around the loop */
    p->in_for = true;
    if (jinja_parse_tuple(p, false, false, &n->b))
        return -1;
    p->in_for = false;
    p->scope = inner;
    if (jinja_skip_name(p, "if") && jinja_parse_expression(p, &n->c))
        return -1;
    n->recursive = jinja_skip_name(p, "recursive");
    p->loops++;
    if (end_of_tag(p) || parse_body(p, "for", ENDS("endfor", "else"), &n->d))
        return -1;
    p->loops--;
    close_scope(p, n);
    if (jinja_skip_name(p, "endfor"))
        return 0;
    p->t++;
    return end_of_tag(p) || parse_body(p, "for", ENDS("endfor"), &n->e) ? -1 : (p->t++, 0);
}

static int parse_if(jparser *p, jnode *n)
{
    p->conditional++;
    for (;;) {
        if (jinja_parse_tuple(p, false, false, &n->a) || end_of_tag(p) ||
            parse_body(p, "if", ENDS("elif", "else", "endif"), &n->b))
            return -1;
        if (!jinja_at_name(p, "elif"))
            break;
        p->t++;
        n->c = jinja_node(p, N_IF);
        n = n->c;
    }
    if (jinja_skip_name(p, "else") && (end_of_tag(p) || parse_body(p, "if", ENDS("endif"), &n->c)))
        return -1;
    p->t++;
    p->conditional--;
    return 0;
}

static int parse_set(jparser *p, jnode *n)
{
    /* a name stands for its innermost slot that is set by then, so `set x = x + 1` reads the outer x */
    p->with_namespace = true;
    if (jinja_parse_target(p, &n->a))
        return -1;
    p->with_namespace = false;
    if (jinja_skip(p, T_ASSIGN))
        return jinja_parse_tuple(p, true, false, &n->b);
    n->type = N_SET_BLOCK;
    if (p->t->type == T_PIPE) {
        jnode *input = jinja_node(p, N_FILTER_INPUT);
        if (jinja_parse_filters(p, input, &n->c))
            return -1;
    }
    open_scope(p, n);
    if (end_of_tag(p) || parse_body(p, "set", ENDS("endset"), &n->b))
        return -1;
    close_scope(p, n);
    p->t++;
    return 0;
}

static int parse_with(jparser *p, jnode *n)
{
    jscope *outer = p->scope, *inner = open_scope(p, n);
    jnode **targets = &n->a, **values = &n->b;
    while (p->t->type != T_BLOCK_END) {
        if (n->a && jinja_expect(p, T_COMMA))
            return -1;
        p->scope = inner;
        if (parse_target_one(p, targets) || jinja_expect(p, T_ASSIGN))
            return -1;
        p->scope = outer;
        if (jinja_parse_expression(p, values))
            return -1;
        targets = &(*targets)->next;
        values = &(*values)->next;
    }
    p->scope = inner;
    if (end_of_tag(p) || parse_body(p, "with", ENDS("endwith"), &n->c))
        return -1;
    close_scope(p, n);
    p->t++;
    return 0;
}

/* "(a, b=1)" into the macro n, whose scope is open. */
static int parse_signature(jparser *p, jnode *n)
{
    if (jinja_expect(p, T_LPAREN))
        return -1;
    jnode **parameter = &n->a, **value = &n->b;
    while (p->t->type != T_RPAREN) {
        if (n->a && jinja_expect(p, T_COMMA))
            return -1;
        if (p->t->type == T_RPAREN)
            break;
        jnode *name = *parameter = jinja_node(p, N_NAME);
        name->name = p->t->text;
        if (jinja_expect(p, T_NAME))
            return -1;
        name->slot = declare(p, p->scope, name->name);
        name->value = jspan(name->name.at, name->name.n);
        n->n++;
        parameter = &name->next;
        if (jinja_skip(p, T_ASSIGN)) {
            if (jinja_parse_expression(p, value))
                return -1;
            value = &(*value)->next;
        } else if (n->b) {
            return sw_fail("line %d: a parameter without a default follows one with a default", p->t->line);
        }
    }
    return jinja_expect(p, T_RPAREN);
}

static int parse_macro(jparser *p, jnode *n)
{
    n->name = p->t->text;
    if (jinja_expect(p, T_NAME))
        return -1;
    n->slot = declare(p, p->scope, n->name);
    open_scope(p, n);
    int loops = p->loops;
    p->loops = 0;
    if (parse_signature(p, n) || end_of_tag(p) || parse_body(p, "macro", ENDS("endmacro"), &n->c))
        return -1;
    p->loops = loops;
    close_scope(p, n);
    p->t++;
    return 0;
}

static int parse_call_block(jparser *p, jnode *n)
{
    jnode *m = n->b = jinja_node(p, N_MACRO);
    m->name = (sw_span){"caller", 6};
    jscope *outer = p->scope, *inner = open_scope(p, m);
    if (p->t->type == T_LPAREN && parse_signature(p, m))
        return -1;
    p->scope = outer;
    if (jinja_parse_expression(p, &n->a))
        return -1;
    if (n->a->type != N_CALL)
        return sw_fail("line %d: expected call", n->line);
    p->scope = inner;
    int loops = p->loops;
    p->loops = 0;
    if (end_of_tag(p) || parse_body(p, "call", ENDS("endcall"), &m->c))
        return -1;
    p->loops = loops;
    close_scope(p, m);
    p->t++;
    return 0;
}

static int parse_filter_block(jparser *p, jnode *n)
{
    jnode *input = jinja_node(p, N_FILTER_INPUT);
    p->t--; /* the tag's own name stands where a pipe would */
    if (jinja_parse_filters(p, input, &n->a))
        return -1;
    open_scope(p, n);
    if (end_of_tag(p) || parse_body(p, "filter", ENDS("endfilter"), &n->b))
        return -1;
    close_scope(p, n);
    p->t++;
    return 0;
}

static int parse_generation(jparser *p, jnode *n)
{
    int loops = p->loops;
    p->loops = 0;
    open_scope(p, n);
    if (end_of_tag(p) || parse_body(p, "generation", ENDS("endgeneration"), &n->b))
        return -1;
    p->loops = loops;
    close_scope(p, n);
    p->t++;
    return 0;
}

/* A block stands where it is, for nothing extends a chat template. It sees what the template sets in no scope, or what is
 * around it where it is `scoped`; self.name() gives it again. */
static int parse_block(jparser *p, jnode *n)
{
    jnode *m = n->b = jinja_node(p, N_MACRO);
    m->name = p->t->text;
    if (jinja_expect(p, T_NAME))
        return -1;
    for (size_t i = 0; i < p->j->blocks.n; i++)
        if (p->j->blocks.at[i]->name.n == m->name.n && !memcmp(p->j->blocks.at[i]->name.at, m->name.at, m->name.n))
            return sw_fail("line %d: block '%.*s' defined twice", n->line, (int)SW_MIN(m->name.n, 100), m->name.at);
    SW_PUSH(p->j->blocks, m);
    n->op |= jinja_skip_name(p, "scoped") ? BLOCK_SCOPED : 0;
    n->op |= jinja_skip_name(p, "required") ? BLOCK_REQUIRED : 0;
    jscope *outer = p->scope;
    if (n->op & BLOCK_SCOPED) {
        jnode **tail = &m->d;
        for (const jscope *s = p->scope; s->parent; s = s->parent, tail = &(*tail)->next) {
            *tail = jinja_node(p, N_BLOCK);
            (*tail)->a = s->owner;
        }
    } else {
        while (p->scope->parent)
            p->scope = p->scope->parent;
    }
    open_scope(p, n);
    int loops = p->loops;
    p->loops = 0;
    if (end_of_tag(p) || parse_body(p, "block", ENDS("endblock"), &m->c))
        return -1;
    p->loops = loops;
    close_scope(p, m);
    n->n_slots = m->n_slots;
    p->scope = outer;
    p->t++;
    if (p->t->type == T_NAME && p->t->text.n == m->name.n && !memcmp(p->t->text.at, m->name.at, m->name.n))
        p->t++;
    return 0;
}

/* What is escaped nowhere else is not escaped here. */
static int parse_autoescape(jparser *p, jnode *n)
{
    jnode *on;
    open_scope(p, n);
    if (jinja_parse_expression(p, &on))
        return -1;
    if (on->type != N_CONST || jinja_truth(on->value))
        return sw_fail("line %d: 'autoescape' is refused but for false: what a chat template writes is no HTML", n->line);
    if (end_of_tag(p) || parse_body(p, "autoescape", ENDS("endautoescape"), &n->c))
        return -1;
    close_scope(p, n);
    p->t++;
    return 0;
}

static int parse_jump(jparser *p, jnode *n)
{
    if (!p->loops)
        return sw_fail("line %d: '%s' outside a loop", n->line, n->type == N_BREAK ? "break" : "continue");
    return 0;
}

static int parse_statement(jparser *p, jnode **out)
{
    static const struct {
        const char *tag;
        jtype type;
        int (*parse)(jparser *, jnode *);
    } tags[] = {
        {"for", N_FOR, parse_for}, {"if", N_IF, parse_if}, {"set", N_SET, parse_set}, {"with", N_WITH, parse_with},
        {"macro", N_MACRO, parse_macro}, {"call", N_CALL_BLOCK, parse_call_block},
        {"filter", N_FILTER_BLOCK, parse_filter_block}, {"generation", N_GENERATION, parse_generation},
        {"break", N_BREAK, parse_jump}, {"continue", N_CONTINUE, parse_jump}, {"block", N_BLOCK, parse_block},
        {"autoescape", N_WITH, parse_autoescape},
    };
    static const char *const foreign[] = {"include", "import", "from", "extends"};
    if (p->t->type != T_NAME)
        return sw_fail("line %d: tag name expected", p->t->line);
    for (size_t i = 0; i < SW_COUNT(tags); i++) {
        if (!jinja_at_name(p, tags[i].tag))
            continue;
        *out = jinja_node(p, tags[i].type);
        p->t++;
        return tags[i].parse(p, *out) || end_of_tag(p) ? -1 : 0;
    }
    for (size_t i = 0; i < SW_COUNT(foreign); i++)
        if (jinja_at_name(p, foreign[i]))
            return sw_fail("line %d: '%s' is refused: a chat template is one file", p->t->line, foreign[i]);
    return sw_fail("line %d: Encountered unknown tag '%.*s'", p->t->line, (int)SW_MIN(p->t->text.n, 100), p->t->text.at);
}

/* Statements until a tag named in ends, which is left as the current token; NULL: until the template's end. */
static int parse_body(jparser *p, const char *opened, const char *const *ends, jnode **out)
{
    if (jinja_enter(p))
        return -1;
    int line = p->t->line;
    for (;; out = &(*out)->next) {
        if (p->t->type == T_DATA) {
            *out = jinja_node(p, N_DATA);
            (*out)->name = p->t++->text;
        } else if (p->t->type == T_PRINT_BEGIN) {
            p->t++;
            *out = jinja_node(p, N_OUTPUT);
            if (jinja_parse_tuple(p, true, false, &(*out)->a) || jinja_expect(p, T_PRINT_END))
                return -1;
        } else if (p->t->type == T_BLOCK_BEGIN) {
            p->t++;
            for (size_t i = 0; ends && ends[i]; i++)
                if (jinja_at_name(p, ends[i])) {
                    p->depth--;
                    return 0;
                }
            if (parse_statement(p, out))
                return -1;
        } else if (ends) {
            return sw_fail("line %d: Unexpected end of template: '%s' of line %d has no '%s'", p->t->line, opened, line,
                           ends[0]);
        } else {
            p->depth--;
            return 0;
        }
    }
}

sw_jinja *sw_jinja_compile(const char *source, size_t n)
{
    size_t good = sw_utf8_valid_prefix(source, n);
    if (good < n)
        return sw_fail_null("the template is no valid UTF-8 at byte %zu", good);
    sw_jinja *j = SW_NEW(sw_jinja);
    j->source = sw_malloc(n + 1);
    memcpy(j->source, source, n);
    jtokens tokens = {0};
    jparser p = {.j = j};
    jscope outermost = {0};
    p.scope = &outermost;
    int bad = jinja_lex(&j->arena, j->source, n, &tokens);
    if (!bad) {
        p.t = tokens.at;
        bad = parse_body(&p, "", NULL, &j->body);
    }
    if (!bad) {
        resolve_names(&p);
        j->n_slots = outermost.n;
    }
    sw_map_free(&p.globals);
    free(tokens.at);
    if (bad) {
        sw_jinja_free(j);
        return NULL;
    }
    return j;
}

void sw_jinja_free(sw_jinja *j)
{
    if (!j)
        return;
    sw_arena_free(&j->arena);
    free(j->globals.at);
    free(j->blocks.at);
    free(j->source);
    free(j);
}
