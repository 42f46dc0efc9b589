#include "golden_text.h"

#include "base/json.h"

static int one(const cJSON *line, void *state)
{
    (void)state;
    sw_buf scratch = {0};
    sw_span source = sw_json_text(sw_json_get(line, "source"), &scratch);
    sw_jinja *j = sw_jinja_compile(source.at, source.n);
    int bad = golden_check_rendering(j, sw_json_get(line, "vars"), line, source.at);
    sw_jinja_free(j);
    sw_buf_free(&scratch);
    return bad;
}

static int run(const char *dir, double *worst)
{
    (void)worst;
    return golden_each_line(dir, one, NULL);
}

const golden_kind golden_jinja = {"jinja", golden_is_lines, run, NULL};
