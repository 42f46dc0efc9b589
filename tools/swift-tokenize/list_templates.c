/* The built-in chat formats, for people and programs. */
#include "tokenize.h"

#include "base/memory.h"
#include "base/option.h"
#include "text/template_format.h"

#include <stdio.h>
#include <string.h>

static const char *agent_of(const sw_chat_format *f) { return f->agent ? f->agent : "react_en"; }

/* Name, agent format and what ends an answer, with tabs between: the last as JSON, so that it is one word for people and
 * cut(1). */
static void put_table(sw_buf *b)
{
    for (const sw_chat_format *f = sw_chat_formats; f->name; f++) {
        sw_buf_printf(b, "%s\t%s\t", f->name, agent_of(f));
        sw_buf_json(b, f->pieces->suffix, strlen(f->pieces->suffix));
        sw_buf_putc(b, '\n');
    }
}

static void put_text(sw_buf *b, const char *key, const char *text)
{
    sw_buf_printf(b, ",\"%s\":", key);
    if (text)
        sw_buf_json(b, text, strlen(text));
    else
        sw_buf_puts(b, "null");
}

static void put_json(sw_buf *b)
{
    for (const sw_chat_format *f = sw_chat_formats; f->name; f++) {
        const sw_chat_pieces *p = f->pieces;
        sw_buf_puts(b, "{\"name\":");
        sw_buf_json(b, f->name, strlen(f->name));
        const struct {
            const char *key, *text;
        } texts[] = {{"agent", agent_of(f)},        {"prefix", p->prefix},     {"system_prefix", p->system_prefix}, {"prompt", p->prompt},
                     {"system_prompt", p->system_prompt}, {"chat_sep", p->chat_sep}, {"suffix", p->suffix},   {"default_system", f->system}};
        for (size_t i = 0; i < SW_COUNT(texts); i++)
            put_text(b, texts[i].key, texts[i].text);
        sw_buf_printf(b, ",\"thinks\":%s}\n", f->flags & SW_CHAT_THINKS ? "true" : "false");
    }
}

/* Lines as they are. */
static void man_literal(sw_buf *b, const char *text)
{
    for (const char *c = text; *c; c++) {
        if ((c == text || c[-1] == '\n') && (*c == '.' || *c == '\''))
            sw_buf_puts(b, "\\&");
        if (*c == '\\' || *c == '-')
            sw_buf_puts(b, *c == '-' ? "\\-" : "\\e");
        else
            sw_buf_putc(b, *c);
    }
}

/* One round, and what cannot be seen in it. */
static void man_format(sw_buf *b, const sw_chat_format *f)
{
    const sw_chat_pieces *p = f->pieces;
    sw_buf_puts(b, ".It Cm ");
    sw_mdoc_text(b, f->name);
    sw_buf_puts(b, "\n.Bd -literal -compact\n");
    man_literal(b, p->prompt);
    man_literal(b, "{{ANSWER}}");
    man_literal(b, p->suffix);
    sw_buf_puts(b, b->at[b->n - 1] == '\n' ? ".Ed\nTools as " : "\n.Ed\nTools as ");
    sw_mdoc_text(b, agent_of(f));
    if (!p->system_prefix && !p->system_prompt)
        sw_buf_puts(b, "; no place for a system text");
    if (!p->chat_sep)
        sw_buf_puts(b, "; one round only");
    if (f->flags & SW_CHAT_THINKS)
        sw_buf_puts(b, "; thoughts of earlier rounds are left out");
    sw_buf_puts(b, ".\n");
}

static void put_man(sw_buf *b)
{
    int n = 0;
    for (const sw_chat_format *f = sw_chat_formats; f->name; f++)
        n++;
    sw_buf_printf(b,
                  ".\\\" Made by swift-tokenize --list-templates --list-as man (make lists).\n"
                  ".Dd November 26, 2026\n.Dt SWIFT-TEMPLATES 7\n.Os\n.Sh NAME\n.Nm swift-templates\n.Nd built-in chat formats\n"
                  ".Sh DESCRIPTION\nThese %d names may follow\n.Fl -template\nof\n.Xr swift-tokenize 1\nand\n.Xr swift-infer 1 .\n"
                  "They are those of ms-swift 4.6;\n.Ql NAME@2.3\nis what version 2.3 wrote where it differs.\n.Pp\n"
                  "Each is shown by one round, where\n.Ql {{QUERY}}\nis what the user says,\n.Ql {{ANSWER}}\nwhat the model says,\n.Ql {{BOS}}\nand\n.Ql {{EOS}}\nare the tokenizer's own tokens, and\n"
                  ".Ql {{ROUND0}}\nand\n.Ql {{ROUND1}}\nnumber the rounds from 0 and from 1.\n"
                  "The last answer's end carries loss, and generation stops at it.\n.Sh FORMATS\n.Bl -tag -width Ds\n",
                  n);
    for (const sw_chat_format *f = sw_chat_formats; f->name; f++)
        man_format(b, f);
    sw_buf_puts(b, ".El\n.Sh SEE ALSO\n.Xr swift-infer 1 ,\n.Xr swift-tokenize 1 ,\n.Xr swift-models 7\n");
}

int tokenize_list_templates(int as)
{
    sw_buf b = {0};
    if (as == TOKENIZE_AS_JSON)
        put_json(&b);
    else if (as == TOKENIZE_AS_MAN)
        put_man(&b);
    else
        put_table(&b);
    int rc = fwrite(b.at, 1, b.n, stdout) == b.n ? 0 : sw_fail_errno("standard output: write");
    sw_buf_free(&b);
    return rc;
}
