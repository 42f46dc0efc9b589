#include "golden_text.h"

#include "base/fileio.h"
#include "base/json.h"
#include "text/template.h"

#include <stdlib.h>
#include <string.h>

typedef struct state {
    const char *dir;
    cJSON *conversations; /* array */
    char *name;           /* of the template that is compiled */
    sw_jinja *template;
} state;

static int load_template(state *s, const char *name)
{
    if (s->name && !strcmp(s->name, name))
        return s->template ? 0 : -1;
    sw_jinja_free(s->template);
    free(s->name);
    s->name = sw_strdup(name);
    char *file = sw_strfmt("%s/templates/%s.jinja", s->dir, name);
    sw_buf text = {0};
    s->template = sw_read_file(file, &text) ? NULL : sw_jinja_compile(text.n ? text.at : "", text.n);
    if (!s->template)
        sw_fail_in("%s", file);
    free(file);
    sw_buf_free(&text);
    return s->template ? 0 : -1;
}

static int one(const cJSON *line, void *state_)
{
    state *s = state_;
    const char *name, *conversation;
    if (sw_json_str(line, "template", "", &name) || sw_json_str(line, "conversation", "", &conversation))
        return -1;
    const cJSON *c = s->conversations->child;
    while (c && strcmp(sw_json_get(c, "name")->valuestring, conversation))
        c = c->next;
    if (!c)
        return sw_fail("no conversation '%s'", conversation);
    if (load_template(s, name))
        return -1;
    cJSON *vars = sw_template_variables(sw_json_get(c, "messages"), sw_json_get(c, "tools"), sw_json_get(c, "documents"),
                                        sw_json_get(line, "kwargs"));
    char *label = sw_strfmt("%s, %s", name, conversation);
    int bad = golden_check_rendering(s->template, vars, line, label);
    free(label);
    cJSON_Delete(vars);
    return bad;
}

static int run(const char *dir, double *worst)
{
    (void)worst;
    state s = {.dir = dir, .conversations = cJSON_CreateArray()};
    char *path = sw_path_join(dir, "conversations.jsonl");
    sw_buf text = {0};
    int bad = sw_read_file(path, &text);
    for (size_t at = 0; at < text.n && !bad;) {
        const char *end = memchr(text.at + at, '\n', text.n - at);
        size_t n = (end ? (size_t)(end - text.at) : text.n) - at;
        cJSON *c = sw_json_parse(text.at + at, n);
        if (c)
            cJSON_AddItemToArray(s.conversations, c);
        else
            bad = sw_fail_in("%s", path);
        at += n + 1;
    }
    if (!bad)
        bad = golden_each_line(dir, one, &s);
    free(path);
    free(s.name);
    sw_buf_free(&text);
    sw_jinja_free(s.template);
    cJSON_Delete(s.conversations);
    return bad;
}

const golden_kind golden_chat_template = {"chat_template", golden_is_lines, run, NULL};
