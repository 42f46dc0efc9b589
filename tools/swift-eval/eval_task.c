/* Tasks: descriptions in JSON, read and checked. */
#include "eval.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

const eval_scorer *const eval_scorers[] = {&eval_match, &eval_choice, &eval_perplexity, NULL};

static const char *const members[] = {
    "name", "summary", "rows", "id", "group", "needs", "messages", "input", "output", "separator", "between", "chat", "system", "answer",
    "answer_extract", "max_tokens", "stop", "score", "metrics", "choices", "labels", "continuation", "text", "part_bytes", "context_bytes"};

static int read_template(const cJSON *tree, const char *key, sw_jinja **out)
{
    const char *source;
    if (sw_json_str(tree, key, NULL, &source))
        return -1;
    if (source && !(*out = sw_jinja_compile(source, strlen(source))))
        return sw_fail_in("\"%s\"", key);
    return 0;
}

static int check_strings(const cJSON *tree, const char *key, const cJSON **out)
{
    *out = sw_json_get(tree, key);
    if (*out && !cJSON_IsArray(*out))
        return sw_fail("\"%s\": a list of strings is needed, not %s", key, sw_json_kind(*out));
    for (const cJSON *v = *out ? (*out)->child : NULL; v; v = v->next)
        if (!cJSON_IsString(v))
            return sw_fail("\"%s\": a list of strings is needed; it holds %s", key, sw_json_kind(v));
    return 0;
}

static int read_metrics(eval_task *t)
{
    const cJSON *list = sw_json_get(t->tree, "metrics");
    if (t->scorer->metrics) {
        if (list)
            return sw_fail("\"metrics\": the scorer %s has its own", t->scorer->name);
        while (t->scorer->metrics[t->n_metrics].name)
            t->n_metrics++;
        t->metrics = SW_NEW_ARRAY(eval_metric, t->n_metrics);
        memcpy(t->metrics, t->scorer->metrics, t->n_metrics * sizeof *t->metrics);
        return 0;
    }
    if (!cJSON_IsArray(list) || !list->child)
        return sw_fail("\"metrics\": a list of {name, extract, normalise} is needed, not %s", list ? sw_json_kind(list) : "nothing");
    t->metrics = SW_NEW_ARRAY(eval_metric, (size_t)cJSON_GetArraySize(list));
    for (const cJSON *v = list->child; v; v = v->next) {
        eval_metric *m = &t->metrics[t->n_metrics++];
        if (!cJSON_IsObject(v))
            return sw_fail("\"metrics\": an object {name, extract, normalise} is needed, not %s", sw_json_kind(v));
        for (const cJSON *c = v->child; c; c = c->next)
            if (strcmp(c->string, "name") && strcmp(c->string, "extract") && strcmp(c->string, "normalise"))
                return sw_fail("\"metrics\": a metric has name, extract and normalise, not \"%s\"", c->string);
        if (sw_json_str(v, "name", NULL, &m->name))
            return sw_fail_in("\"metrics\"");
        if (!m->name || !*m->name)
            return sw_fail("\"metrics\": a metric has no \"name\"");
        for (size_t i = 0; i + 1 < t->n_metrics; i++)
            if (!strcmp(t->metrics[i].name, m->name))
                return sw_fail("\"metrics\": two are called '%s'", m->name);
        if (eval_rules_read(sw_json_get(v, "extract"), m->name, &m->extract) || eval_normalise_read(sw_json_get(v, "normalise"), &m->normalise))
            return sw_fail_in("\"metrics\"");
    }
    return 0;
}

static int read_members(eval_task *t)
{
    const cJSON *o = t->tree;
    const char *scorer;
    for (const cJSON *v = o->child; v; v = v->next) {
        bool known = false;
        for (size_t i = 0; i < SW_COUNT(members); i++)
            known |= !strcmp(v->string, members[i]);
        if (!known)
            return sw_fail("a task has no \"%s\"", v->string);
    }
    if (sw_json_str(o, "name", NULL, &t->name) || sw_json_str(o, "summary", "", &t->summary) || sw_json_str(o, "rows", NULL, &t->rows) ||
        sw_json_str(o, "messages", NULL, &t->messages) || sw_json_str(o, "choices", NULL, &t->choices) ||
        sw_json_str(o, "labels", NULL, &t->labels) || sw_json_str(o, "text", NULL, &t->text) ||
        sw_json_str(o, "separator", " ", &t->separator) || sw_json_str(o, "between", "\n\n", &t->between) ||
        sw_json_str(o, "system", NULL, &t->system) || sw_json_str(o, "score", NULL, &scorer) || sw_json_bool(o, "chat", false, &t->chat) ||
        sw_json_i64(o, "max_tokens", 1, 1 << 24, 256, &t->max_tokens) || sw_json_i64(o, "part_bytes", 64, 1 << 30, 6000, &t->part_bytes) ||
        sw_json_i64(o, "context_bytes", 0, 1 << 30, 0, &t->context_bytes) || check_strings(o, "needs", &t->needs) ||
        check_strings(o, "stop", &t->stop) || read_template(o, "id", &t->id) || read_template(o, "group", &t->group) ||
        read_template(o, "input", &t->input) || read_template(o, "output", &t->output) || read_template(o, "answer", &t->answer) ||
        read_template(o, "continuation", &t->continuation) ||
        eval_rules_read(sw_json_get(o, "answer_extract"), "\"answer_extract\"", &t->answer_extract))
        return -1;
    if (!t->name || !*t->name)
        return sw_fail("the task has no \"name\"");
    for (size_t i = 0; scorer && eval_scorers[i]; i++)
        if (!strcmp(eval_scorers[i]->name, scorer))
            t->scorer = eval_scorers[i];
    if (!t->scorer)
        return sw_fail("\"score\": one of match, choice, perplexity is needed, not %s", scorer ? scorer : "nothing");
    if (!t->input)
        return sw_fail("the task has no \"input\"");
    if (t->scorer == &eval_match && !t->answer)
        return sw_fail("the task has no \"answer\", which the scorer match compares with");
    if (t->scorer == &eval_choice && (!t->answer || !t->choices || !t->continuation))
        return sw_fail("the scorer choice needs \"choices\", \"continuation\" and \"answer\"");
    if (t->scorer == &eval_perplexity && !t->text)
        return sw_fail("the scorer perplexity needs \"text\", the name of a field");
    return read_metrics(t);
}

static eval_task *from_tree(cJSON *tree)
{
    eval_task *t = SW_NEW(eval_task);
    t->tree = tree;
    int rc = cJSON_IsObject(tree) ? read_members(t) : sw_fail("a task is an object, not %s", sw_json_kind(tree));
    if (!rc)
        return t;
    eval_task_free(t);
    return NULL;
}

static eval_task *builtin(const char *name)
{
    for (size_t i = 0; eval_builtin_tasks[i]; i++) {
        cJSON *tree = sw_json_parse(eval_builtin_tasks[i], strlen(eval_builtin_tasks[i]));
        const cJSON *own = sw_json_get(tree, "name");
        if (!tree || !strcmp(own->valuestring, name))
            return tree ? from_tree(tree) : NULL;
        cJSON_Delete(tree);
    }
    return sw_fail_null("there is no task '%s'; `swift-eval tasks` lists them, and a file of your own ends in .json", name);
}

eval_task *eval_task_load(const char *name)
{
    if (!sw_ends_with(name, ".json"))
        return builtin(name);
    cJSON *tree = sw_json_load(name);
    eval_task *t = tree ? from_tree(tree) : NULL;
    if (tree && !t)
        sw_fail_in("%s", name);
    return t;
}

void eval_task_free(eval_task *t)
{
    if (!t)
        return;
    sw_jinja *const all[] = {t->id, t->group, t->input, t->output, t->answer, t->continuation};
    for (size_t i = 0; i < SW_COUNT(all); i++)
        if (all[i])
            sw_jinja_free(all[i]);
    for (size_t i = 0; i < t->n_metrics; i++)
        eval_rules_free(&t->metrics[i].extract);
    eval_rules_free(&t->answer_extract);
    free(t->metrics);
    cJSON_Delete(t->tree);
    free(t);
}

int eval_render(const sw_jinja *j, const cJSON *vars, const char *what, sw_buf *out)
{
    return j && sw_jinja_render(j, vars, 0, out, NULL, NULL) ? sw_fail_in("\"%s\" of the task", what) : 0;
}

const cJSON *eval_member(const cJSON *o, const char *path)
{
    char *copy = sw_strdup(path), *rest = copy;
    for (char *name; o && (name = strsep(&rest, "."));)
        o = sw_json_get(o, name);
    free(copy);
    return o;
}

int eval_right_answer(const eval_task *t, const cJSON *vars, sw_buf *out)
{
    sw_buf whole = {0};
    int rc = eval_render(t->answer, vars, "answer", &whole);
    if (!rc) {
        int found = eval_extract(&t->answer_extract, (sw_span){whole.at, whole.n}, (sw_span){0}, out);
        rc = found > 0 ? 0 : found < 0 ? -1 : sw_fail("the right answer does not have the form that the task %s expects: '%.60s'", t->name, whole.at ? whole.at : "");
    }
    sw_buf_free(&whole);
    return rc;
}

void eval_add_text(cJSON *o, const char *key, sw_span text)
{
    sw_buf b = {0};
    sw_buf_json(&b, text.at ? text.at : "", text.n);
    cJSON_AddItemToObject(o, key, cJSON_CreateRaw(b.at));
    sw_buf_free(&b);
}
