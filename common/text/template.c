/* Chat templates over tokenizers: loading, variables, rendering, prompts. Labels are in template_labels.c. */
#include "text/template_internal.h"

#include "base/json.h"
#include "base/memory.h"
#include "text/template_family.h"

#include <stdlib.h>
#include <string.h>

/* ---- variables */

/* A member that refers to another tree. */
static void refer(cJSON *to, const char *key, const cJSON *value)
{
    cJSON *r = value ? cJSON_CreateObjectReference(NULL) : cJSON_CreateNull();
    if (value) { /* a shallow copy that owns nothing: cJSON frees neither text nor children of a reference */
        *r = *value;
        r->next = r->prev = NULL;
        r->string = NULL;
        r->type = (value->type | cJSON_IsReference) & ~cJSON_StringIsConst;
    }
    cJSON_DeleteItemFromObjectCaseSensitive(to, key);
    cJSON_AddItemToObject(to, key, r);
}

/* A message whose reasoning goes by one of three names has it under reasoning_content, and under thinking where that
 * is missing. */
static cJSON *message_variables(const cJSON *m)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    const cJSON *reasoning = NULL;
    cJSON *copy = cJSON_CreateObject();
    for (const cJSON *c = m->child; c; c = c->next)
        refer(copy, c->string, c);
    for (size_t i = 0; i < SW_COUNT(names) && !reasoning; i++)
        reasoning = sw_json_get(m, names[i]);
    if (reasoning) {
        refer(copy, "reasoning_content", reasoning);
        if (!cJSON_GetObjectItemCaseSensitive(m, "thinking"))
            refer(copy, "thinking", reasoning);
    }
    return copy;
}

cJSON *sw_template_variables(const cJSON *messages, const cJSON *tools, const cJSON *documents, const cJSON *extra)
{
    cJSON *vars = cJSON_CreateObject(), *list = cJSON_CreateArray();
    for (const cJSON *c = extra ? extra->child : NULL; c; c = c->next)
        refer(vars, c->string, c);
    for (const cJSON *m = messages ? messages->child : NULL; m; m = m->next)
        cJSON_AddItemToArray(list, cJSON_IsObject(m) ? message_variables(m) : cJSON_Duplicate(m, 1));
    cJSON_DeleteItemFromObjectCaseSensitive(vars, "messages");
    cJSON_AddItemToObject(vars, "messages", list);
    if (tools || !cJSON_GetObjectItemCaseSensitive(vars, "tools"))
        refer(vars, "tools", tools);
    if (documents || !cJSON_GetObjectItemCaseSensitive(vars, "documents"))
        refer(vars, "documents", documents);
    return vars;
}

static void add_token(cJSON *vars, const char *key, const sw_tokenizer *t, int32_t id)
{
    sw_span piece = id >= 0 ? sw_token_piece(t, id) : (sw_span){0};
    if (!piece.at)
        return;
    char *text = sw_strndup(piece.at, piece.n);
    cJSON_AddStringToObject(vars, key, text);
    free(text);
}

/* The special tokens by the names that transformers gives them. */
static cJSON *token_variables(const sw_tokenizer *t)
{
    static const char *const unknown[] = {"<unk>", "[UNK]", "<|unk|>"};
    cJSON *vars = cJSON_CreateObject();
    add_token(vars, "bos_token", t, sw_tokenizer_bos(t));
    add_token(vars, "eos_token", t, sw_tokenizer_eos(t));
    add_token(vars, "pad_token", t, sw_tokenizer_pad(t));
    for (size_t i = 0; i < SW_COUNT(unknown); i++) {
        int32_t id = sw_token_id(t, unknown[i], strlen(unknown[i]));
        if (id >= 0 && sw_token_is_special(t, id)) {
            cJSON_AddStringToObject(vars, "unk_token", unknown[i]);
            break;
        }
    }
    return vars;
}

/* The tokens of the longest thought in the messages' texts; 0: there is none. */
static size_t longest_thought(const sw_template *m, const cJSON *messages)
{
    sw_encoder *e = NULL;
    sw_ids ids = {0};
    size_t longest = 0;
    for (const cJSON *c = messages ? messages->child : NULL; c; c = c->next) {
        const cJSON *role = sw_json_get(c, "role");
        sw_buf b = {0};
        sw_span s = sw_json_text(sw_json_get(c, "content"), &b);
        const char *from = s.n ? memmem(s.at, s.n, "<think>", 7) : NULL;
        from = from ? from + 7 : NULL;
        const char *to = from ? memmem(from, (size_t)(s.at + s.n - from), "</think>", 8) : NULL;
        bool blank = true;
        for (const char *at = from; to && at < to && blank; at++)
            blank = strchr(" \t\r\n\v\f", *at);
        if (to && !blank && cJSON_IsString(role) && !strcmp(role->valuestring, "assistant")) {
            e = e ? e : sw_encoder_new(m->tokenizer);
            ids.n = 0;
            if (!sw_encode(e, from, (size_t)(to - from), true, &ids, NULL))
                longest = SW_MAX(longest, ids.n);
        }
        sw_buf_free(&b);
    }
    free(ids.at);
    sw_encoder_free(e);
    return longest;
}

cJSON *template_variables(const sw_template *m, const cJSON *messages, const cJSON *tools, const cJSON *extra)
{
    cJSON *vars = sw_template_variables(messages, tools, NULL, m->tokens);
    for (const cJSON *c = extra ? extra->child : NULL; c; c = c->next)
        refer(vars, c->string, c);
    if (m->budget && !cJSON_GetObjectItemCaseSensitive(vars, "thinking_budget"))
        cJSON_AddNumberToObject(vars, "thinking_budget", (double)longest_thought(m, messages));
    return vars;
}

void template_set_prompt(cJSON *vars, bool add_generation_prompt)
{
    cJSON_DeleteItemFromObjectCaseSensitive(vars, "add_generation_prompt");
    cJSON_AddBoolToObject(vars, "add_generation_prompt", add_generation_prompt);
}

int template_render(const sw_template *m, const cJSON *vars, sw_buf *out, sw_ranges *generation)
{
    return sw_jinja_render(m->jinja, vars, -1, out, generation, NULL) ? sw_fail_in("chat template %s", m->name) : 0;
}

/* ---- loading */

/* The token after an assistant's answer in a probe conversation. */
static int32_t find_end_token(const sw_template *m)
{
    static const char answer[] = "Zq7";
    static const char probe[] = "[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"Zq7\"}]";
    cJSON *messages = sw_json_parse(probe, sizeof probe - 1);
    sw_buf text = {0};
    int32_t end = -1;
    if (messages && !sw_template_render(m, messages, NULL, NULL, false, &text, NULL)) {
        const char *at = text.n ? memmem(text.at, text.n, answer, sizeof answer - 1) : NULL;
        sw_encoder *e = sw_encoder_new(m->tokenizer);
        sw_ids ids = {0};
        if (at) {
            at += sizeof answer - 1;
            if (!sw_encode(e, at, (size_t)(text.at + text.n - at), false, &ids, NULL))
                for (size_t i = 0; i < ids.n && end < 0; i++)
                    if (sw_token_is_special(m->tokenizer, ids.at[i]) || ids.at[i] == sw_tokenizer_eos(m->tokenizer))
                        end = ids.at[i];
        }
        free(ids.at);
        sw_encoder_free(e);
    }
    sw_error_clear(); /* a template that refuses the probe has no end token that could be told */
    sw_buf_free(&text);
    cJSON_Delete(messages);
    return end;
}

/* The first comment of what sw_chat_format_to_jinja made: {#- swift-template {...} -#}. */
static cJSON *read_marker(const char *jinja, size_t n)
{
    static const char head[] = "{#- swift-template ", tail[] = " -#}";
    const char *end = n > sizeof head && !memcmp(jinja, head, sizeof head - 1) ? memmem(jinja, n, tail, sizeof tail - 1) : NULL;
    cJSON *o = end ? sw_json_parse(jinja + sizeof head - 1, (size_t)(end - jinja) - (sizeof head - 1)) : NULL;
    if (!o)
        sw_error_clear();
    return o;
}

static void apply_marker(sw_template *m, const cJSON *marker)
{
    const cJSON *agent = sw_json_get(marker, "agent"), *stop = sw_json_get(marker, "stop");
    struct { char **at; size_t n, cap; } all = {0};
    for (const cJSON *s = cJSON_IsArray(stop) ? stop->child : NULL; s; s = s->next)
        if (cJSON_IsString(s) && *s->valuestring)
            SW_PUSH(all, sw_strdup(s->valuestring));
    SW_PUSH(all, NULL);
    m->stop = all.at;
    m->apart = cJSON_IsObject(marker);
    m->budget = cJSON_IsTrue(sw_json_get(marker, "budget"));
    m->agent = cJSON_IsString(agent) ? sw_agent_find(agent->valuestring) : sw_agent_guess(m->text);
}

sw_template *sw_template_from_text(const sw_tokenizer *t, const char *name, const char *jinja, size_t n)
{
    sw_jinja *j = sw_jinja_compile(jinja, n);
    if (!j) {
        sw_fail_in("chat template %s", name);
        return NULL;
    }
    sw_template *m = SW_NEW(sw_template);
    m->tokenizer = t;
    m->name = sw_strdup(name);
    m->text = sw_strndup(jinja, n);
    m->digest = sw_digest_bytes(jinja, n);
    m->jinja = j;
    m->tokens = token_variables(t);
    cJSON *marker = read_marker(jinja, n);
    apply_marker(m, marker);
    cJSON_Delete(marker);
    m->end_token = find_end_token(m);
    return m;
}

static sw_template *from_format(const sw_tokenizer *t, const sw_chat_format *f, const char *agent)
{
    sw_buf text = {0};
    sw_template *m = sw_chat_format_to_jinja(f, agent, t, &text) ? NULL : sw_template_from_text(t, f->name, text.at, text.n);
    sw_buf_free(&text);
    return m;
}

static sw_template *from_file(const sw_tokenizer *t, const char *path)
{
    sw_buf text = {0};
    sw_template *m = sw_read_file(path, &text) ? NULL : sw_template_from_text(t, path, text.n ? text.at : "", text.n);
    sw_buf_free(&text);
    return m;
}

static sw_template *choose(const sw_tokenizer *t, const sw_template_choice *c)
{
    const char *own = sw_tokenizer_chat_template(t);
    const sw_chat_format *f = c->source ? sw_chat_format_find(c->source) : own ? NULL : sw_template_family_format(c->family, t);
    if (f)
        return from_format(t, f, c->agent);
    if (c->source && sw_is_file(c->source))
        return from_file(t, c->source);
    if (!c->source && own)
        return sw_template_from_text(t, "of the tokenizer", own, strlen(own));
    static const char names[] = "such as chatml, llama3 or qwen2_5; swift-tokenize --list-templates prints them all";
    if (c->source)
        sw_fail("chat template '%s': neither a file nor a built-in one (%s)", c->source, names);
    else
        sw_fail("the tokenizer has no chat template: name a file or a built-in one (%s)", names);
    return NULL;
}

sw_template *sw_template_choose(const sw_tokenizer *t, const sw_template_choice *c)
{
    const sw_agent *agent = c->agent ? sw_agent_find(c->agent) : NULL;
    if (c->agent && !agent) {
        sw_fail("agent format '%s' is not known; there are %s", c->agent, sw_agent_list());
        return NULL;
    }
    sw_template *m = choose(t, c);
    if (m && agent)
        m->agent = agent;
    return m;
}

sw_template *sw_template_load(const sw_tokenizer *t, const char *source)
{
    return sw_template_choose(t, &(sw_template_choice){.source = source});
}

void sw_template_free(sw_template *m)
{
    if (!m)
        return;
    sw_jinja_free(m->jinja);
    cJSON_Delete(m->tokens);
    for (char **s = m->stop; *s; s++)
        free(*s);
    free(m->stop);
    free(m->name);
    free(m->text);
    free(m);
}

const char *sw_template_name(const sw_template *m) { return m->name; }
const char *sw_template_text(const sw_template *m) { return m->text; }
sw_digest sw_template_digest(const sw_template *m) { return m->digest; }
int32_t sw_template_end_token(const sw_template *m) { return m->end_token; }
const sw_agent *sw_template_agent(const sw_template *m) { return m->agent; }
const char *const *sw_template_stops(const sw_template *m) { return (const char *const *)m->stop; }

/* ---- rendering */

int sw_template_render(const sw_template *m, const cJSON *messages, const cJSON *tools, const cJSON *extra,
                       bool add_generation_prompt, sw_buf *out, sw_ranges *generation)
{
    cJSON *vars = template_variables(m, messages, tools, extra);
    template_set_prompt(vars, add_generation_prompt);
    int bad = template_render(m, vars, out, generation);
    cJSON_Delete(vars);
    return bad;
}
