#include "golden_text.h"

#include "base/fileio.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int golden_is_lines(const char *dir) { return sw_is_dir(dir) && golden_has(dir, "cases.jsonl"); }

int golden_each_line(const char *dir, int (*one)(const cJSON *line, void *state), void *state)
{
    char *path = sw_path_join(dir, "cases.jsonl");
    sw_buf text = {0};
    size_t number = 0, bad = 0;
    char first[1500] = "";
    int unread = sw_read_file(path, &text);
    for (size_t at = 0; at < text.n && !unread;) {
        const char *end = memchr(text.at + at, '\n', text.n - at);
        size_t n = (end ? (size_t)(end - text.at) : text.n) - at;
        cJSON *line = sw_json_parse(text.at + at, n);
        number++;
        if ((!line || one(line, state)) && !bad++)
            snprintf(first, sizeof first, "line %zu: %s", number, sw_error());
        cJSON_Delete(line);
        at += n + 1;
    }
    free(path);
    sw_buf_free(&text);
    if (unread)
        return -1;
    return bad ? sw_fail("%zu of %zu differ; first: %s", bad, number, first) : number ? 0 : sw_fail("cases.jsonl is empty");
}

int golden_slurp(const char *dir, const char *name, sw_buf *out)
{
    char *plain = sw_path_join(dir, name), *packed = sw_strfmt("%s.xz", plain);
    int bad = -1;
    if (sw_is_file(plain) || !sw_is_file(packed)) {
        bad = sw_read_file(plain, out);
    } else if (strchr(packed, '\'')) {
        sw_fail("%s: a quote in the name", packed);
    } else {
        char *command = sw_strfmt("xz -dc '%s'", packed);
        FILE *f = popen(command, "r");
        free(command);
        for (size_t n = 1; f && n; out->n += n) {
            sw_buf_reserve(out, 65536);
            n = fread(out->at + out->n, 1, 65536, f);
        }
        sw_buf_add(out, "", 0);
        bad = !f || pclose(f) ? sw_fail("%s: xz failed", packed) : 0;
    }
    free(plain);
    free(packed);
    return bad;
}

static int check_ranges(const cJSON *line, const sw_buf *out, const sw_ranges *ranges, const char *name)
{
    const cJSON *wanted = sw_json_get(line, "generation"), *w = wanted ? wanted->child : NULL;
    if (!wanted)
        return 0;
    if ((size_t)cJSON_GetArraySize(wanted) != ranges->n)
        return sw_fail("%s: %zu generation ranges, not %d", name, ranges->n, cJSON_GetArraySize(wanted));
    for (size_t i = 0; i < ranges->n; i++, w = w->next)
        for (int k = 0; k < 2; k++) {
            size_t got = sw_utf8_count(out->at, SW_MIN(ranges->at[i][k], out->n));
            if ((double)got != cJSON_GetArrayItem(w, k)->valuedouble)
                return sw_fail("%s: generation range %zu has %zu, not %g", name, i, got, cJSON_GetArrayItem(w, k)->valuedouble);
        }
    return 0;
}

int golden_check_rendering(const sw_jinja *j, const cJSON *vars, const cJSON *line, const char *name)
{
    sw_buf out = {0}, scratch = {0};
    sw_ranges ranges = {0};
    sw_jinja_error kind = SW_JINJA_OTHER;
    const cJSON *error = sw_json_get(line, "error"), *error_kind = sw_json_get(line, "error_kind");
    int failed = j ? sw_jinja_render(j, vars, GOLDEN_NOW, &out, &ranges, &kind) : -1, bad = 0;
    if (error) {
        int raised = !strcmp(error_kind->valuestring, "raise_exception");
        if (!failed)
            bad = sw_fail("%s: rendered, where '%s' is due", name, error->valuestring);
        else if (raised && (kind != SW_JINJA_RAISED || strcmp(sw_error(), error->valuestring)))
            bad = sw_fail("%s: the error is '%s', not '%s'", name, sw_error(), error->valuestring);
    } else if (failed) {
        bad = sw_fail_in("%s", name);
    } else {
        sw_span due = sw_json_text(sw_json_get(line, "rendered"), &scratch);
        size_t same = 0;
        while (same < due.n && same < out.n && due.at[same] == out.at[same])
            same++;
        if (due.n != out.n || same < due.n)
            bad = sw_fail("%s: differs at byte %zu: '%.60s', not '%.60s'", name, same, out.n ? out.at + same : "", due.at + same);
        else
            bad = check_ranges(line, &out, &ranges, name);
    }
    sw_buf_free(&out);
    sw_buf_free(&scratch);
    free(ranges.at);
    return bad;
}
