/* Tests: what stands after `is`. */
#include "text/jinja_internal.h"

#include <string.h>

#define TEST(name, condition)                                                                                       \
    static int test_##name(jrun *r, const jargs *a, jv *out)                                                        \
    {                                                                                                               \
        jv v;                                                                                                       \
        (void)r;                                                                                                    \
        if (JINJA_BIND(#name, a, 1, &v, "value"))                                                                   \
            return -1;                                                                                              \
        *out = jbool(condition);                                                                                    \
        return 0;                                                                                                   \
    }

TEST(defined, v.kind != J_UNDEFINED)
TEST(undefined, v.kind == J_UNDEFINED)
TEST(none, v.kind == J_NONE)
TEST(boolean, v.kind == J_BOOL)
TEST(true, v.kind == J_BOOL && v.u.b)
TEST(false, v.kind == J_BOOL && !v.u.b)
TEST(integer, v.kind == J_INT)
TEST(float, v.kind == J_FLOAT)
TEST(number, jis_number(v))
TEST(string, v.kind == J_STR)
TEST(mapping, v.kind == J_DICT)
TEST(sequence, (v.kind >= J_STR && v.kind <= J_TUPLE) || v.kind == J_DICT || (v.kind == J_VIEW && v.flags == JF_RANGE) ||
                   v.kind == J_UNDEFINED)
TEST(iterable, jinja_iterable(v))
TEST(callable, v.kind == J_MACRO || v.kind == J_FUNCTION || v.kind == J_METHOD || v.kind == J_LOOP || v.kind == J_JOINER ||
                   v.kind == J_UNDEFINED)
TEST(escaped, v.kind == J_STR && v.flags & JF_MARKUP)
TEST(filter, v.kind == J_STR && jinja_find_filter(v.u.s, v.n))
TEST(test, v.kind == J_STR && jinja_find_test(v.u.s, v.n))

static int parity(const char *who, jrun *r, const jargs *a, int64_t wanted, jv *out)
{
    jv v;
    if (JINJA_BIND(who, a, 1, &v, "value") || jinja_binary(r, OP_MOD, v, jint(2), out))
        return -1;
    *out = jbool(jinja_equal(r, *out, jint(wanted)));
    return 0;
}
static int test_odd(jrun *r, const jargs *a, jv *out) { return parity("odd", r, a, 1, out); }
static int test_even(jrun *r, const jargs *a, jv *out) { return parity("even", r, a, 0, out); }

static int test_divisibleby(jrun *r, const jargs *a, jv *out)
{
    jv p[2];
    if (JINJA_BIND("divisibleby", a, 2, p, "value", "num") || jinja_binary(r, OP_MOD, p[0], p[1], out))
        return -1;
    *out = jbool(jinja_equal(r, *out, jint(0)));
    return 0;
}

static int compare(jrun *r, const jargs *a, const char *op, jv *out)
{
    jv p[2];
    int cmp;
    if (JINJA_BIND(op, a, 2, p, "value", "other") || jinja_compare(r, p[0], p[1], op, &cmp))
        return -1;
    bool yes = op[0] == '<' ? cmp < 0 : cmp > 0;
    *out = jbool(cmp != 2 && (yes || (op[1] && !cmp)));
    return 0;
}
static int test_lt(jrun *r, const jargs *a, jv *out) { return compare(r, a, "<", out); }
static int test_le(jrun *r, const jargs *a, jv *out) { return compare(r, a, "<=", out); }
static int test_gt(jrun *r, const jargs *a, jv *out) { return compare(r, a, ">", out); }
static int test_ge(jrun *r, const jargs *a, jv *out) { return compare(r, a, ">=", out); }

static int test_eq(jrun *r, const jargs *a, jv *out)
{
    jv p[2];
    if (JINJA_BIND("eq", a, 2, p, "value", "other"))
        return -1;
    *out = jbool(jinja_equal(r, p[0], p[1]));
    return 0;
}
static int test_ne(jrun *r, const jargs *a, jv *out)
{
    if (test_eq(r, a, out))
        return -1;
    out->u.b = !out->u.b;
    return 0;
}

/* Identity: the same object; small values that print alike are one. */
static int test_sameas(jrun *r, const jargs *a, jv *out)
{
    jv p[2];
    if (JINJA_BIND("sameas", a, 2, p, "value", "other"))
        return -1;
    bool same = p[0].kind == p[1].kind;
    if (same && (p[0].kind == J_DICT || p[0].kind == J_LIST || p[0].kind == J_TUPLE || p[0].kind == J_NAMESPACE))
        same = p[0].u.s == p[1].u.s && p[0].n == p[1].n;
    else if (same)
        same = jinja_equal(r, p[0], p[1]);
    *out = jbool(same);
    return 0;
}

static int test_in(jrun *r, const jargs *a, jv *out)
{
    jv p[2];
    bool yes;
    if (JINJA_BIND("in", a, 2, p, "value", "seq") || jinja_contains(r, p[0], p[1], &yes))
        return -1;
    *out = jbool(yes);
    return 0;
}

static int cased(const char *who, const char *method, jrun *r, const jargs *a, jv *out)
{
    jv v;
    if (JINJA_BIND(who, a, 1, &v, "value") || jinja_to_text(r, v, &v))
        return -1;
    return jinja_find_method(method, strlen(method))->str(r, v, &(jargs){0}, out);
}
static int test_lower(jrun *r, const jargs *a, jv *out) { return cased("lower", "islower", r, a, out); }
static int test_upper(jrun *r, const jargs *a, jv *out) { return cased("upper", "isupper", r, a, out); }

jfunction jinja_find_test(const char *name, size_t n)
{
    static const jglobal tests[] = {
        {"!=", test_ne}, {"<", test_lt}, {"<=", test_le}, {"==", test_eq}, {">", test_gt}, {">=", test_ge},
        {"boolean", test_boolean}, {"callable", test_callable}, {"defined", test_defined},
        {"divisibleby", test_divisibleby}, {"eq", test_eq}, {"equalto", test_eq}, {"escaped", test_escaped},
        {"even", test_even}, {"false", test_false}, {"filter", test_filter}, {"float", test_float}, {"ge", test_ge},
        {"greaterthan", test_gt}, {"gt", test_gt}, {"in", test_in}, {"integer", test_integer},
        {"iterable", test_iterable}, {"le", test_le}, {"lessthan", test_lt}, {"lower", test_lower}, {"lt", test_lt},
        {"mapping", test_mapping}, {"ne", test_ne}, {"none", test_none}, {"number", test_number}, {"odd", test_odd},
        {"sameas", test_sameas}, {"sequence", test_sequence}, {"string", test_string}, {"test", test_test},
        {"true", test_true}, {"undefined", test_undefined}, {"upper", test_upper},
    };
    for (size_t i = 0; i < SW_COUNT(tests); i++)
        if (strlen(tests[i].name) == n && !memcmp(tests[i].name, name, n))
            return tests[i].fn;
    return NULL;
}
