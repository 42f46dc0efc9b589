/* A chat format becomes Jinja: its pieces as settings and macros, the agent format's macros, then template_chat.jinja,
 * which is the same for all. What reads chat templates elsewhere reads the result; nothing here is known to the
 * renderer. */
#include "text/template_format.h"

#include "base/memory.h"
#include "text/agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADD_BOS SW_CHAT_ADD_BOS
#define THINKS SW_CHAT_THINKS
#define KEEPS_THOUGHTS SW_CHAT_KEEPS_THOUGHTS
#define AFTER_USER SW_CHAT_AFTER_USER
#define KWARG_THINKING SW_CHAT_KWARG_THINKING
#define OWN_SYSTEM SW_CHAT_OWN_SYSTEM
#define OWN_SYSTEM_AS_IS SW_CHAT_OWN_SYSTEM_AS_IS
#define BUDGET SW_CHAT_BUDGET

#define PIECES(id, ...) static const sw_chat_pieces pieces_##id = {__VA_ARGS__};
#define FORMAT(...)
#include "text/template_formats.def"
#undef PIECES
#undef FORMAT
#define PIECES(...)
#define FORMAT(title, id, ...) {.name = title, .pieces = &pieces_##id, ##__VA_ARGS__},
const sw_chat_format sw_chat_formats[] = {
#include "text/template_formats.def"
    {.name = NULL}};
#undef PIECES
#undef FORMAT

const sw_chat_format *sw_chat_format_find(const char *name)
{
    for (const sw_chat_format *f = sw_chat_formats; f->name; f++)
        if (!strcmp(f->name, name))
            return f;
    return NULL;
}

/* ---- pieces as Jinja expressions */

static void put_literal(sw_buf *b, const char *s, size_t n)
{
    sw_buf_putc(b, '\'');
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\n')
            sw_buf_puts(b, "\\n");
        else if (s[i] == '\t')
            sw_buf_puts(b, "\\t");
        else {
            if (s[i] == '\'' || s[i] == '\\')
                sw_buf_putc(b, '\\');
            sw_buf_putc(b, s[i]);
        }
    }
    sw_buf_putc(b, '\'');
}

static const struct mark {
    const char *name, *expression;
} marks[] = {
    {"{{SYSTEM}}", "system"},
    {"{{QUERY}}", "query"},
    {"{{ROUND0}}", "round"},
    {"{{ROUND1}}", "(round + 1)"},
    {"{{BOS}}", "bos_token"},
    {"{{EOS}}", "eos_token"},
    {"{{DAY}}", "strftime_now('%d %b %Y')"},
    {"{{DATE}}", "strftime_now('%Y-%m-%d')"},
};

/* The mark at s, with its length; NULL where s is plain text. {{ID:n}} has no row. */
static const char *find_mark(const char *s, size_t *n)
{
    for (size_t i = 0; i < SW_COUNT(marks); i++)
        if (!strncmp(s, marks[i].name, strlen(marks[i].name))) {
            *n = strlen(marks[i].name);
            return marks[i].expression;
        }
    return NULL;
}

/* text[0..length) as one expression. */
static int put_expression(sw_buf *b, const char *text, size_t length, const sw_tokenizer *t)
{
    const char *s = text ? text : "", *end = s + length;
    if (s == end)
        sw_buf_puts(b, "''");
    for (bool first = true; s < end; first = false) {
        size_t n = 0;
        const char *expression = find_mark(s, &n);
        if (!first)
            sw_buf_puts(b, " ~ ");
        if (expression) {
            sw_buf_puts(b, expression);
        } else if (!strncmp(s, "{{ID:", 5)) {
            int id = atoi(s + 5);
            sw_span piece = sw_token_piece(t, id);
            if (!piece.at)
                return sw_fail("it has token %d, which this vocabulary does not have", id);
            put_literal(b, piece.at, piece.n);
            n = (size_t)(strstr(s, "}}") + 2 - s);
        } else {
            size_t skip;
            while (s + n < end && !(s[n] == '{' && (find_mark(s + n, &skip) || !strncmp(s + n, "{{ID:", 5))))
                n++;
            put_literal(b, s, n);
        }
        s += n;
    }
    return 0;
}

static int put_set(sw_buf *b, const char *name, const char *text, size_t n, const sw_tokenizer *t)
{
    sw_buf_printf(b, "{%%- set %s = ", name);
    int bad = put_expression(b, text, n, t);
    sw_buf_puts(b, " -%}\n");
    return bad;
}

static void put_flag(sw_buf *b, const char *name, bool on)
{
    sw_buf_printf(b, "{%%- set %s = %s -%%}\n", name, on ? "true" : "false");
}

static int put_macro(sw_buf *b, const char *head, const char *text, const sw_tokenizer *t)
{
    sw_buf_printf(b, "{%%- macro %s -%%}{{ ", head);
    int bad = put_expression(b, text, text ? strlen(text) : 0, t);
    sw_buf_puts(b, " }}{%- endmacro -%}\n");
    return bad;
}

static bool begins(const char *s, const char *with) { return !strncmp(s, with, strlen(with)); }

/* What follows an answer, in two: what teaches the model to stop (the suffix, where it is that), and the rest. */
static int put_separator(sw_buf *b, const char *name, const char *text, const char *suffix, const sw_tokenizer *t)
{
    size_t n = *suffix && begins(text, suffix) ? strlen(suffix) : 0;
    char *head = sw_strfmt("%s_head", name), *tail = sw_strfmt("%s_tail", name);
    int bad = put_set(b, head, text, n, t) || put_set(b, tail, text + n, strlen(text) - n, t);
    free(head);
    free(tail);
    return bad;
}

/* Where rounds are not separated, the next user's turn may begin with the suffix: it is then the answer that ends so.
 */
static int put_next_round(sw_buf *b, const sw_chat_pieces *p, const char *suffix, const sw_tokenizer *t)
{
    const char *sep = p->chat_sep ? p->chat_sep : "";
    size_t cut = 0;
    int bad;
    if (strlen(suffix) > strlen(sep) && begins(suffix, sep) && begins(p->prompt, suffix + strlen(sep)) &&
        !strstr(suffix, "{{")) {
        cut = sw_utf8_count(suffix + strlen(sep), strlen(suffix) - strlen(sep));
        bad = put_separator(b, "sep", suffix, suffix, t);
    } else {
        bad = put_separator(b, "sep", sep, suffix, t);
    }
    sw_buf_printf(b, "{%%- set prompt_cut = %zu -%%}\n", cut);
    return bad;
}

/* ---- the parts */

static void put_json(sw_buf *b, const char *s) { sw_buf_json(b, s, strlen(s)); }

/* The suffix as what a generation stops at: without the white space around it. */
static void put_stops(sw_buf *b, const sw_chat_format *f)
{
    const char *s = f->pieces->suffix;
    while (*s == '\n' || *s == ' ')
        s++;
    size_t n = strlen(s);
    while (n && (s[n - 1] == '\n' || s[n - 1] == ' '))
        n--;
    bool any = n && !strstr(s, "{{");
    sw_buf_puts(b, ", \"stop\": [");
    if (any)
        sw_buf_json(b, s, n);
    for (size_t i = 0; i < SW_COUNT(f->stop) && f->stop[i]; i++) {
        sw_buf_puts(b, any || i ? ", " : "");
        put_json(b, f->stop[i]);
    }
    sw_buf_putc(b, ']');
}

static int put_ends(sw_buf *b, const sw_chat_format *f, const sw_agent *agent, const sw_tokenizer *t)
{
    const char *suffix = f->pieces->suffix;
    size_t n = strlen(suffix);
    while (n && (suffix[n - 1] == '\n' || suffix[n - 1] == ' '))
        n--;
    sw_buf_puts(b, "{%- set ends = (");
    int bad = n ? put_expression(b, suffix, n, t) : 0;
    sw_buf_puts(b, n ? ", " : "");
    for (size_t i = 0; i < SW_COUNT(f->stop) && f->stop[i]; i++) {
        put_literal(b, f->stop[i], strlen(f->stop[i]));
        sw_buf_puts(b, ", ");
    }
    if (agent->ends_answer) {
        put_literal(b, agent->ends_answer, strlen(agent->ends_answer));
        sw_buf_putc(b, ',');
    }
    sw_buf_puts(b, ") -%}\n");
    return bad;
}

static int put_thinking(sw_buf *b, const sw_chat_format *f, const sw_tokenizer *t)
{
    const char *open = f->think_open, *close = f->think_close,
               *kwarg = f->flags & SW_CHAT_KWARG_THINKING ? "thinking" : "enable_thinking";
    char own_open[40] = "<think>", own_close[40] = "</think>";
    if (!open && f->thinking && begins(f->thinking, "<") && strchr(f->thinking, '>')) {
        int n = (int)(strchr(f->thinking, '>') - f->thinking);
        if (n < 30) {
            snprintf(own_open, sizeof own_open, "%.*s>", n, f->thinking);
            snprintf(own_close, sizeof own_close, "</%.*s>", n - 1, f->thinking + 1);
        }
    }
    open = open ? open : own_open;
    close = close ? close : own_close;
    sw_buf_printf(b, "{%%- set thinking_on = %s if %s is defined and %s is not none else %s -%%}\n", kwarg, kwarg,
                  kwarg, f->flags & SW_CHAT_THINKS ? "true" : "false");
    put_flag(b, "thinks", f->flags & SW_CHAT_THINKS);
    put_flag(b, "keeps_thoughts", f->flags & SW_CHAT_KEEPS_THOUGHTS);
    put_flag(b, "after_user_only", f->flags & SW_CHAT_AFTER_USER);
    const char *const texts[][2] = {{"thinking", f->thinking},
                                    {"no_thinking", f->no_thinking},
                                    {"history", f->history},
                                    {"think_open", open},
                                    {"think_close", close}};
    for (size_t i = 0; i < SW_COUNT(texts); i++)
        if (put_set(b, texts[i][0], texts[i][1], texts[i][1] ? strlen(texts[i][1]) : 0, t))
            return -1;
    return 0;
}

static const char *part_text(const char *name)
{
    for (const sw_template_part *p = sw_template_parts; p->name; p++)
        if (!strcmp(p->name, name))
            return p->text;
    return "";
}

static int put_agent(sw_buf *b, const sw_chat_format *f, const sw_agent *agent, const sw_tokenizer *t)
{
    const char *sep = f->pieces->chat_sep ? f->pieces->chat_sep : f->pieces->suffix;
    const char *lead = !agent->lead ? "" : !strcmp(agent->lead, SW_AGENT_SEP) ? sep : agent->lead;
    put_flag(b, "tools_in_user", agent->in_user);
    char *part = sw_strfmt("agents/%s", agent->name);
    int bad = put_separator(b, "lead", lead, f->pieces->suffix, t) ||
              put_set(b, "call_gap", agent->gap, agent->gap ? strlen(agent->gap) : 0, t);
    sw_buf_puts(b, part_text(part));
    free(part);
    return bad;
}

/* The checkpoint's own system text as the default. Its braces are those of Python's str.format(). */
static void put_own_system(sw_buf *b, const sw_tokenizer *t, bool as_is)
{
    const char *s = sw_tokenizer_system_prompt(t), *name = sw_tokenizer_model_name(t);
    static const char *const fields[] = {"{name}", "{today}", "{yesterday}"};
    if (!s)
        return;
    sw_buf_puts(b, "{%- set default_system = ''");
    sw_buf part = {0};
    for (; *s; s++) {
        size_t which = as_is ? SW_COUNT(fields) : 0;
        while (which < SW_COUNT(fields) && !begins(s, fields[which]))
            which++;
        if (which == SW_COUNT(fields)) {
            s += !as_is && (begins(s, "{{") || begins(s, "}}"));
            sw_buf_putc(&part, *s);
            continue;
        }
        sw_buf_puts(b, " ~ ");
        put_literal(b, part.n ? part.at : "", part.n);
        sw_buf_clear(&part);
        sw_buf_puts(b, " ~ ");
        if (!which)
            put_literal(b, name, strlen(name));
        else
            sw_buf_puts(b, which == 1 ? "strftime_now('%Y-%m-%d')" : "yesterday()");
        s += strlen(fields[which]) - 1;
    }
    sw_buf_puts(b, " ~ ");
    put_literal(b, part.n ? part.at : "", part.n);
    sw_buf_puts(b, " -%}\n");
    sw_buf_free(&part);
}

int sw_chat_format_to_jinja(const sw_chat_format *f, const char *agent_name, const sw_tokenizer *t, sw_buf *out)
{
    const sw_chat_pieces *p = f->pieces;
    const sw_agent *agent = sw_agent_find(agent_name ? agent_name : f->agent ? f->agent : "react_en");
    if (!agent)
        return sw_fail("agent format '%s' is not known; there are %s", agent_name, sw_agent_list());
    sw_buf b = {0};
    sw_buf_puts(&b, "{#- swift-template {\"format\": ");
    put_json(&b, f->name);
    sw_buf_puts(&b, ", \"agent\": ");
    put_json(&b, agent->name);
    put_stops(&b, f);
    sw_buf_puts(&b, f->flags & BUDGET ? ", \"budget\": true" : "");
    sw_buf_puts(&b, "} -#}\n");
    put_flag(&b, "takes_system", p->system_prefix || p->system_prompt);
    put_flag(&b, "system_in_prompt", p->system_prompt);
    put_flag(&b, "one_round", !p->chat_sep);
    int bad = 0;
    if (f->system)
        bad = put_set(&b, "default_system", f->system, strlen(f->system), t);
    else
        sw_buf_puts(&b, "{%- set default_system = '' -%}\n");
    bad = bad || put_set(&b, "suffix", p->suffix, strlen(p->suffix), t) || put_next_round(&b, p, p->suffix, t) ||
          put_ends(&b, f, agent, t) || put_thinking(&b, f, t);
    bool bos = f->flags & SW_CHAT_ADD_BOS && sw_tokenizer_adds_bos(t);
    sw_buf_puts(&b, "{%- macro start(system) -%}");
    sw_buf_puts(&b, bos ? "{{ bos_token }}" : "");
    if (p->system_prefix) {
        sw_buf_puts(&b, "{%- if system -%}{{ ");
        bad = bad || put_expression(&b, p->system_prefix, strlen(p->system_prefix), t);
        sw_buf_puts(&b, " }}{%- else -%}{{ ");
    } else {
        sw_buf_puts(&b, "{{ ");
    }
    bad = bad || put_expression(&b, p->prefix, strlen(p->prefix), t);
    sw_buf_printf(&b, " }}%s{%%- endmacro -%%}\n", p->system_prefix ? "{%- endif -%}" : "");
    bad = bad || put_macro(&b, "prompt(query, round)", p->prompt, t) ||
          put_macro(&b, "system_prompt(query, round, system)", p->system_prompt ? p->system_prompt : p->prompt, t) ||
          put_agent(&b, f, agent, t);
    char *hooks = sw_strfmt("hooks/%s", f->hooks ? f->hooks : "");
    sw_buf_puts(&b, part_text(hooks));
    if (f->flags & (OWN_SYSTEM | OWN_SYSTEM_AS_IS))
        put_own_system(&b, t, f->flags & OWN_SYSTEM_AS_IS);
    free(hooks);
    sw_buf_puts(&b, part_text("template_chat"));
    if (!bad)
        sw_buf_add(out, b.at, b.n);
    sw_buf_free(&b);
    return bad ? sw_fail_in("chat format %s", f->name) : 0;
}
