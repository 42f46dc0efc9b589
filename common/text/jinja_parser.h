/* What the two halves of the Jinja parser share: statements (jinja_parse.c) and expressions (jinja_expression.c). */
#ifndef SW_TEXT_JINJA_PARSER_H
#define SW_TEXT_JINJA_PARSER_H

#include "base/map.h"
#include "text/jinja_internal.h"

typedef struct jlocal {
    struct jlocal *next;
    sw_span name;
    uint32_t slot;
} jlocal;
typedef struct jscope {
    struct jscope *parent;
    jnode *owner;
    jlocal *locals;
    uint32_t n;
} jscope;
typedef struct jload { /* a name that is read, and where */
    struct jload *next;
    jnode *node;
    const jscope *scope;
} jload;

typedef struct jparser {
    sw_jinja *j;
    const jtoken *t;
    jscope *scope;
    jload *loads;
    sw_map globals;
    int depth, loops;
    int conditional; /* inside an if: unknown filters and tests matter only when reached */
    bool with_namespace; /* a target may be namespace.name */
    bool in_for;         /* `recursive` ends the iterable */
} jparser;

jnode *jinja_node(jparser *p, jtype type);
bool jinja_at_name(const jparser *p, const char *name);
bool jinja_skip(jparser *p, jtoken_type type);
bool jinja_skip_name(jparser *p, const char *name);
int jinja_expect(jparser *p, jtoken_type type);
int jinja_enter(jparser *p); /* counts nesting; the caller takes one off p->depth when it leaves */
void jinja_load_name(jparser *p, jnode *n);
int jinja_parse_target(jparser *p, jnode **out);

int jinja_parse_expression(jparser *p, jnode **out);
/* a, b, c without parentheses is a tuple. conditional: whether x if y else z may stand there. */
int jinja_parse_tuple(jparser *p, bool conditional, bool parenthesised, jnode **out);
/* "| filter | filter ..." over input; the current token is taken as the first pipe. */
int jinja_parse_filters(jparser *p, jnode *input, jnode **out);

#endif
