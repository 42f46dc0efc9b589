/* Pictures, sound and film of a row. They stand in columns of their own (images, videos, audios) and where they belong
 * in the text is said by tags (<image>, <video>, <audio>), or they are parts of messages, as OpenAI has them. Either
 * way they become a list a kind, in the order of the text, and parts {"type": KIND} of the messages, which chat
 * templates turn into the model's own placeholders. */
#include "data/dataset_parts.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *type, *tag, *list;
    const char *columns[3];
} kinds[] = {
    {"image", "<image>", "images", {"images", "image", NULL}},
    {"video", "<video>", "videos", {"videos", "video", NULL}},
    {"audio", "<audio>", "audios", {"audios", "audio", NULL}},
};

/* A path, URL or data: text; or an object with one of them. A list of those is a film by its frames. Takes v. */
static cJSON *one_medium(cJSON *v, const char *field)
{
    static const char *const inside[] = {"path", "url", "image", "video", "audio", "bytes", NULL};
    bool good = cJSON_IsString(v) && *v->valuestring;
    const char *name = cJSON_IsObject(v) ? dataset_present(v, inside) : NULL;
    for (const cJSON *c = cJSON_IsArray(v) ? v->child : NULL; c; c = c->next)
        good = cJSON_IsString(c) && (good || c == v->child);
    if (name && cJSON_IsString(sw_json_get(v, name))) {
        cJSON *s = cJSON_DetachItemFromObjectCaseSensitive(v, name);
        bool bytes = !strcmp(name, "bytes");
        cJSON_Delete(v);
        if (bytes) { /* base64, as datasets print it */
            char *text = sw_strfmt("data:;base64,%s", s->valuestring);
            cJSON_SetValuestring(s, text);
            free(text);
        }
        return s;
    }
    if (good)
        return v;
    sw_fail("field \"%s\": a path, a URL or an object with \"path\", \"url\" or \"bytes\" is needed, not %s", field,
            cJSON_IsString(v) ? "an empty string" : sw_json_kind(v));
    cJSON_Delete(v);
    return NULL;
}

static cJSON *list_of(sw_sample *s, size_t kind)
{
    if (!s->media)
        s->media = cJSON_CreateObject();
    cJSON *list = cJSON_GetObjectItemCaseSensitive(s->media, kinds[kind].list);
    return list ? list : cJSON_AddArrayToObject(s->media, kinds[kind].list);
}

static bool is_empty(const cJSON *v)
{
    return (cJSON_IsArray(v) && !v->child) || (cJSON_IsString(v) && !*v->valuestring);
}

int dataset_take_media(cJSON *row, sw_sample *s)
{
    const cJSON *objects = sw_json_get(row, "objects");
    if (objects && !is_empty(objects))
        return sw_fail("field \"objects\": boxes cannot be read; write them into the text as the model expects them");
    for (size_t k = 0; k < SW_COUNT(kinds); k++) {
        const char *name = dataset_present(row, kinds[k].columns);
        cJSON *v = dataset_take(row, name);
        if (!v || is_empty(v)) {
            cJSON_Delete(v);
            continue;
        }
        bool many = cJSON_IsArray(v);
        cJSON *list = list_of(s, k);
        for (cJSON *item; (item = many ? cJSON_DetachItemViaPointer(v, v->child) : v);) {
            cJSON *m = one_medium(item, name);
            if (m)
                cJSON_AddItemToArray(list, m);
            if (!m && many)
                cJSON_Delete(v);
            if (!m)
                return -1;
            if (!many)
                break;
        }
        if (many)
            cJSON_Delete(v);
    }
    return 0;
}

/* ---- in the messages */

static cJSON *part_of(const char *type)
{
    cJSON *p = cJSON_CreateObject();
    cJSON_AddStringToObject(p, "type", type);
    return p;
}

static void add_text_part(cJSON *parts, const char *text, size_t n)
{
    if (!n)
        return;
    cJSON *p = part_of("text");
    char *copy = sw_strndup(text, n);
    cJSON_AddStringToObject(p, "text", copy);
    free(copy);
    cJSON_AddItemToArray(parts, p);
}

/* The next tag in text: its kind, or -1. */
static int find_tag(const char *text, const char **at)
{
    int kind = -1;
    *at = NULL;
    for (size_t k = 0; k < SW_COUNT(kinds); k++) {
        const char *hit = strstr(text, kinds[k].tag);
        if (hit && (!*at || hit < *at)) {
            *at = hit;
            kind = (int)k;
        }
    }
    return kind;
}

/* The media before the text, the rest at their tags. NULL: there is nothing to place. */
static cJSON *parts_of(const char *text, const int before[SW_COUNT(kinds)], int used[SW_COUNT(kinds)])
{
    cJSON *parts = cJSON_CreateArray();
    for (size_t k = 0; k < SW_COUNT(kinds); k++)
        for (int i = 0; i < before[k]; i++) {
            cJSON_AddItemToArray(parts, part_of(kinds[k].type));
            used[k]++;
        }
    const char *at;
    for (int kind; (kind = find_tag(text, &at)) >= 0; text = at + strlen(kinds[kind].tag)) {
        add_text_part(parts, text, (size_t)(at - text));
        cJSON_AddItemToArray(parts, part_of(kinds[kind].type));
        used[kind]++;
    }
    if (!parts->child) {
        cJSON_Delete(parts);
        return NULL;
    }
    add_text_part(parts, text, strlen(text));
    return parts;
}

static void count_tags(const cJSON *messages, int n[SW_COUNT(kinds)])
{
    for (const cJSON *m = messages->child; m; m = m->next) {
        const cJSON *content = sw_json_get(m, "content");
        const char *text = cJSON_IsString(content) ? content->valuestring : "", *at;
        for (int kind; (kind = find_tag(text, &at)) >= 0; text = at + strlen(kinds[kind].tag))
            n[kind]++;
    }
}

/* Media without a tag of their own stand before the first thing that the user says. */
static int place(cJSON *messages, const cJSON *media, const char *what)
{
    int tags[SW_COUNT(kinds)] = {0}, before[SW_COUNT(kinds)] = {0}, used[SW_COUNT(kinds)] = {0};
    count_tags(messages, tags);
    for (size_t k = 0; k < SW_COUNT(kinds); k++) {
        int there = cJSON_GetArraySize(sw_json_get(media, kinds[k].list));
        if (tags[k] > there && there)
            return sw_fail("%s: %d tags %s, but %d %s", what, tags[k], kinds[k].tag, there, kinds[k].list);
        if (tags[k] > there)
            return sw_fail("%s: has the tag %s, but the record has no \"%s\"", what, kinds[k].tag, kinds[k].list);
        before[k] = there - tags[k];
    }
    static const int none[SW_COUNT(kinds)];
    bool first = true;
    for (cJSON *m = messages->child; m; m = m->next) {
        cJSON *content = cJSON_GetObjectItemCaseSensitive(m, "content");
        bool user = !strcmp(sw_json_get(m, "role")->valuestring, "user");
        cJSON *parts =
            cJSON_IsString(content) ? parts_of(content->valuestring, user && first ? before : none, used) : NULL;
        first &= !user;
        if (parts)
            cJSON_ReplaceItemInObjectCaseSensitive(m, "content", parts);
    }
    return first ? sw_fail("%s: no user turn that the images, videos or audios could belong to", what) : 0;
}

int dataset_place_media(sw_sample *s)
{
    if (!s->media)
        return 0;
    if (s->kind != SW_SAMPLE_CHAT)
        return sw_fail("field \"images\", \"videos\" or \"audios\": only conversations can have them");
    return place(s->messages, s->media, "messages") || (s->rejected && place(s->rejected, s->media, "rejected answer"))
               ? -1
               : 0;
}

/* ---- parts that messages bring themselves */

int dataset_media_from_parts(cJSON *messages, sw_sample *s)
{
    for (cJSON *m = cJSON_IsArray(messages) ? messages->child : NULL; m; m = m->next) {
        cJSON *content = cJSON_GetObjectItemCaseSensitive(m, "content");
        for (cJSON *p = cJSON_IsArray(content) ? content->child : NULL; p; p = p->next) {
            const cJSON *type = sw_json_get(p, "type");
            for (size_t k = 0; cJSON_IsString(type) && k < SW_COUNT(kinds); k++) {
                size_t n = strlen(kinds[k].type);
                if (strncmp(type->valuestring, kinds[k].type, n) ||
                    (type->valuestring[n] && strcmp(type->valuestring + n, "_url")))
                    continue;
                const char *names[] = {type->valuestring, kinds[k].type, "url", "path", NULL};
                cJSON *medium = dataset_take(p, dataset_present(p, names));
                if (medium && !(medium = one_medium(medium, kinds[k].type)))
                    return -1;
                cJSON *list =
                    list_of(s, k); /* also for a part without one: the column that it stands for may be missing */
                if (medium)
                    cJSON_AddItemToArray(list, medium);
                cJSON_ReplaceItemInObjectCaseSensitive(p, "type", cJSON_CreateString("text"));
                cJSON_DeleteItemFromObjectCaseSensitive(p, "text");
                cJSON_AddStringToObject(p, "text", kinds[k].tag);
                break;
            }
        }
    }
    return 0;
}
