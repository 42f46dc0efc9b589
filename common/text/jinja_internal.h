/* What the files of the Jinja engine share: values, the syntax tree, the state of one rendering.
 *
 * Values are Python's as far as a chat template can tell. All of them but namespaces and loop state are immutable
 * (the sandbox that templates expect refuses in-place changes), so strings and lists are borrowed ranges that
 * slices and concatenations share. What a rendering makes lives in its pools and dies with it. */
#ifndef SW_TEXT_JINJA_INTERNAL_H
#define SW_TEXT_JINJA_INTERNAL_H

#include "base/error.h"
#include "base/memory.h"
#include "base/strbuf.h"
#include "text/jinja.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum jkind {
    J_MISSING, /* an unset slot or an argument that was not given; templates never see it */
    J_UNDEFINED,
    J_NONE,
    J_BOOL,
    J_INT, /* 128 bits: more than any template needs; what goes beyond is refused */
    J_FLOAT,
    J_STR,
    J_LIST,
    J_TUPLE,
    J_VIEW, /* range, dict_keys, dict_values, dict_items */
    J_ITER, /* a generator: may be walked once, is true, has no length */
    J_DICT,
    J_NAMESPACE,
    J_MACRO,
    J_FUNCTION, /* a global */
    J_METHOD,   /* bound to its object */
    J_LOOP,
    J_CYCLER,
    J_JOINER,
} jkind;

enum { /* jv.flags */
    JF_MARKUP = 1, /* STR: what |safe and |escape give; + escapes the other side */
    JF_GROUP = 1,  /* TUPLE: of groupby, has .grouper and .list */
    JF_RANGE = 1,  /* VIEW: which one; a range keeps start, stop, step in the three items before its first */
    JF_KEYS = 2,
    JF_VALUES = 3,
    JF_ITEMS = 4,
};

typedef struct jv jv;
typedef struct jdict jdict;
typedef struct jrun jrun;
typedef struct jnode jnode;
typedef struct jframe jframe;

struct jv {
    uint8_t kind, flags;
    uint32_t hash; /* STR: jinja_hash of the text, or 0 where not known */
    size_t n;      /* STR: bytes; LIST, TUPLE, VIEW: items; INT: high 64 bits */
    union {
        bool b;
        int64_t i;
        double f;
        const char *s;
        const jv *items;
        jdict *dict; /* DICT, NAMESPACE */
        struct jiter *iter;
        struct jundefined *undefined;
        struct jmacro *macro;
        struct jmethod_value *method;
        const struct jglobal *function;
        struct jloop *loop;
        struct jcycle *cycle;
    } u;
};

typedef struct jentry {
    jv key, value;
    uint32_t hash;
} jentry;
struct jdict { /* in order of insertion */
    jentry *at;
    size_t n, cap;
    uint32_t *index; /* open addressing, position + 1; NULL while small */
    size_t mask;
};
struct jiter {
    const jv *at;
    size_t n, pos;
};
struct jundefined {
    const char *owner; /* "dict object", or NULL for a plain name */
    jv name;
    bool unsafe;     /* the sandbox refused it: any use is an error */
    bool parameter;  /* a macro's parameter that the call left out */
};
struct jcycle { /* cycler(...) and joiner(...) */
    jv items;
    size_t pos;
};

typedef struct jkw {
    sw_span name;
    jv value;
} jkw;
typedef struct jargs {
    const jv *at;
    size_t n;
    const jkw *kw;
    size_t n_kw;
} jargs;
typedef int (*jfunction)(jrun *r, const jargs *a, jv *out);
typedef int (*jmethod_fn)(jrun *r, jv self, const jargs *a, jv *out);

/* One attribute name with what it is on each kind; NULL where that kind has no such method. */
typedef struct jmethod {
    const char *name;
    jmethod_fn str, list, dict;
    bool bare; /* takes no arguments */
    bool unsafe_list, unsafe_dict; /* would change the object in place */
} jmethod;
struct jmethod_value {
    jv self;
    const jmethod *row;
    jmethod_fn fn;
};
typedef struct jglobal {
    const char *name;
    jfunction fn;
} jglobal;

/* ---- the compiled template */

typedef enum jtype {
    /* statements */
    N_DATA, N_OUTPUT, N_FOR, N_IF, N_SET, N_SET_BLOCK, N_WITH, N_MACRO, N_CALL_BLOCK, N_FILTER_BLOCK, N_BREAK,
    N_CONTINUE, N_GENERATION, N_BLOCK,
    /* expressions */
    N_CONST, N_NAME, N_LIST, N_TUPLE, N_DICT, N_PAIR, N_ATTR, N_ITEM, N_SLICE, N_CALL, N_FILTER, N_TEST, N_COND,
    N_AND, N_OR, N_NOT, N_NEG, N_POS, N_BINARY, N_CONCAT, N_COMPARE, N_OPERAND, N_KEYWORD, N_STAR, N_STAR_STAR,
    N_FILTER_INPUT, /* what a filter of a block filters */
} jtype;

typedef enum jop {
    OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW,
    OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_IN, OP_NOT_IN,
} jop;

enum { BLOCK_SCOPED = 1, BLOCK_REQUIRED = 2 };

typedef struct jref { /* a slot, that many frames up */
    uint32_t up, slot;
} jref;

/* Children by type:
 *   FOR: a target, b iterable, c condition, d body, e else     IF: a test, b body, c else (a body)
 *   SET: a target, b value      SET_BLOCK: a target, b body, c filter or NULL      WITH: a targets, b values, c body
 *   MACRO: a parameters (NAME), b defaults (of the last ones), c body      CALL_BLOCK: a call, b MACRO
 *   FILTER_BLOCK: a filter, b body      GENERATION: b body      OUTPUT: a expressions
 *   BLOCK: b MACRO without parameters (its d: the scopes around a scoped one, as nodes with their owners in a), op
 *   BLOCK_SCOPED, BLOCK_REQUIRED
 *   PAIR, BINARY, AND, OR: a, b      ITEM: a object, b index      SLICE: a object, b start, c stop, d step
 *   CALL: a callee, b arguments      FILTER, TEST: a input, b arguments      COND: a test, b then, c else
 *   COMPARE: a first, b OPERANDs (op, a)      KEYWORD: name, a      others: a */
struct jnode {
    uint8_t type, op;
    bool has_keywords; /* CALL, FILTER, TEST: some argument is no plain expression */
    bool recursive;    /* FOR */
    bool uses_caller, uses_varargs, uses_kwargs; /* MACRO */
    int line;
    jnode *next, *a, *b, *c, *d, *e;
    sw_span name;
    jv value;               /* CONST */
    uint32_t slot;          /* target NAME, MACRO: where it is stored; FOR: where `loop` is */
    uint32_t n_slots;       /* of the scope that FOR, WITH, MACRO, *_BLOCK and GENERATION open */
    uint32_t n;             /* children in the list that the type has */
    uint32_t slot_caller, slot_varargs, slot_kwargs;
    const jref *refs;       /* NAME: candidate slots, innermost first; then context[global] */
    uint32_t n_refs, global;
    const jmethod *method;  /* ATTR */
    jfunction fn;           /* FILTER, TEST; NULL: unknown, an error when reached */
};

struct sw_jinja {
    sw_arena arena;
    char *source; /* newlines normalised; strings of the tree point into it or into the arena */
    jnode *body;
    uint32_t n_slots; /* of the outermost scope */
    struct {
        sw_span *at;
        size_t n, cap;
    } globals; /* names that may come from the context */
    struct {
        const jnode **at; /* the MACRO of each block */
        size_t n, cap;
    } blocks;
};

/* ---- lexer */

typedef enum jtoken_type {
    T_END, T_DATA, T_BLOCK_BEGIN, T_BLOCK_END, T_PRINT_BEGIN, T_PRINT_END, T_NAME, T_STRING, T_INT, T_FLOAT,
    T_ADD, T_SUB, T_DIV, T_FLOORDIV, T_MUL, T_MOD, T_POW, T_TILDE, T_LBRACKET, T_RBRACKET, T_LPAREN, T_RPAREN, T_LBRACE,
    T_RBRACE, T_EQ, T_NE, T_GT, T_GE, T_LT, T_LE, T_ASSIGN, T_DOT, T_COLON, T_PIPE, T_COMMA, T_SEMICOLON,
} jtoken_type;
typedef struct jtoken {
    jtoken_type type;
    int line;
    sw_span text; /* STRING: unescaped */
    jv number;
} jtoken;
typedef struct jtokens {
    jtoken *at;
    size_t n, cap;
} jtokens;
int jinja_lex(sw_arena *arena, char *source, size_t n, jtokens *out); /* normalises source in place */
const char *jinja_token_name(jtoken_type t);

/* ---- one rendering */

typedef struct jpool { /* bump allocation; the last piece can grow in place */
    struct jchunk *head;
    char *tip, *end;
} jpool;

struct jframe {
    jframe *parent;
    jv slot[];
};
struct jmacro {
    const jnode *node;
    jframe *frame; /* where it was defined */
    jv name;
};
struct jloop {
    const jnode *node;
    jframe *frame; /* that the loop stands in */
    const jv *items;
    size_t n, i, depth;
    const jv *changed; /* arguments of the last loop.changed() */
    size_t n_changed;
};

struct jrun {
    const sw_jinja *template;
    jpool text, items, misc;
    size_t memory, steps, depth;
    int line; /* being executed, for messages */
    jv *context;
    jframe *root;     /* of what stands in no scope: all that a block sees */
    sw_buf *out;      /* where output goes now: top or scratch */
    sw_buf *top;
    size_t top_start; /* length of top before the rendering */
    sw_buf scratch;   /* output of macros and blocks in progress, one after another */
    sw_buf number;    /* small texts */
    sw_ranges *ranges;
    jv filter_input;
    double now;
    bool raised;
};

/* Limits that end hostile templates. A fuzzer finds all of them and cannot wait for the large ones. */
#ifdef SW_FUZZ
enum { JINJA_MAX_STEPS = 200000, JINJA_MAX_MEMORY = 16 << 20 };
#else
enum { JINJA_MAX_STEPS = 50000000, JINJA_MAX_MEMORY = 256 << 20 };
#endif
enum {
    JINJA_MAX_OUTPUT = 64 << 20,
    JINJA_MAX_DEPTH = 2500,
    JINJA_MAX_NESTING = 150, /* of expressions and blocks in the source */
    JINJA_MAX_RANGE = 100000,
};
int jinja_charge(jrun *r, size_t steps); /* work that is not one a node */
/* Memory of the rendering; NULL with an error where it has used up its share. */
void *jinja_alloc(jrun *r, size_t n);
jv *jinja_items(jrun *r, size_t n);
char *jinja_text(jrun *r, size_t n);
void jinja_pools_free(jrun *r);

/* ---- values: jinja_value.c, jinja_print.c */

#define J_NONE_V ((jv){.kind = J_NONE})
static inline jv jbool(bool b) { return (jv){.kind = J_BOOL, .u.b = b}; }
static inline jv jint(int64_t i) { return (jv){.kind = J_INT, .n = (size_t)(i >> 63), .u.i = i}; }
static inline jv jfloat(double f) { return (jv){.kind = J_FLOAT, .u.f = f}; }
static inline jv jspan(const char *s, size_t n) { return (jv){.kind = J_STR, .n = n, .u.s = s}; }
#define JSTR(literal) jspan(literal, sizeof(literal) - 1)
extern const jv jinja_no_items[1]; /* what an empty sequence points at: never NULL */
static inline jv jlist(jkind kind, const jv *items, size_t n)
{
    return (jv){.kind = (uint8_t)kind, .n = n, .u.items = items ? items : jinja_no_items};
}
static inline bool jis_int(jv v) { return v.kind == J_INT || v.kind == J_BOOL; }
static inline bool jis_number(jv v) { return jis_int(v) || v.kind == J_FLOAT; }
static inline bool jis_text(jv v, const char *s, size_t n) { return v.kind == J_STR && v.n == n && !__builtin_memcmp(v.u.s, s, n); }
#define JTEXT_IS(v, literal) jis_text(v, literal, sizeof(literal) - 1)
__int128 jinja_int(jv v); /* of an INT or BOOL */
jv jinja_from_int(__int128 i);
double jinja_double(jv v); /* of a number */
/* Small whole number, clamped; for indexes and counts. */
int64_t jinja_index(jv v);

jv jinja_undefined(jrun *r, const char *owner, jv name);
int jinja_use_undefined(jv v); /* the error of using it; -1 */
const char *jinja_type_name(jv v); /* Python's: str, int, dict ... */
bool jinja_truth(jv v);
uint32_t jinja_hash(const char *s, size_t n);
bool jinja_equal(jrun *r, jv a, jv b);
/* *cmp < 0, 0, > 0; op is for the message. */
int jinja_compare(jrun *r, jv a, jv b, const char *op, int *cmp);
int jinja_contains(jrun *r, jv item, jv in, bool *yes);
/* Items of anything iterable. Walks a generator to its end. */
int jinja_iterate(jrun *r, jv v, const jv **items, size_t *n);
bool jinja_iterable(jv v);
int jinja_length(jv v, size_t *n); /* of what Python's len() takes */

jv jinja_dict_new(jrun *r, size_t cap);
int jinja_dict_put(jrun *r, jdict *d, jv key, jv value); /* replaces */
const jv *jinja_dict_find(jrun *r, const jdict *d, jv key); /* NULL: no such key */
int jinja_from_json(jrun *r, const cJSON *j, jv *out);

/* Appends what print() shows; jinja_repr as inside a list. */
int jinja_print(jrun *r, sw_buf *b, jv v);
int jinja_repr(jrun *r, sw_buf *b, jv v);
void jinja_print_float(sw_buf *b, double f);
void jinja_print_int(sw_buf *b, __int128 i);
int jinja_to_text(jrun *r, jv v, jv *out); /* str(v) */
int jinja_copy_text(jrun *r, const char *s, size_t n, jv *out);
int jinja_escape(jrun *r, jv v, jv *out); /* &<>"' of str(v), unless it is markup already */
int jinja_tojson(jrun *r, const jargs *a, jv *out);

/* ---- operations: jinja_operate.c */
int jinja_binary(jrun *r, jop op, jv a, jv b, jv *out);
int jinja_negate(jv v, jv *out);
int jinja_getattr(jrun *r, jv v, jv name, const jmethod *row, jv *out);
int jinja_getitem(jrun *r, jv v, jv index, jv *out);
int jinja_slice(jrun *r, jv v, jv start, jv stop, jv step, jv *out);
int jinja_concat(jrun *r, jv a, jv b, jv *out); /* two texts */
int jinja_reverse_text(jrun *r, jv v, jv *out);
/* Byte offset of code point i (clamped to the end). */
size_t jinja_offset(jv text, size_t i);

/* ---- calls: jinja_call.c, jinja_eval.c */
int jinja_eval(jrun *r, jframe *f, const jnode *n, jv *out);
enum { JX_ERROR = -1, JX_NEXT = 0, JX_BREAK, JX_CONTINUE };
int jinja_exec(jrun *r, jframe *f, const jnode *body);
int jinja_exec_for(jrun *r, jframe *f, const jnode *n, jv iterable, size_t depth);
int jinja_call(jrun *r, jv callee, const jargs *a, jv *out);
int jinja_call_node(jrun *r, jframe *f, const jnode *n, jv *out, const jv *caller);
/* Evaluates the arguments of a CALL, FILTER or TEST after `first` (NULL: none) into out. */
int jinja_arguments(jrun *r, jframe *f, const jnode *list, const jv *first, const jv *caller, jargs *out);
int jinja_exec_captured(jrun *r, jframe *f, const jnode *body, jv *out);
jframe *jinja_frame(jrun *r, jframe *parent, uint32_t n_slots);
/* Sorts arguments into out[0..n) by position and name; left out ones are J_MISSING. */
int jinja_bind(const char *who, const jargs *a, const char *const *names, size_t n, size_t required, jv *out);
#define JINJA_BIND(who, a, required, out, ...)                                                                      \
    jinja_bind(who, a, (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), \
               required, out)

/* ---- filters: what several files of them use (jinja_filter_text.c) */
int jinja_take(jrun *r, sw_buf *b, int flags, jv *out); /* a built text becomes a value; b is freed */
int jinja_soft_text(jrun *r, jv v, jv *out);            /* as text that stays markup if it is */
int jinja_one_text(jrun *r, const char *who, const jargs *a, jv *out);
int jinja_optional_int(const char *who, jv v, int64_t otherwise, int64_t *out);
int jinja_pprint(jrun *r, const jargs *a, jv *out);
int jinja_urlize(jrun *r, const jargs *a, jv *out);

/* ---- tables */
const jmethod *jinja_find_method(const char *name, size_t n);
jfunction jinja_find_filter(const char *name, size_t n);
jfunction jinja_find_text_filter(const char *name, size_t n);
jfunction jinja_find_number_filter(const char *name, size_t n);
jfunction jinja_find_html_filter(const char *name, size_t n);
jfunction jinja_find_test(const char *name, size_t n);
const jglobal *jinja_find_global(const char *name, size_t n);

/* ---- texts: jinja_string.c, jinja_format.c */
typedef enum jcase { JC_UPPER, JC_LOWER, JC_TITLE, JC_CAPITALIZE, JC_SWAP } jcase;
int jinja_change_case(jrun *r, jv v, jcase how, jv *out);
bool jinja_is_space(uint32_t cp);
bool jinja_is_alnum(uint32_t cp); /* Python's isalnum() */
/* chars NULL: white space; sides: 1 left, 2 right */
jv jinja_strip(jv v, const jv *chars, int sides);
int jinja_replace(jrun *r, jv v, jv old, jv new, int64_t count, jv *out);
int jinja_pad(jrun *r, jv v, int64_t width, jv fill, int left_parts, int right_parts, jv *out);
int jinja_percent(jrun *r, jv format, jv args, jv *out);
int jinja_format(jrun *r, jv format, const jargs *a, jv *out);
int jinja_str_upper(jrun *r, jv s, const jargs *a, jv *out); /* jinja_string_class.c, from here */
int jinja_str_lower(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_title(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_capitalize(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_swapcase(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_casefold(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_isalpha(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_isdigit(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_isdecimal(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_isnumeric(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_isalnum(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_isspace(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_isascii(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_isupper(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_islower(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_istitle(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_isprintable(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_isidentifier(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_expandtabs(jrun *r, jv s, const jargs *a, jv *out);
int jinja_str_format_map(jrun *r, jv s, const jargs *a, jv *out);
int jinja_join(jrun *r, jv sep, const jv *items, size_t n, bool strict, jv *out);

#endif
