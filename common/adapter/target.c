#include "adapter/tuner.h"

#include "base/json.h"
#include "base/strbuf.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

/* The expression at the beginning of the text, or for the whole of it. group[0..size): what its first group found. */
static int match(const char *expression, const char *text, bool whole, bool *yes, char *group, size_t size)
{
    int code;
    PCRE2_SIZE at, n = size;
    uint32_t flags = PCRE2_ANCHORED | PCRE2_UTF | (whole ? PCRE2_ENDANCHORED : 0);
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED, flags, &code, &at, NULL);
    if (!re) {
        PCRE2_UCHAR why[128] = "";
        pcre2_get_error_message(code, why, sizeof why);
        return sw_fail("'%s' is no regular expression: %s at character %zu", expression, (char *)why, (size_t)at);
    }
    pcre2_match_data *m = pcre2_match_data_create_from_pattern(re, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    pcre2_set_match_limit(limits, 1000000); /* a hostile expression ends in no match */
    *yes = pcre2_match(re, (PCRE2_SPTR)text, strlen(text), 0, 0, m, limits) >= 0 &&
           (!group || !pcre2_substring_copy_byname(m, (PCRE2_SPTR)"index", (PCRE2_UCHAR *)group, &n));
    pcre2_match_context_free(limits);
    pcre2_match_data_free(m);
    pcre2_code_free(re);
    return 0;
}

int sw_whole_match(const char *expression, const char *text, bool *yes) { return match(expression, text, true, yes, NULL, 0); }

static bool ends_a_path(const char *path, const char *name)
{
    size_t n = strlen(name), whole = strlen(path);
    return !strcmp(name, path) || (whole > n && path[whole - n - 1] == '.' && !strcmp(path + whole - n, name));
}

/* Names (ends of paths), or one regular expression for whole paths. */
static int named(const cJSON *names, const sw_module *m, bool *yes)
{
    *yes = false;
    if (cJSON_IsString(names))
        return sw_whole_match(names->valuestring, m->path, yes);
    if (!cJSON_IsArray(names))
        return sw_fail("a list of names or a regular expression is needed, not %s", sw_json_kind(names));
    for (const cJSON *t = names->child; t; t = t->next) {
        if (!cJSON_IsString(t) || !*t->valuestring)
            return sw_fail("a list of names is needed");
        *yes |= ends_a_path(m->path, t->valuestring);
    }
    return 0;
}

/* The number of a module's layer: the first in its path, or the first behind a name that layers_pattern gives. -1: none. */
static int layer_of(const cJSON *patterns, const sw_module *m, int64_t *layer)
{
    char digits[20];
    bool list = cJSON_IsArray(patterns), yes = false;
    *layer = -1;
    if (patterns && !list && !cJSON_IsString(patterns))
        return sw_fail("\"layers_pattern\": a name or a list of names is needed, not %s", sw_json_kind(patterns));
    if (!patterns || (list ? !patterns->child : !*patterns->valuestring)) {
        if (match(".*?\\.[^.]*\\.(?<index>[0-9]{1,18})\\.", m->path, false, &yes, digits, sizeof digits))
            return -1;
    }
    for (const cJSON *p = list ? patterns->child : patterns; p && !yes; p = list ? p->next : NULL) {
        if (!cJSON_IsString(p))
            return sw_fail("\"layers_pattern\": a list of names is needed");
        char *whole = sw_strfmt("(?:^|.*?\\.)%s\\.(?<index>[0-9]{1,18})\\.", p->valuestring);
        int rc = *p->valuestring ? match(whole, m->path, false, &yes, digits, sizeof digits) : 0;
        free(whole);
        if (rc)
            return sw_fail_in("\"layers_pattern\"");
    }
    if (yes)
        *layer = strtoll(digits, NULL, 10);
    return 0;
}

/* Whether layers_to_transform, a number or a list of them, has the module's layer. An empty list asks for nothing. */
static int in_layers(const cJSON *config, const sw_module *m, bool *yes)
{
    const cJSON *layers = sw_json_get(config, "layers_to_transform");
    bool list = cJSON_IsArray(layers);
    int64_t layer;
    *yes = true;
    if (!layers || (list && !layers->child))
        return 0;
    if (cJSON_IsString(sw_json_get(config, "target_modules")))
        return sw_fail("\"layers_to_transform\" goes with a list of names in \"target_modules\"");
    if (layer_of(sw_json_get(config, "layers_pattern"), m, &layer))
        return -1;
    *yes = false;
    for (const cJSON *l = list ? layers->child : layers; l; l = list ? l->next : NULL) {
        if (!cJSON_IsNumber(l))
            return sw_fail("\"layers_to_transform\": a number or a list of numbers is needed, not %s", sw_json_kind(l));
        *yes |= layer >= 0 && l->valuedouble == (double)layer;
    }
    return 0;
}

int sw_target_matches(const cJSON *config, const sw_module *m, bool *yes)
{
    const cJSON *target = sw_json_get(config, "target_modules"), *not = sw_json_get(config, "exclude_modules");
    bool excluded = false;
    if (cJSON_IsString(target) && !strcmp(target->valuestring, "all-linear"))
        *yes = m->kind == SW_MODULE_LINEAR;
    else if (named(target, m, yes))
        return sw_fail_in("\"target_modules\"");
    if (not && named(not, m, &excluded))
        return sw_fail_in("\"exclude_modules\"");
    *yes &= !excluded;
    return *yes ? in_layers(config, m, yes) : 0;
}

bool sw_path_in(const char *path, const char *name)
{
    size_t n = strlen(name);
    if (sw_ends_with(path, name))
        return true;
    for (const char *at = path; (at = strstr(at, name)); at += n)
        if ((at == path || at[-1] == '.') && at[n] == '.')
            return true;
    return false;
}

bool sw_tuner_saves(const cJSON *config, const sw_module *m)
{
    const cJSON *list = sw_json_get(config, "modules_to_save");
    for (const cJSON *s = cJSON_IsArray(list) ? list->child : NULL; s; s = s->next)
        if (cJSON_IsString(s) && *s->valuestring && sw_path_in(m->path, s->valuestring))
            return true;
    return false;
}
