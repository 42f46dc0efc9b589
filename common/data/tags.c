#include "data/tags.h"

#include "base/json.h"
#include "base/memory.h"
#include "base/strbuf.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_TAGS = 1 << 20 };

static void read_place(sw_tags *t, sw_tag *tag)
{
    static const char letters[] = "BIESLU", places[] = "BIESES";
    const char *at = tag->name[0] ? strchr(letters, tag->name[0]) : NULL;
    tag->type = "";
    if (!strcmp(tag->name, "O")) {
        tag->place = 'O';
    } else if (at && (tag->name[1] == '-' || tag->name[1] == '_') && tag->name[2]) {
        tag->place = places[at - letters];
        tag->type = tag->name + 2;
        t->spans = true;
    }
}

int sw_tags_read(sw_tags *t, const cJSON *config, int64_t labels)
{
    const cJSON *names = sw_json_get(config, "id2label");
    *t = (sw_tags){0};
    if (!names)
        return 0;
    size_t n = cJSON_IsObject(names) ? (size_t)cJSON_GetArraySize(names) : 0;
    if (!n || n > MOST_TAGS)
        return sw_fail("\"id2label\": an object with the names of 1 to %d classes is needed", MOST_TAGS);
    if (labels && (int64_t)n != labels)
        return sw_fail("\"id2label\" names %zu classes, the head has %lld", n, (long long)labels);
    t->at = SW_NEW_ARRAY(sw_tag, n);
    t->n = n;
    for (const cJSON *v = names->child; v; v = v->next) {
        char *end;
        unsigned long i = strtoul(v->string, &end, 10);
        if (*end || end == v->string || i >= n || t->at[i].name || !cJSON_IsString(v)) {
            sw_fail("\"id2label\": \"%.40s\": each number from 0 to %zu is needed once, with a name", v->string, n - 1);
            sw_tags_free(t);
            return -1;
        }
        t->at[i].name = sw_strdup(v->valuestring);
        read_place(t, &t->at[i]);
    }
    return 0;
}

int sw_tags_parse(sw_tags *t, const char *text)
{
    bool number = *text && strspn(text, "0123456789") == strlen(text);
    size_t n = number ? strtoul(text, NULL, 10) : 1;
    for (const char *c = text; !number && *c; c++)
        n += *c == ',';
    *t = (sw_tags){0};
    if (!n || n > MOST_TAGS || strlen(text) > (size_t)64 * MOST_TAGS)
        return sw_fail("'%.40s': 1 to %d classes are possible", text, MOST_TAGS);
    t->at = SW_NEW_ARRAY(sw_tag, n);
    for (const char *c = text; t->n < n; t->n++) {
        size_t length = strcspn(c, ",");
        sw_tag *tag = &t->at[t->n];
        tag->name = number ? sw_strfmt("LABEL_%zu", t->n) : sw_strndup(c, length);
        c += number ? 0 : length + (c[length] == ',');
        bool twice = !number && sw_tags_find(t, tag->name) >= 0;
        if (!*tag->name || twice) {
            sw_fail("'%.80s': class %zu %s%s", text, t->n, *tag->name ? "has the name of one before it: " : "has no name", tag->name);
            t->n++;
            sw_tags_free(t);
            return -1;
        }
        read_place(t, tag);
    }
    return 0;
}

void sw_tags_free(sw_tags *t)
{
    for (size_t i = 0; i < t->n; i++)
        free(t->at[i].name);
    free(t->at);
    *t = (sw_tags){0};
}

cJSON *sw_tags_names(const sw_tags *t)
{
    cJSON *names = t->n ? cJSON_CreateArray() : NULL;
    for (size_t i = 0; i < t->n; i++)
        cJSON_AddItemToArray(names, cJSON_CreateString(t->at[i].name));
    return names;
}

int32_t sw_tags_find(const sw_tags *t, const char *name)
{
    for (size_t i = 0; i < t->n; i++)
        if (!strcmp(t->at[i].name, name))
            return (int32_t)i;
    return -1;
}

int32_t sw_tags_of_span(const sw_tags *t, const char *type, bool first)
{
    if (!type)
        return sw_tags_find(t, "O");
    for (const char *place = first ? "BI" : "I"; *place; place++)
        for (size_t i = 0; i < t->n; i++)
            if (t->at[i].place == *place && !strcmp(t->at[i].type, type))
                return (int32_t)i;
    return sw_tags_find(t, type);
}

/* Whether the first word of a span lies between a word and the one before it, and the last one. */
static bool begins(const sw_tag *before, const sw_tag *tag)
{
    if (tag->place == 'B' || tag->place == 'S')
        return true;
    bool inside = tag->place == 'I' || tag->place == 'E';
    return inside && (before->place == 'E' || before->place == 'S' || before->place == 'O' || strcmp(before->type, tag->type));
}

static bool ends(const sw_tag *before, const sw_tag *tag)
{
    if (before->place == 'E' || before->place == 'S')
        return true;
    return before->place != 'O' && (tag->place == 'B' || tag->place == 'S' || tag->place == 'O' || strcmp(before->type, tag->type));
}

void sw_tags_spans(const sw_tags *t, const int32_t *ids, size_t n, sw_tag_spans *out)
{
    static const sw_tag outside = {.place = 'O', .type = ""};
    const sw_tag *before = &outside;
    size_t start = 0;
    bool open = false;
    for (size_t i = 0; t->spans && i <= n; i++) {
        const sw_tag *tag = i < n && t->at[ids[i]].place ? &t->at[ids[i]] : &outside;
        if (open && ends(before, tag)) {
            sw_tag_span s = {start, i, before->type};
            SW_PUSH(*out, s);
            open = false;
        }
        if (begins(before, tag)) {
            start = i;
            open = true;
        }
        before = tag;
    }
}
