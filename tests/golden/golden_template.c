/* The built-in chat formats and agent formats: what each renders, and that what it writes as calls is read back. */
#include "golden_text.h"

#include "base/json.h"
#include "base/memory.h"
#include "text/template.h"

#include <stdlib.h>
#include <string.h>

static int check_text(const cJSON *line, const sw_template *m, const char *label)
{
    sw_buf out = {0};
    bool prompt;
    const cJSON *due = sw_json_get(line, "rendered"), *error = sw_json_get(line, "error");
    if (sw_json_bool(line, "add_generation_prompt", false, &prompt))
        return -1;
    int failed =
            sw_template_render(m, sw_json_get(line, "messages"), sw_json_get(line, "tools"), NULL, prompt, &out, NULL),
        bad = 0;
    if (error) {
        bad = failed && strstr(sw_error(), error->valuestring)
                  ? 0
                  : sw_fail("%s: '%s' is due, not %s", label, error->valuestring, failed ? sw_error() : "a text");
    } else if (failed) {
        bad = sw_fail_in("%s", label);
    } else {
        const char *want = due->valuestring, *got = out.n ? out.at : "";
        size_t same = 0;
        while (want[same] && want[same] == got[same])
            same++;
        if (want[same] || got[same])
            bad = sw_fail("%s: differs at byte %zu: '%.60s', not '%.60s'", label, same, got + same, want + same);
    }
    sw_buf_free(&out);
    return bad;
}

static int check_calls(const cJSON *line, const sw_template *m, const char *label)
{
    const cJSON *due = sw_json_get(line, "calls"), *text = sw_json_get(line, "calls_text");
    if (!due)
        return 0;
    char *answer = sw_strfmt("Let me see.\n%s", text->valuestring);
    sw_buf rest = {0};
    cJSON *got = sw_agent_parse(sw_template_agent(m), answer, strlen(answer), sw_json_get(line, "tools"), &rest);
    int bad = cJSON_Compare(got, due, 1) ? 0 : -1;
    if (bad) {
        sw_buf b = {0};
        sw_json_print(&b, got);
        sw_fail("%s: the calls read back are %s", label, b.at);
        sw_buf_free(&b);
    } else if (strcmp(rest.n ? rest.at : "", "Let me see.")) {
        bad = sw_fail("%s: what is left beside the calls is '%s'", label, rest.at);
    }
    sw_buf_free(&rest);
    cJSON_Delete(got);
    free(answer);
    return bad;
}

static int one(const cJSON *line, void *tokenizer)
{
    const char *name, *agent;
    if (sw_json_str(line, "template", "", &name) || sw_json_str(line, "agent", NULL, &agent))
        return -1;
    sw_template *m = sw_template_choose(tokenizer, &(sw_template_choice){.source = name, .agent = agent});
    const cJSON *error = sw_json_get(line, "error");
    if (!m)
        return error && strstr(sw_error(), error->valuestring) ? 0 : -1;
    char *label = sw_strfmt("%s%s%s", name, agent ? ", " : "", agent ? agent : "");
    int bad = check_text(line, m, label) || check_calls(line, m, label);
    free(label);
    sw_template_free(m);
    return bad;
}

static int run(const char *dir, double *worst)
{
    (void)worst;
    sw_tokenizer *t = sw_tokenizer_load(dir);
    int bad = t ? golden_each_line(dir, one, t) : -1;
    sw_tokenizer_free(t);
    return bad;
}

const golden_kind golden_template = {"template", golden_is_lines, run, NULL};
