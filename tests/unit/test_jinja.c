#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/json.h"
#include "text/jinja.h"

#include <stdlib.h>
#include <string.h>

/* Renders source with vars (JSON); the result or "! message". Freed by the caller. */
static char *render(const char *source, const char *vars)
{
    sw_buf out = {0};
    sw_jinja_error kind;
    cJSON *v = sw_json_parse(vars, strlen(vars));
    assert_non_null(v);
    sw_jinja *j = sw_jinja_compile(source, strlen(source));
    if (!j || sw_jinja_render(j, v, 0, &out, NULL, &kind)) {
        sw_buf_clear(&out);
        sw_buf_printf(&out, "! %s", sw_error());
    }
    sw_jinja_free(j);
    cJSON_Delete(v);
    sw_buf_putc(&out, 0);
    return sw_buf_take(&out);
}

static void expect(const char *source, const char *vars, const char *due)
{
    char *got = render(source, vars);
    assert_string_equal(got, due);
    free(got);
}

static void refused(const char *source, const char *vars, const char *part)
{
    char *got = render(source, vars);
    assert_true(got[0] == '!');
    if (!strstr(got, part))
        fail_msg("'%s' does not say '%s'", got, part);
    free(got);
}

static void python_values(void **state)
{
    (void)state;
    expect("{{ [1, 1.0, none, true, 'it\\'s'] }}", "{}", "[1, 1.0, None, True, \"it's\"]");
    expect("{{ a }} {{ b }} {{ c }}", "{\"a\":1.0,\"b\":1,\"c\":12345678901234567890}", "1.0 1 12345678901234567890");
    expect("{{ 2 ** 100 }} {{ 7 // -2 }} {{ -7 % 3 }} {{ 1e16 }}", "{}", "1267650600228229401496703205376 -4 2 1e+16");
    expect("{{ s[::-1] }} {{ s|length }} {{ s[-1] }}", "{\"s\":\"aé😀\"}", "😀éa 3 😀");
    expect("{{ d.items() }} {{ d.keys()|list }} {{ d.x }}|{{ d['y'].z }}", "{\"d\":{\"x\":1,\"y\":{\"z\":null}}}",
           "dict_items([('x', 1), ('y', {'z': None})]) ['x', 'y'] 1|None");
}

/* What Python's jinja2 gave for each. */
static void text_methods(void **state)
{
    (void)state;
    expect("{{ 'a\\tbc\\td\\n\\te'.expandtabs() }}|{{ 'é\\tb'.expandtabs(3) }}", "{}", "a       bc      d\n        e|é  b");
    expect("{{ 'Ab Cd'.istitle() }} {{ 'AB'.istitle() }} {{ 'A1b'.istitle() }}", "{}", "True False False");
    expect("{{ 'a_1'.isidentifier() }} {{ '1a'.isidentifier() }} {{ 'a\\t'.isprintable() }}", "{}", "True False False");
    expect("{{ '{a} {b}'.format_map({'a': 1, 'b': 'x'}) }}", "{}", "1 x");
    expect("{{ [1, 2, 1].index(1, 1) }} {{ (1, 2, 1).index(1, -1) }}", "{}", "2 2");
    refused("{{ [1, 2].index(1, 1, 2) }}", "{}", "not in the list");
    expect("{{ 'ΑΣ ΑΣΑ Σ'.lower() }} {{ 'ΟΔΟΣ'.title() }}", "{}", "ας ασα σ Οδος");
}

static void nul_in_texts(void **state)
{
    (void)state;
    cJSON *v = sw_json_parse("{\"s\":\"a\\u0000b\"}", 16);
    sw_jinja *j = sw_jinja_compile("{{ s }}{{ s|length }}{{ s|tojson }}", 35);
    sw_buf out = {0};
    assert_non_null(j);
    assert_int_equal(sw_jinja_render(j, v, 0, &out, NULL, NULL), 0);
    assert_int_equal(out.n, 3 + 1 + 10);
    assert_memory_equal(out.at, "a\0b3\"a\\u0000b\"", 14);
    sw_jinja_free(j);
    cJSON_Delete(v);
    sw_buf_free(&out);
}

static void scopes(void **state)
{
    (void)state;
    expect("{% set x = 0 %}{% for i in [1,2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "{}", "120");
    expect("{% set n = namespace(x=0) %}{% for i in [1,2] %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}", "{}", "3");
    expect("{% macro f(a, b=a) %}{{ a }}{{ b }}{{ y }}{% endmacro %}{% set y = 9 %}{{ f(1) }}{{ f(1, b=2) }}", "{}", "119129");
    expect("{% macro w() %}<{{ caller(3) }}>{% endmacro %}{% call(q) w() %}{{ q }}{{ z }}{% endcall %}", "{\"z\":4}", "<34>");
    expect("{% if true %}{% set q = 5 %}{% endif %}{{ q }}{% with q = 6 %}{{ q }}{% endwith %}{{ q }}", "{}", "565");
}

static void white_space(void **state)
{
    (void)state;
    expect("  {% if true %}\n  x\n  {% endif %}\n", "{}", "  x\n");
    expect("a \n {%- if true -%} \n b \n {%- endif -%} \n c", "{}", "abc");
    expect("a\n   {# c #}\nb\n", "{}", "a\nb");
    expect("{% raw %}{{ x }}{% endraw %}", "{}", "{{ x }}");
}

static void sandbox(void **state)
{
    (void)state;
    refused("{{ x.append(1) }}", "{\"x\":[]}", "unsafe");
    refused("{{ ''.__class__.__mro__ }}", "{}", "unsafe");
    refused("{% include 'x' %}", "{}", "'include' is refused");
    refused("{% set n = namespace() %}{% set n._x = 1 %}", "{}", "'_'");
}

static void messages(void **state)
{
    (void)state;
    refused("a\nb\n{{ x.y }}", "{}", "line 3: 'x' is undefined");
    refused("{{ d.q.r }}", "{\"d\":{}}", "'dict object' has no attribute 'q'");
    refused("\n{% if x %}", "{}", "line 2");
    refused("{{ x|nope }}", "{}", "No filter named 'nope'");
    refused("{{ 'a' + 1 }}", "{}", "can only concatenate str (not \"int\") to str");
    expect("{{ raise_exception('exactly this') }}", "{}", "! exactly this");
}

/* What a hostile template may try ends in an error, soon. */
static void bounds(void **state)
{
    (void)state;
    refused("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "{}", "deeper");
    refused("{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}", "{}", "more than");
    refused("{{ 'x' * 999999999999 }}", "{}", "memory");
    refused("{% set n = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}", "{}", "memory");
    refused("{{ range(100001) }}", "{}", "too big");
    refused("{{ 9 ** 99 }}", "{}", "too large");
    refused("{{ '%99999d' % 1 }}", "{}", "10000");
    char deep[2001];
    memset(deep, '(', 1000);
    memset(deep + 1000, ')', 1000);
    deep[2000] = 0;
    sw_buf s = {0};
    sw_buf_printf(&s, "{{ %s }}", deep);
    refused(s.at, "{}", "deeper");
    sw_buf_clear(&s);
    for (int i = 0; i < 1000; i++)
        sw_buf_puts(&s, "{% if 1 %}");
    refused(s.at, "{}", "deeper");
    sw_buf_clear(&s);
    sw_buf_puts(&s, "{{ 1");
    for (int i = 0; i < 20000; i++) /* a tree that leans left grows without nesting in the source */
        sw_buf_puts(&s, " * 1");
    sw_buf_puts(&s, " }}");
    refused(s.at, "{}", "recurses");
    sw_buf_free(&s);
}

static void failure_leaves_output_alone(void **state)
{
    (void)state;
    sw_buf out = {0};
    sw_ranges ranges = {0};
    const char *source = "{% generation %}ab{% endgeneration %}{{ x.y }}";
    sw_jinja *j = sw_jinja_compile(source, strlen(source));
    sw_buf_puts(&out, "before");
    assert_int_equal(sw_jinja_render(j, NULL, 0, &out, &ranges, NULL), -1);
    assert_string_equal(out.at, "before");
    assert_int_equal(ranges.n, 0);
    sw_jinja_free(j);
    sw_buf_free(&out);
    free(ranges.at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(python_values), cmocka_unit_test(text_methods), cmocka_unit_test(nul_in_texts), cmocka_unit_test(scopes),
        cmocka_unit_test(white_space), cmocka_unit_test(sandbox), cmocka_unit_test(messages), cmocka_unit_test(bounds),
        cmocka_unit_test(failure_leaves_output_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
